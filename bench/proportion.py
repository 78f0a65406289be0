"""What ten new studies cost where 100, 1,000, 10,000 (or 100,000) are: DVC, ledger and Prefect without the stages.

Two stages of the shape of anonymize and standardize (persisted directories, one small file a study; each writes only
what is new) run by `run_stage`; beside it the same with DVC's own walk of the directories, which is what `dvc repro`
does in process. The ledger holds as many rows. Wall seconds and CPU seconds, medians of five additions.
BENCH_FULL=1 adds 100,000.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NEW, ADDITIONS = 10, 5
SIZES = (100, 1000, 10000) + ((100000,) if os.environ.get("BENCH_FULL") else ())
DVC_ALONE_UP_TO = 10000
FIGURE = Path(__file__).parent / "results" / "proportion.svg"

STAGE = """
import pathlib
def main(argv=None, params=None, mapper=None):
    source, out = pathlib.Path("data/{source}"), pathlib.Path("data/{out}")
    there = {{path.name for path in out.iterdir()}} if out.exists() else set()
    for batch in sorted(source.iterdir()):
        if batch.name in there and {skip}:
            continue
        (out / batch.name).mkdir(parents=True, exist_ok=True)
        names = batch.read_text().split() if batch.is_file() else [path.name for path in batch.iterdir()]
        for name in names:
            if not (out / batch.name / name).exists():
                (out / batch.name / name).write_text(name * 60)
if __name__ == "__main__":
    main()
"""
DVC_YAML = """
stages:
  first:
    cmd: python -m tasks.bench_first
    deps: [data/batches, tasks/bench_first]
    outs: [data/studies: {persist: true}]
  second:
    cmd: python -m tasks.bench_second
    deps: [data/studies, tasks/bench_second]
    outs: [data/hips: {persist: true}]
