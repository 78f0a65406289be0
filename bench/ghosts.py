"""Whether one limit of the ghosting score (standardize.quality.ghosting) parts good series from ghosted ones.

Good series of three makers of bodies that share no code, T1, STIR and after contrast, and the same with ghosts of known
strength added along either axis of the image. The score judges nothing as long as this says that it cannot.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from tasks.domain.volume import Volume
from tasks.standardize.quality import ghosting, noise

SEEDS = range(600, 602)
KINDS = ("coronal", "axial", "one coronal", "giant")
STRENGTHS = (0.05, 0.1, 0.2)
LIMITS = (0.03, 0.06, 0.1)


def run() -> dict[str, object]:
    import awkward

    good: dict[str, list[float]] = {}
    planted: dict[str, list[float]] = {}
    blind = total = 0
    for seed in SEEDS:
        for kind in KINDS:
            for maker in awkward.MAKERS:
                for role in ("t1", "stir", "enhanced"):
                    image = awkward.acquired(kind, maker, seed, role).image
                    total += 1
                    clean = score(image)
                    if clean is None:
                        blind += 1
                        continue
                    good.setdefault(role, []).append(clean)
                    for strength in STRENGTHS:
                        for axis, name in ((1, "rows"), (2, "columns")):
                            found = score(ghosted(image, strength, axis))
                            if found is not None:
                                planted.setdefault(f"{role}, {strength:.0%}, {name}", []).append(found)
    table: dict[str, object] = {"series": total, "no air to look at": blind}
    table |= {f"good {role}": spread(values) for role, values in good.items()}
    table |= {f"ghosts {name}": spread(values) for name, values in sorted(planted.items())}
    for limit in LIMITS:
        out = {role: f"{sum(v > limit for v in values)} of {len(values)}" for role, values in good.items()}
        caught = {name: round(float(np.mean([v > limit for v in values])), 2) for name, values in planted.items()}
        table[f"limit {limit:g}"] = {"good left out": out, "ghosts caught": dict(sorted(caught.items()))}
    return table


def score(image: Volume) -> float | None:
    return ghosting(image, noise([image.array]))


def ghosted(image: Volume, strength: float, axis: int) -> Volume:
    """Half a field away, as of movement from line to line."""
    values = image.array.astype(np.float32)
    return Volume(values + np.float32(strength) * np.roll(values, values.shape[axis] // 2, axis), image.affine)


def spread(values: list[float]) -> dict[str, float]:
    low, middle, high = np.percentile(values, [5, 50, 95])
    return {"n": len(values), "p5": round(low, 3), "median": round(middle, 3), "p95": round(high, 3)}
