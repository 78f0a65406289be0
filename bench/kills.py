"""kill -9 at random moments while studies arrive (tests/support/kills.py, longer): what was lost, what came twice."""

from __future__ import annotations

import dataclasses
import os
import sys
import tempfile
from pathlib import Path

KILLS = int(os.environ.get("BENCH_KILLS", "200"))


def run() -> dict[str, object]:
    support = str(Path(__file__).resolve().parents[1] / "tests" / "support")
    sys.path.insert(0, support)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [support, os.environ.get("PYTHONPATH", "")]))
    from kills import harness

    here = Path.cwd()
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_PLACE")) as place:
        os.environ["OSTEOFLOW_HOME"] = str(Path(place) / "home")
        os.chdir(place)
        try:
            report = harness(seed=200, kills=KILLS, studies=60, files=12)
        finally:
            os.chdir(here)
    found = dataclasses.asdict(report)
    return {**found, "lost": len(report.lost), "doubled": len(report.doubled), "first_lost": report.lost[:3]}
