"""From the last slice to the score: the real `osteoflow serve`, up and warm; without the quiet period.

Whole studies of phantoms (three series, 54 slices and more) come by C-STORE, each when the one before is scored, then
four at once, several times. The networks have the size of params.yaml and random weights. Times are the ledger's own:
scored_at - last_received - quiet_seconds, and its parts. BENCH_STUDIES: how many come one after the other;
BENCH_ROUNDS: how often four come at once.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import served

STUDIES = int(os.environ.get("BENCH_STUDIES", "20"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
AT_ONCE, KNOWN, QUIET_S = 4, 1, 1.0
TIMES = "last_received, completed_at, arrived_at, scored_at"


def run() -> dict[str, object]:
    from tasks.phantom import write_cohort

    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_PLACE"), ignore_cleanup_errors=True) as place:
        changes = {"receive": {"quiet_seconds": QUIET_S}, "retrain": {"min_new_hips": 1000000}}
        hospital = served.workspace(Path(place), changes)
        write_cohort(Path(place) / "cohort", patients=max(6, (STUDIES + ROUNDS * AT_ONCE) // 3 + 2), seed=3)
        studies = by_study(Path(place) / "cohort" / "dicom")[: KNOWN + STUDIES + ROUNDS * AT_ONCE]
        for number, paths in enumerate(studies[:KNOWN]):
            folder = hospital.home / "known" / str(number)
            folder.mkdir(parents=True)
            for n, path in enumerate(paths):
                os.link(path, folder / f"{n}.dcm")
        hospital.osteoflow("ingest", str(hospital.home / "known"), "--origin", "phantom")
        served.champion(hospital)
        since, started = time.time(), time.monotonic()
        with served.served(hospital) as serve:
            up = time.monotonic() - started
            before = served.cpu_s(serve)
            for number, paths in enumerate(studies[KNOWN : KNOWN + STUDIES], start=1):
                served.send(hospital, [paths])
                served.wait(lambda number=number: len(done(hospital, since)) >= number, "the score")  # type: ignore[misc]
            one_by_one = done(hospital, since)
            spent = {name: round((s - before[name]) / STUDIES, 2) for name, s in served.cpu_s(serve).items()}
            rounds = []
            for first in range(STUDIES, STUDIES + ROUNDS * AT_ONCE, AT_ONCE):
                served.send(hospital, studies[KNOWN + first : KNOWN + first + AT_ONCE], AT_ONCE)
                served.wait(lambda first=first: len(done(hospital, since)) >= first + AT_ONCE, "the scores")  # type: ignore[misc]
                rounds.append(done(hospital, since)[first:])
    slices = sorted(len(paths) for paths in studies[KNOWN:])
    return {
        "n": len(one_by_one),
        "slices": {"least": slices[0], "most": slices[-1]},
        "first_s": round(total(one_by_one[0]), 2),
        "median_s": round(statistics.median(map(total, one_by_one)), 2),
        "p95_s": round(p95([total(one) for one in one_by_one]), 2),
        "longest_s": round(max(map(total, one_by_one)), 2),
        "where_median_s": {name: round(statistics.median(part(one)[name] for one in one_by_one), 2) for name in PARTS},
        "cpu_s_a_study": spent,
        "at_once": {
            "n": AT_ONCE,
            "last_scored_s": [round(max(map(total, one)), 2) for one in rounds],
            "where_slowest_s": slowest(rounds),
        },
        "serve_up_s": round(up, 1),
        "load": [round(x, 1) for x in os.getloadavg()],
    }


PARTS = ("noticed", "anonymized_and_standardized", "scored")


def part(one: tuple[float, ...]) -> dict[str, float]:
    received, complete, arrived, scored = one
    return dict(zip(PARTS, (complete - received - QUIET_S, arrived - complete, scored - arrived), strict=True))


def slowest(rounds: list[list[tuple[float, ...]]]) -> dict[str, float]:
    worst = max((one for each in rounds for one in each), key=total)
    return {name: round(seconds, 2) for name, seconds in part(worst).items()}


def total(one: tuple[float, ...]) -> float:
    return one[3] - one[0] - QUIET_S


def p95(seconds: list[float]) -> float:
    ordered = sorted(seconds)
    return ordered[max(0, -(-95 * len(ordered) // 100) - 1)]


def done(hospital: Any, since: float) -> list[tuple[float, ...]]:
    """Times of the studies that came after `since` and are scored, in the order in which they came."""
    query = f"select {TIMES} from studies where current = 1 and scored_at is not null and last_received > {since}"
    return hospital.ledger(f"{query} order by last_received")  # type: ignore[no-any-return]


def by_study(folder: Path) -> list[list[Path]]:
    from pydicom import dcmread

    found: dict[str, list[Path]] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        uid = str(dcmread(path, specific_tags=["StudyInstanceUID"], stop_before_pixels=True).StudyInstanceUID)
        found.setdefault(uid, []).append(path)
    return list(found.values())
