"""Vessel length and branches against trees whose truth is known, beside raw skan and counting voxels; how much of the
error a hip's stored standard error foresees; and the phantom's own, more crowded trees from exact masks on the grid
that vessels are measured on, and by way of the grid that its scanners acquire.

Masks are exact but for the repeats: what a segmentation adds is not in these figures.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
os.environ.setdefault("NUMBA_DISABLE_JIT", "1")  # compiling takes 20 s, these skeletons nothing

TREES = int(os.environ.get("BENCH_VESSELS_TREES", "24"))
GRIDS = {"0.5": (0.5, 0.5, 0.5), "0.8": (0.8, 0.8, 0.8), "1.25x1.5": (1.25, 1.5, 1.25)}
FINE = (0.8, 0.8, 0.8)
ACQUIRED = (1.35, 1.05, 1.05)
"""Of the phantom's first scanner, contrast series, mm."""
GAPS = {"as it is": None, "sparser": (8.0, 6.0)}
"""mm of growth between bifurcations of the phantom: least, mean beyond it."""


def run() -> dict[str, Any]:
    return {
        "what": "length and branches of at least 3 mm of drawn trees of 30 to 90 mm, measured against their truth",
        "unit": "tree", "n": TREES,
        "grids_mm": {name: _grid(spacing) for name, spacing in GRIDS.items()},
        "growth_12_mm_at_0.8": _growth(), "stored_error_at_0.8": _stored(),
        "phantom": {name: _phantom(gap) for name, gap in GAPS.items()},
    }  # fmt: skip


def _measured(mask: Any, spacing: tuple[float, ...]) -> Any:
    from tasks.domain.params import load
    from tasks.measure import Params
    from tasks.measure.vessels import measure_tree

    params = load("measure", Params)
    return measure_tree(mask, spacing, params.spur_mm, params.junction_mm, params.smooth_mm)


def _grid(spacing: tuple[float, float, float]) -> dict[str, Any]:
    import skan
    from skimage.morphology import skeletonize
    from vessel_trees import draw, grow, length_of

    rows: dict[str, list[float]] = {"length": [], "raw_skan": [], "voxels_counted": []}
    branches = []
    for seed in range(TREES):
        rng = np.random.default_rng(seed)
        tree = grow(rng, rng.uniform(30, 90))
        mask = draw(tree, spacing, 1.0, rng.uniform(-0.5, 0.5, 3) * spacing)
        found, truth, thin = _measured(mask, spacing), length_of(tree), skeletonize(mask)
        raw = skan.summarize(skan.Skeleton(thin, spacing=spacing), separator="_")["branch_distance"].sum()
        for name, value in zip(rows, (found.length_mm, raw, thin.sum() * min(spacing)), strict=True):
            rows[name].append(100 * (value / truth - 1))
        branches.append(found.branches - sum(length_of([line]) >= 3 for line in tree))
    each = {name: {"bias_percent": _mean(v), "sd_percent": _sd(v)} for name, v in rows.items()}
    return each | {"branches": {"bias": _mean(branches), "mean_absolute_error": _mean(np.abs(branches))}}


def _growth() -> dict[str, Any]:
    """The same tree 12 mm longer, on a grid that was laid anew."""
    from vessel_trees import draw, grow, length_of

    errors, branches = [], []
    for seed in range(TREES):
        rng = np.random.default_rng(seed)
        length = rng.uniform(35, 60)
        pair = [grow(np.random.default_rng(seed + 500), mm) for mm in (length, length + 12)]
        found = [_measured(draw(tree, FINE, 1.0, rng.uniform(-0.4, 0.4, 3)), FINE) for tree in pair]
        truth = [sum(length_of([line]) >= 3 for line in tree) for tree in pair]
        errors.append(found[1].length_mm - found[0].length_mm - length_of(pair[1]) + length_of(pair[0]))
        branches.append(found[1].branches - found[0].branches - truth[1] + truth[0])
    return {
        "length_bias_mm": _mean(errors), "length_sd_mm": _sd(errors), "branches_bias": _mean(branches),
        "branches_sd": _sd(branches), "n": TREES,
    }  # fmt: skip


