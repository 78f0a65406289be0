"""`osteoflow demo`: the whole life on phantoms, in a workspace of its own.

    workspace → cohort → first arrival → version 1 → second arrival, scored at once → version 2, gated → what came out

The workspace is OSTEOFLOW_HOME/demo/: a Git repository with the tree as it stands, its own params (flows/demo.yaml laid
over params.yaml) and its own .osteoflow/. A second demo replaces the first and nothing else.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from flows.alone import locked
from flows.environment import prepare
from flows.progress import bar
from tasks.domain.errors import WrongUse
from tasks.domain.hip import RESEARCH_ONLY
from tasks.domain.params import lay_over
from tasks.domain.settings import Settings
from tasks.keys.keyfile import default_path
from tasks.store.files import write_bytes

MARK = ".osteoflow-demo"
ELSEWHERE = (
    "OSTEOFLOW_LEDGER_URL",
    "OSTEOFLOW_KEY_FILE",
    "OSTEOFLOW_SITE",
    "OSTEOFLOW_WORK_POOL",
    "PREFECT_API_URL",
    "PREFECT_API_DATABASE_CONNECTION_URL",
    "PREFECT_SERVER_DATABASE_CONNECTION_URL",
    "MLFLOW_TRACKING_URI",
    "MLFLOW_REGISTRY_URI",
)
"""Settings that point out of the workspace: the demo must not touch a hospital's servers."""
FIRST_SHARE = 2 / 3


def run(patients: int, seed: int, console: Console) -> None:
    checkout = Path.cwd().resolve()
    if not (checkout / "dvc.yaml").exists():
        raise WrongUse("run the demo from the root of a checkout: dvc.yaml is not here")
    home = (checkout / Settings().home).resolve()
    home.mkdir(parents=True, exist_ok=True)
    with locked(home / "demo.lock", "another demo is running in this checkout"):
        clock = Clock()
        workspace = make_workspace(checkout, home / "demo", seed)
        os.chdir(workspace)
        for name in ELSEWHERE:
            os.environ.pop(name, None)
        os.environ["OSTEOFLOW_HOME"] = str(workspace / ".osteoflow")
        settings = prepare(workspace)
        _key(seed)
        console.print(f"workspace: {workspace}")
        _live(settings, patients, seed, console, clock)


def _live(settings: Settings, patients: int, seed: int, console: Console, clock: Clock) -> None:
    from flows import arrive, retrain
    from flows.cohort import drops
    from flows.given import PRELOAD
    from tasks.phantom import write_cohort
    from tasks.store.mapping import local

    # The embedded Prefect server takes half a minute on a fresh database; it starts beside the phantoms.
    warm = threading.Thread(target=_start_server, daemon=True)
    warm.start()
    with local(preload=PRELOAD) as mapper:
        cohort = settings.identified / "phantom"
        with clock("phantoms"), bar(console, "phantoms") as progress:
            write_cohort(cohort, patients=patients, seed=seed, site=settings.site, mapper=mapper, progress=progress)
        shutil.copy(cohort / "montage.png", settings.home / "phantoms.png")
        with clock("server start"):
            warm.join()
        results: list[dict[str, Any]] = []
        for number, drop in enumerate(drops(cohort, FIRST_SHARE), start=1):
            console.rule(f"arrival {number}")
            with clock(f"arrival {number}"):
                arrivals = arrive.ingest(drop.dicom, origin="phantom", console=console, mapper=mapper)
                labels = arrive.take_annotations(drop.annotations, origin="phantom")
            from flows.watch import due
            from tasks.ledger import Ledger

            start, why = due(Ledger.open())
            console.print(f"retrain? {'yes' if start else 'no'}: {why}")
            with clock(f"dataset run {number}"):
                made = retrain.run(force=not start, console=console, mapper=mapper)
            results.append({"arrivals": arrivals, "labels": labels, "retrain": made})
            for name, seconds in made["seconds"].items():
                clock.add(f"dataset run {number}: {name}", seconds, part=True)
    _show(results, settings, console, clock)


def _key(seed: int) -> None:
    """The project key follows from the seed: pseudonyms, and with them the split, are those of the demo before.

    It guards nobody, since the patients are invented. A real key is made of random bytes, on first use.
    """
    write_bytes(default_path(), hashlib.sha256(f"osteoflow demo {seed}".encode()).hexdigest().encode(), 0o600)


# ---- workspace ------------------------------------------------------------------------------------------------------