"""


def run() -> dict[str, object]:
    from flows.environment import prepare

    found: dict[str, dict[str, object]] = {}
    here = Path.cwd()
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_PLACE"), ignore_cleanup_errors=True) as place:
        try:
            for size in SIZES:
                workspace = make_workspace(Path(place) / str(size))
                os.environ["OSTEOFLOW_HOME"] = str(workspace / ".osteoflow")
                os.chdir(workspace)
                prepare(workspace)
                found[str(size)] = at_size(size)
                shutil.rmtree(workspace / ".dvc" / "cache")
        finally:
            os.chdir(here)
    smallest, at_10000 = found[str(SIZES[0])], found["10000"]
    ratio = round(float(str(at_10000["overhead_s"])) / float(str(smallest["overhead_s"])), 2)
    draw(found)
    return {"new_studies": NEW, "sizes": found, "ratio_10000_to_100": ratio, "figure": FIGURE.name}


def at_size(size: int) -> dict[str, object]:
    """Load `size` studies, then add ten, three times each way."""
    from flows import directories
    from tasks.ledger import Ledger

    with Ledger.open() as ledger:
        fill(ledger, size)
        with of_dvc_alone(size > DVC_ALONE_UP_TO):
            run_all()
        at = size
        ours, dvc, ledgers, stages, cpu = [], [], [], [], []
        for number in range(2 * ADDITIONS + 2):
            started = time.perf_counter()
            arrive(ledger, at, NEW)
            spent = time.perf_counter() - started
            at += NEW
            directories.forget()  # each addition stands for a run of its own
            alone = number > ADDITIONS
            if alone and size > DVC_ALONE_UP_TO:
                break
            before = time.process_time()
            with of_dvc_alone(not alone):
                overheads = run_all()
            if not alone and number:
                stages += overheads
                cpu.append(time.process_time() - before)
            overhead = sum(overheads)
            if number in (0, ADDITIONS + 1):
                continue  # the first of each fills its listing or DVC's database
            (dvc if alone else ours).append(overhead)
            ledgers.append(spent)
        directories.forget()
        unchanged = sum(run_all())
    task = prefect_task_s()
    total = statistics.median(ours) + statistics.median(ledgers) + 2 * task
    return {
        "overhead_s": round(total, 3),
        "dvc_s": round(statistics.median(ours), 3),
        "a_stage_s": round(statistics.median(stages), 3),
        "cpu_s": round(statistics.median(cpu), 3),
        "ledger_s": round(statistics.median(ledgers), 3),
        "prefect_s": round(2 * task, 3),
        "nothing_new_s": round(unchanged, 3),
        "dvc_walking_s": round(statistics.median(dvc), 3) if dvc else None,
    }


def run_all() -> list[float]:
    """Seconds of each stage beyond those of its function."""
    from flows.stage import run_stage

    return [run_stage(name).overhead_s for name in ("first", "second")]


@contextmanager
def of_dvc_alone(no: bool) -> Iterator[None]:
    """With False: DVC hashes and caches the directories itself."""
    from flows import stage

    kept = stage.hasten
    if not no:
        stage.hasten = lambda one: one
    try:
        yield
    finally:
        stage.hasten = kept


def fill(ledger: object, count: int) -> None:
    """`count` studies that are done, written at once: what is there before anything is measured."""
    from sqlalchemy import insert

    from tasks.ledger import Ledger
    from tasks.ledger.engine import writing
    from tasks.ledger.tables import batches, files, studies

    assert isinstance(ledger, Ledger)
    batch, now = "batch-000001", time.time()
    common = {"site": "local", "version": 1, "current": 1, "state": "done", "origin": "phantom", "n_files": 1,
              "first_received": now, "last_received": now, "batch": batch, "purged": 0}  # fmt: skip
    names = [f"{n:032x}" for n in range(count)]
    with writing(ledger.engine) as conn:
        conn.execute(insert(batches).values(batch=batch, number=1, owner="bench", claimed_at=now, written_at=now,
                                            finished_at=now))  # fmt: skip
        conn.execute(insert(studies), [
            common | {"row_key": name, "study_uid": f"1.3.{n}", "patient_id": f"Q{n // 3}", "commitment": name}
            for n, name in enumerate(names)
        ])  # fmt: skip
        conn.execute(insert(files), [
            {"row_key": name, "sop_uid": f"1.3.{n}.1.1", "series_uid": f"1.3.{n}.1", "sha256": name, "size": 1,
             "path": name, "geometry": "{}"}
            for n, name in enumerate(names)
        ])  # fmt: skip
    Path("data/batches").mkdir(parents=True, exist_ok=True)
    (Path("data/batches") / batch).write_text("\n".join(names))


def arrive(ledger: object, first: int, count: int) -> None:
    """`count` studies through the ledger: received, complete, claimed, in a manifest, done."""
    from tasks.ledger import Arrival, Ledger

    assert isinstance(ledger, Ledger)
    for start in range(first, first + count, 1000):
        arrivals = [
            Arrival(
                site="local", origin="phantom", study_uid=f"1.2.{n}", patient_id=f"P{n // 3}", series_uid=f"1.2.{n}.1",
                sop_uid=f"1.2.{n}.1.1", sha256=f"{n:064x}", size=1, geometry="{}",
            )
            for n in range(start, min(start + 1000, first + count))
        ]  # fmt: skip
        keys = [str(verdict.row_key) for verdict in ledger.receive(arrivals, _Paper())]
        for key in keys:
            ledger.complete(key)
    batch = ledger.claim_batch("bench")
    assert batch is not None
    folder = Path("data/batches")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / batch).write_text("\n".join(row["commitment"][:32] for row in ledger.batch_rows(batch)))
    ledger.batch_written(batch)
    ledger.finish_batch(batch)


class _Paper:
    """A spool without files."""

    def put(self, index: int, row_key: str) -> str:
        return f"spool/{row_key}/{index}"

    def carry(self, path: str, row_key: str) -> str | None:
        return path

    def same(self, index: int, path: str) -> bool:
        return False

    def sync(self) -> None:
        """Nothing is on disk."""


def prefect_task_s() -> float:
    """Seconds that Prefect adds to one task of a flow, median of ten, after the first."""
    import prefect

    times: list[float] = []

    @prefect.task(name="nothing", persist_result=False)
    def nothing() -> None:
        """No work."""

    @prefect.flow(name="bench", persist_result=False)
    def flow() -> None:
        for _ in range(11):
            started = time.perf_counter()
            nothing()
            times.append(time.perf_counter() - started)

    flow()
    return statistics.median(times[1:])


def make_workspace(folder: Path) -> Path:
    for name, source, out, skip in (
        ("bench_first", "batches", "studies", True),
        ("bench_second", "studies", "hips", True),
    ):
        (folder / "tasks" / name).mkdir(parents=True)
        (folder / "tasks" / name / "__init__.py").touch()
        (folder / "tasks" / name / "__main__.py").write_text(STAGE.format(source=source, out=out, skip=skip))
    (folder / "dvc.yaml").write_text(DVC_YAML)
    (folder / "params.yaml").write_text("{}\n")
    (folder / ".gitignore").write_text("/data/*\n__pycache__/\n.osteoflow/\n")
    (folder / ".dvcignore").write_text("__pycache__/\n.gitignore\n.osteoflow/\n")
    environment = os.environ | {"DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(folder.parent / "site")}
    for words in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(words, cwd=folder, check=True, env=environment)
    import tasks

    tasks.__path__.append(str(folder / "tasks"))
    for name in [name for name in sys.modules if name.startswith("tasks.bench_")]:
        del sys.modules[name]
    return folder


def draw(found: dict[str, dict[str, object]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4))
    sizes = [int(size) for size in found]
    for key, label in (
        ("overhead_s", "osteoflow: DVC, ledger and Prefect"),
        ("dvc_walking_s", "DVC alone, walking the directories"),
        ("nothing_new_s", "nothing new: two stages looked at"),
    ):
        points = [(size, value) for size in sizes if (value := found[str(size)][key]) is not None]
        axes.plot(*zip(*points, strict=True), marker="o", label=label)
    axes.set(xscale="log", yscale="log", xlabel="studies that are there", ylabel="seconds, two stages")
    axes.set_title(f"{NEW} new studies")
    axes.legend()
    figure.tight_layout()
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, metadata={"Date": None})
    pyplot.close(figure)
