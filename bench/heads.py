"""Where both femoral heads are, on awkward acquisitions of three independent makers of bodies (tests/support/awkward):
error in mm, and how often a head is called one that is none or lies elsewhere. None of these seeds chose a constant."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from tasks.domain.params import load
from tasks.standardize.locate import locate
from tasks.standardize.params import Params

SEEDS = range(500, 502)


def run() -> dict[str, object]:
    import awkward

    params = load("standardize", Params).localizer
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    errors: dict[str, list[float]] = defaultdict(list)
    for seed in SEEDS:
        for kind, maker in awkward.CASES:
            case = awkward.acquired(kind, maker, seed)
            for _, what, mm in awkward.judged(case, locate(case.image, case.polarity, params)):
                for name in ("all", kind, maker):
                    counts[name][what] += 1
                    if np.isfinite(mm):
                        errors[name].append(mm)
    table: dict[str, object] = {}
    for name in ("all", *awkward.MAKERS, *awkward.KINDS):
        row: dict[str, object] = {what: counts[name][what] for what in ("right", "wrong", "missed")}
        if errors[name]:
            row |= {
                "median_mm": round(float(np.median(errors[name])), 2),
                "p99_mm": round(float(np.percentile(errors[name], 99)), 2),
                "largest_mm": round(max(errors[name]), 2),
            }
        table[name] = row
    return {"series": len(SEEDS) * len(awkward.CASES), "wrong_mm": awkward.WRONG_MM, **table}