def make_workspace(checkout: Path, workspace: Path, seed: int) -> Path:
    """A Git repository holding the checkout's files as they stand, uncommitted edits included."""
    if workspace.exists():
        if not (workspace / MARK).exists():
            raise WrongUse(f"{workspace} is there and is not a demo's workspace; move it away")
        shutil.rmtree(workspace)
    workspace.mkdir(parents=True)
    (workspace / MARK).touch()
    for name in _files(checkout):
        target = workspace / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(checkout / name, target)
    overlay = yaml.safe_load((checkout / "flows" / "demo.yaml").read_text(encoding="utf-8"))
    params = yaml.safe_load((checkout / "params.yaml").read_text(encoding="utf-8"))
    lay_over(params, overlay)
    _seed(params, seed)
    text = "# params.yaml with flows/demo.yaml laid over it\n" + yaml.safe_dump(params, sort_keys=False)
    (workspace / "params.yaml").write_text(text, encoding="utf-8")
    with open(workspace / ".gitignore", "a", encoding="utf-8") as ignore:
        ignore.write(f"{MARK}\n")
    who = ("-c", "user.name=osteoflow demo", "-c", "user.email=demo@osteoflow.invalid", "-c", "commit.gpgSign=false")
    for words in (["init", "-q", "-b", "main"], ["add", "-A"], [*who, "commit", "-q", "-m", "The tree as it stands"]):
        subprocess.run(["git", *words], cwd=workspace, check=True)
    return workspace


def _seed(params: dict[str, Any], seed: int) -> None:
    """Every `seed` of every section becomes this one."""
    for name, value in params.items():
        if name == "seed":
            params[name] = seed
        elif isinstance(value, dict):
            _seed(value, seed)


def _files(checkout: Path) -> list[str]:
    """Tracked and untracked-but-not-ignored files; data, models and lock files of the checkout stay there."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=checkout, capture_output=True, text=True,
    )  # fmt: skip
    if listed.returncode:
        raise WrongUse("the demo needs a Git checkout (git ls-files failed here)")
    names = sorted({name for name in listed.stdout.split("\0") if name})
    return [name for name in names if (checkout / name).is_file() and name != "dvc.lock" and not name.endswith(".dvc")]


def _start_server() -> None:
    import prefect

    @prefect.flow(name="hello", persist_result=False)
    def hello() -> None:
        """Nothing but the start of the embedded server."""

    hello()


# ---- what came out --------------------------------------------------------------------------------------------------


class Clock:
    """Where the time went: wall seconds by step, in order; parts of a step are told apart."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.steps: list[tuple[str, float, bool]] = []

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - start)

    def add(self, name: str, seconds: float, part: bool = False) -> None:
        self.steps.append((name, seconds, part))

    @property
    def total(self) -> float:
        return time.perf_counter() - self.started


def _show(results: list[dict[str, Any]], settings: Settings, console: Console, clock: Clock) -> None:
    from flows import tracking
    from flows.facts import status

    console.rule("what came out")
    table = Table(
        "arrival", "files in", "studies complete", "scored at once", "quarantined", "label rows", title="arrivals"
    )
    for number, result in enumerate(results, start=1):
        a = result["arrivals"]
        held = ", ".join(f"{n} {reason}" for reason, n in a["quarantined"].items()) or "none"
        table.add_row(
            str(number), str(a["files"]), str(a["studies"]), str(a["scored"]), held, str(result["labels"]["accepted"])
        )
    console.print(table)

    table = Table(
        "version",
        "alias",
        "AUC (95 % CI, patients resampled)",
        "Brier",
        "n",
        "population",
        title=f"models: {tracking.MODEL}",
    )
    for version in tracking.versions():
        e = tracking.package_facts(version.number)["evaluate"]
        table.add_row(
            str(version.number), "+".join(version.aliases), _auc(e), _number(e["brier"]),
            f"{e['n']} hip-visits, {e['n_patients']} patients, {e['n_events']} events", str(e["population"]),
        )  # fmt: skip
    console.print(table)
    for result in results:
        decision = result["retrain"]["decision"]
        console.print(f"version {decision['version']}: [bold]{decision['decision']}[/]: {decision['reason']}")

    table = Table("step", "seconds", title="where the time went")
    for name, seconds, part in clock.steps:
        table.add_row(f"  {name}" if part else name, f"{seconds:6.1f}")
    table.add_row("all", f"{clock.total:6.1f}")
    console.print(table)
    there = Path.cwd()
    console.print(f"ledger: {status()['studies']}")
    console.print(f"report:   {there / 'reports' / 'report.html'}", soft_wrap=True)
    console.print(f"phantoms: {settings.home / 'phantoms.png'}", soft_wrap=True)
    console.print("MLflow's and Prefect's UIs, receivers and the audit site:", soft_wrap=True)
    console.print(f"  osteoflow -C {there} serve", soft_wrap=True)
    console.print(
        f"any other command in this workspace: osteoflow -C {there} status | trace | verify | ...", soft_wrap=True
    )
    console.print(RESEARCH_ONLY)


def _auc(e: dict[str, Any]) -> str:
    if e["auc"] is None:
        return "not defined: one class only"
    return f"{e['auc']:.3f} ({_number(e['auc_low'])} to {_number(e['auc_high'])})"


def _number(value: float | None) -> str:
    return "?" if value is None else f"{value:.3f}"
