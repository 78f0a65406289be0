"""Vessel length and branches against trees whose length is known, and against skan."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.morphology import skeletonize
from vessel_trees import draw, grow, length_of

from tasks.measure.vessels import Tree, measure_tree, path_length

Spacing = tuple[float, float, float]


def measured(mask: NDArray, spacing: Spacing) -> Tree:
    return measure_tree(mask, spacing, spur_mm=2.0, junction_mm=2.5, smooth_mm=0.8)


def trees(spacing: Spacing, n: int) -> tuple[NDArray, NDArray]:
    """Relative error of length, error of the number of branches of at least 3 mm."""
    lengths, branches = [], []
    for seed in range(n):
        rng = np.random.default_rng(seed)
        tree = grow(rng, rng.uniform(30, 90))
        found = measured(draw(tree, spacing, 1.0, rng.uniform(-0.5, 0.5, 3) * spacing), spacing)
        lengths.append(found.length_mm / length_of(tree) - 1)
        branches.append(found.branches - sum(length_of([line]) >= 3 for line in tree))
    return np.array(lengths), np.array(branches)


@pytest.mark.parametrize("spacing", [(0.5, 0.5, 0.5), (0.8, 0.8, 0.8)])
def test_length_of_known_trees_is_within_five_percent_and_six_percent_sd(spacing: Spacing) -> None:
    lengths, branches = trees(spacing, 40)
    assert abs(lengths.mean()) <= 0.03
    assert lengths.std() <= 0.05
    assert np.abs(branches).mean() <= 1.0


def test_coarse_grids_are_still_within_ten_percent() -> None:
    lengths, _ = trees((1.25, 1.5, 1.25), 30)
    assert abs(lengths.mean()) <= 0.10


def test_growth_between_visits_is_measured() -> None:
    """The same tree 12 mm longer, on a grid that was placed anew."""
    grown = []
    for seed in range(25):
        rng = np.random.default_rng(seed)
        length = rng.uniform(35, 60)
        before, after = (grow(np.random.default_rng(seed + 500), v) for v in (length, length + 12))
        spacing = (0.8, 0.8, 0.8)
        masks = [draw(tree, spacing, 1.0, rng.uniform(-0.4, 0.4, 3)) for tree in (before, after)]
        truth = length_of(after) - length_of(before)
        grown.append(measured(masks[1], spacing).length_mm - measured(masks[0], spacing).length_mm - truth)
    assert abs(np.mean(grown)) <= 1.5
    assert np.std(grown) <= 5.0


def test_straight_lines_have_their_length_in_every_direction() -> None:
    errors = []
    for seed in range(20):
        direction = np.random.default_rng(seed).normal(size=3)
        direction /= np.linalg.norm(direction)
        line = np.linspace(-20, 20, 41)[:, None] * direction
        errors.append(measured(draw([line], (0.8, 0.8, 0.8)), (0.8, 0.8, 0.8)).length_mm / 40 - 1)
    assert abs(np.mean(errors)) <= 0.05
    assert np.abs(errors).max() <= 0.12


def test_skan_agrees_on_clean_skeletons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")  # compiling takes 20 s, these skeletons nothing
    import skan

    ratios = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        mask = draw(grow(rng, 60), (0.8, 0.8, 0.8))
        raw = measure_tree(mask, (0.8, 0.8, 0.8), spur_mm=0.01, junction_mm=0.01, smooth_mm=0.0)
        table = skan.summarize(skan.Skeleton(skeletonize(mask), spacing=(0.8, 0.8, 0.8)), separator="_")
        ratios.append(raw.length_mm / table["branch_distance"].sum())
    assert 0.95 <= np.mean(ratios) <= 1.12  # ours adds a radius at each free tip, skan counts within junctions


def test_an_empty_mask_is_a_tree_of_length_zero() -> None:
    found = measured(np.zeros((20, 20, 20), dtype=bool), (0.8, 0.8, 0.8))
    assert (found.length_mm, found.branches, len(found.points_mm)) == (0.0, 0, 0)


@pytest.mark.parametrize("seed", range(8))
def test_any_mask_is_measured_without_an_error(seed: int) -> None:
    """Noise, slabs, rings and single voxels: what a network may hand over."""
    rng = np.random.default_rng(seed)
    mask = rng.random((24, 30, 28)) < rng.choice([0.001, 0.02, 0.2, 0.6])
    if seed % 2:
        z, y, x = np.ogrid[:24, :30, :28]
        mask |= np.abs(np.hypot(y - 14, x - 14) - 9) < 1.5 if seed % 4 == 1 else (z < 3) & (y > 0) & (x > 0)
    found = measured(mask, (0.8, 0.8, 0.8))
    assert np.isfinite(found.length_mm)
    assert found.length_mm >= 0


def test_smoothing_a_staircase_recovers_the_line() -> None:
    """A line at 45 degrees drawn with steps along the axes is 41 percent too long; smoothing takes that away."""
    steps = np.repeat(np.arange(30), 2)
    stairs = np.stack([np.zeros(59), steps[:-1], steps[1:]], axis=1) * 0.8
    true = np.linalg.norm(stairs[-1] - stairs[0])
    assert path_length(stairs, 0.0) / true > 1.38
    assert abs(path_length(stairs, 1.2) / true - 1) < 0.05


def test_a_vessel_of_two_by_two_voxels_does_not_vanish() -> None:
    mask = np.zeros((12, 40, 12), bool)
    mask[4:6, 5:35, 4:6] = True
    assert not skeletonize(mask).any()  # what makes it a case of its own
    found = measured(mask, (0.8, 0.8, 0.8))
    assert abs(found.length_mm - 24.0) < 2.5 and found.branches == 1
