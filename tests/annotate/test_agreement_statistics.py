from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from tasks.annotate.agreement import icc21, weighted_kappa
from tasks.annotate.readers import dice, surface_distance

SHROUT_FLEISS = np.array(
    [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], dtype=float
)
"""Shrout and Fleiss 1979, table 2: six targets, four judges; ICC(2,1) = .29, 95% 0.019 to 0.761."""


def test_icc_of_the_published_example() -> None:
    icc, low, high = icc21(SHROUT_FLEISS)
    assert icc == pytest.approx(0.29, abs=0.005)
    assert (low, high) == (pytest.approx(0.019, abs=0.002), pytest.approx(0.761, abs=0.002))


def test_icc_counts_a_readers_bias_and_is_one_without_error() -> None:
    one = np.arange(10.0)
    assert icc21(np.column_stack([one, one]))[0] == pytest.approx(1.0)
    assert icc21(np.column_stack([one, one + 5]))[0] < 0.5


def test_kappa_against_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    one = rng.integers(0, 5, 200)
    two = np.clip(one + rng.integers(-1, 2, 200), 0, 4)
    assert weighted_kappa(one, two, 5) == pytest.approx(cohen_kappa_score(one, two, weights="quadratic"))
    assert np.isnan(weighted_kappa([1, 1], [1, 1], 5))


def test_dice_and_distance_of_two_cubes() -> None:
    one, two = np.zeros((2, 20, 20, 20), dtype=bool)
    one[5:10, 5:10, 5:10] = two[5:10, 5:10, 6:11] = True
    assert dice(one, two) == pytest.approx(0.8)
    assert 0 < surface_distance(one, two, (1.0, 1.0, 2.0)) <= 2.0
    assert surface_distance(one, one, (1.0, 1.0, 1.0)) == 0.0
    assert np.isnan(surface_distance(one, np.zeros_like(one), (1.0, 1.0, 1.0)))
