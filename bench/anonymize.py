"""The anonymizer beside a plain copy of the same files and beside its peers: CPU seconds of one core, on a RAM disk.

`OSTEOFLOW_BENCH_FILES` sets the number of files (2,000), `OSTEOFLOW_PEERS` the interpreter of the peers. `anonymize`
is reading, rewriting and writing; `verified` adds the SHA-256 of what is released and the verification of every file,
`recorded` the keyed digest of the original too, as the stage keeps both; `command` is all that `osteoflow anonymize`
does (a first look at every file, the crosswalk, the report). All of these search for burned-in text as params.yaml says
(the first picture of each series and every 32nd); `without_looking` is `anonymize` without that search, and what one
look costs has a figure of its own.
"""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.anonymizing import corpus, peers
from tasks.anonymize import PRELOAD, Params, anonymize_tree, release
from tasks.anonymize.pixels import Looks
from tasks.anonymize.release import _unverified
from tasks.anonymize.tree import _write
from tasks.domain.params import load
from tasks.keys import Keys
from tasks.store.mapping import Kept

ROUNDS = 11
GOALS = {"anonymize": 2.5, "verified": 6.0}


def run() -> dict[str, object]:
    many = int(os.environ.get("OSTEOFLOW_BENCH_FILES", "2000"))
    with tempfile.TemporaryDirectory(dir=peers.place()) as folder:
        os.environ["OSTEOFLOW_HOME"] = str(Path(folder) / "home")
        place, keys = Path(folder), Keys.open()
        params = load("anonymize", Params)
        files = corpus.write(place / "source", many)
        ways = _ways(place, files, keys, params)
        burned_in = _burned_in(files, keys)  # first: it also imports what a pool's processes have from the start
        ratios, per_file = _rounds(ways, place, many)
        result: dict[str, object] = {
            "files": many,
            "megabytes": round(sum(path.stat().st_size for path in files) / 1e6),
            "rounds": ROUNDS,
            "load_average": os.getloadavg()[0],
            "cpu_ms_per_file": per_file,
            "ratio_to_copy": {name: ratios[name] for name in ratios},
            "goals": GOALS,
        }
        result["every_file_of_another_patient"] = _alone(place, keys, params, many // 4)
        result["two_processes"] = _two(place, keys, params)
        result["peak_memory_mb"] = _memory(place, files, keys, params)
        result["burned_in_text"] = burned_in
        copied = per_file["copy"]
        beside = peers.measured(place / "source", min(many, 200))
        result["peers_ms_per_file"] = beside
        result["peers_ratio_to_copy"] = {
            name: round(value / copied, 1) if isinstance(value, float) else value for name, value in beside.items()
        }
    return result


Way = Callable[[], object]


def _ways(place: Path, files: list[Path], keys: Keys, params: Params) -> dict[str, Way]:
    out = place / "out"

    def copy() -> None:
        for path in files:
            target = out / path.relative_to(place / "source")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)

    def anonymize(params: Params = params) -> None:
        looks = Looks(params.text_every)
        for path in files:
            _, one = _unverified(path.read_bytes(), "local", keys, params, looks)
            _write(f"{out}/{one.study}/{one.name}", one.data)

    def without_looking() -> None:
        anonymize(params.model_copy(update={"clean_pixel_data": False}))

    def verified(original: bool = False) -> None:
        looks = Looks(params.text_every)
        for path in files:
            data = path.read_bytes()
            if original:
                keys.digest(data)
            one = release(data, "local", keys, params, looks)
            hashlib.sha256(one.data).hexdigest()
            _write(f"{out}/{one.study}/{one.name}", one.data)

    def command() -> None:
        rows = anonymize_tree(place / "source", out, keys, params, "local")
        assert all(row["outcome"] == "released" for row in rows)

    return {
        "copy": copy, "anonymize": anonymize, "without_looking": without_looking, "verified": verified,
        "recorded": lambda: verified(original=True), "command": command,
    }  # fmt: skip


def _rounds(ways: dict[str, Way], place: Path, many: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Each way once a round, beside the copy of that round: median, least and greatest ratio; milliseconds a file."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            start = _with_children()
            way()
            taken[name].append(_with_children() - start)
            shutil.rmtree(place / "out")
    ratios = {}
    for name in ways:
        each = sorted(one / copied for one, copied in zip(taken[name], taken["copy"], strict=True))
        ratios[name] = [round(statistics.median(each), 2), round(each[0], 2), round(each[-1], 2)]
    return ratios, {name: round(1000 * statistics.median(one) / many, 3) for name, one in taken.items()}


def _alone(place: Path, keys: Keys, params: Params, many: int) -> dict[str, float]:
    """No two files of one patient: nothing that was learned helps. Ratios to the copy of the same files."""
    home = place / "alone"
    files = corpus.write(home / "source", many, alone=True)
    ways = _ways(home, files, keys, params)
    del ways["command"], ways["without_looking"], ways["recorded"]
    ratios, _ = _rounds(ways, home, many)
    shutil.rmtree(home)
    return {name: ratios[name][0] for name in ("anonymize", "verified")}


def _two(place: Path, keys: Keys, params: Params) -> dict[str, float]:
    """Files a second of the whole command with one worker process and with two (of two cores: only meaningful when both
    are idle), both as warm as the other; medians of five."""
    found: dict[int, list[float]] = {1: [], 2: []}
    pools = {processes: Kept(PRELOAD, processes) for processes in found}
    try:
        for _ in range(6):
            for processes, mapper in pools.items():
                start = time.perf_counter()
                rows = anonymize_tree(place / "source", place / "out", keys, params, "local", mapper=mapper)
                found[processes].append(len(rows) / (time.perf_counter() - start))
                shutil.rmtree(place / "out")
    finally:
        for pool in pools.values():
            pool.close()
    speeds = {processes: statistics.median(each[1:]) for processes, each in found.items()}
    return {"one": round(speeds[1]), "two": round(speeds[2]), "speed_up": round(speeds[2] / speeds[1], 2)}


def _memory(place: Path, files: list[Path], keys: Keys, params: Params) -> dict[str, float]:
    """Peak memory after a tenth of the files and after all of them, once all caches had their fill."""
    peaks = {}
    for name, some in (("after_a_tenth", files[: len(files) // 10]), ("after_all", files)):
        for path in some:
            release(path.read_bytes(), "local", keys, params)
        peaks[name] = round(_resident(), 1)
    peaks["growth_kb_per_file"] = round((peaks["after_all"] - peaks["after_a_tenth"]) * 1024 / len(files), 2)
    return peaks


def _resident() -> float:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 1e6
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _burned_in(files: list[Path], keys: Keys) -> dict[str, object]:
    """Milliseconds of CPU of a look at one picture of each of ten series."""
    from tasks.anonymize.pixels import look
    from tasks.store import checks

    params = load("anonymize", Params)
    some = [path.read_bytes() for path in files[: 10 * corpus.SLICES : corpus.SLICES]]
    look(some[0], checks.checked_header(some[0]), params, Looks(params.text_every))
    before = _with_children()
    for data in some:
        look(data, checks.checked_header(data), params, Looks(params.text_every))
    return {
        "ms_per_look": round(1000 * (_with_children() - before) / len(some), 1),
        "one_look_every": params.text_every,
    }


def _with_children() -> float:
    """CPU seconds so far; the OCR engine is a program and counts as well."""
    mine, theirs = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return mine.ru_utime + mine.ru_stime + theirs.ru_utime + theirs.ru_stime