def _stored(repeats: int = 8) -> dict[str, Any]:
    """Test-retest: trees drawn again and again on another grid, the error stored with the last of them."""
    from vessel_trees import draw, grow

    from tasks.domain.params import load
    from tasks.measure import Params
    from tasks.measure.shapes import Border

    params = load("measure", Params)
    border = params.border_voxels * FINE[0]
    real, stored = [], []
    for seed in range(max(TREES // 4, 3)):
        rng = np.random.default_rng(seed)
        tree = grow(rng, rng.uniform(30, 90))
        lengths = []
        for _ in range(repeats):
            mask = Border.of(draw(tree, FINE, 1.0, rng.uniform(-0.4, 0.4, 3)), np.array(FINE)).moved(border, rng)
            lengths.append(_measured(mask, FINE).length_mm)
        wall = Border.of(mask, np.array(FINE))
        again = [_measured(wall.elsewhere(rng).moved(border, rng), FINE).length_mm for _ in range(params.repeats)]
        real.append(np.var(lengths, ddof=1))
        stored.append(np.var(again, ddof=1))
    found = {name: round(float(np.sqrt(np.mean(v))), 2) for name, v in (("sd_mm", real), ("stored_se_mm", stored))}
    return found | {"trees": len(real), "repeats": repeats}


def _phantom(gap: tuple[float, float] | None) -> dict[str, Any]:
    from tasks.phantom.presets import PRESETS
    from tasks.phantom.vessels import grow

    least, beyond = gap or next(iter(PRESETS.values())).bifurcation_gap_mm
    exact, acquired = [], []
    for seed in range(TREES):
        rng = np.random.default_rng(seed)
        length = float(np.clip(rng.normal(46, 8), 20, 90))
        gaps = np.cumsum(least + rng.exponential(beyond, 40))
        tree = grow(125.0, gaps, 24.0, np.random.default_rng([seed, 2])).at(length)
        for spacing, into in ((FINE, exact), (ACQUIRED, acquired)):
            found = _measured(_drawn(tree, spacing, rng), FINE)
            into.append((len(tree.segments), found.length_mm, tree.branches(3), found.branches))
    names = ("exact_at_0.8", "acquired_at_1.35x1.05")
    return {"gap_mm": [least, beyond]} | {
        name: _against(np.array(rows)) for name, rows in zip(names, (exact, acquired), strict=True)
    }


def _drawn(tree: Any, spacing: tuple[float, float, float], rng: np.random.Generator) -> Any:
    """Mask of the tree on a grid of `spacing`, a few degrees askew, resampled to the fine grid."""
    from scipy.ndimage import map_coordinates
    from scipy.spatial.transform import Rotation

    from tasks.phantom.vessels import distance_to

    turned = np.eye(4)
    turned[:3, :3] = Rotation.from_rotvec(np.deg2rad(rng.normal(0, 3, 3))).as_matrix()
    shape = tuple(int(54 / step) for step in spacing)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = (rng.uniform(-0.5, 0.5, 3) - (np.array(shape) - 1) / 2) * spacing
    mask = distance_to(tree, turned, affine, tuple(slice(0, n) for n in shape)) < 0.12  # type: ignore[arg-type]
    fine = np.stack(np.meshgrid(*[(np.arange(64) - 31.5) * step for step in FINE], indexing="ij"), -1)
    index = ((fine @ turned[:3, :3].T) - affine[:3, 3]) / spacing
    return map_coordinates(mask.astype(np.float32), np.moveaxis(index, -1, 0), order=1) >= 0.5


def _against(rows: Any) -> dict[str, Any]:
    true, length, true_branches, branches = rows.T.astype(float)
    return {
        "n": len(rows), "true_mm": _mean(true), "length_bias_mm": _mean(length - true),
        "length_sd_mm": _sd(length - true), "length_r": round(float(np.corrcoef(true, length)[0, 1]), 2),
        "branches_bias": _mean(branches - true_branches),
        "branches_r": round(float(np.corrcoef(true_branches, branches)[0, 1]), 2),
    }  # fmt: skip


def _mean(values: Any) -> float:
    return round(float(np.mean(values)), 2)


def _sd(values: Any) -> float:
    return round(float(np.std(values)), 2)
