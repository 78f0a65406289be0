"""Vessel trees: exact length, bifurcations on demand, a later visit grown on the earlier one."""

import numpy as np
import pytest

from tasks.phantom.vessels import distance_to, grow


def tree(seed=0, length=60.0, bifurcations=(8.0, 20.0, 33.0)):
    return grow(length, np.array(bifurcations), 24.0, np.random.default_rng(seed))


def test_a_tree_has_the_length_and_the_branches_asked_for():
    for seed in range(5):
        made = tree(seed)
        assert np.linalg.norm(np.diff(made.segments, axis=1), axis=2).sum() == pytest.approx(60, rel=0.05)
        assert len(made.segments) == 60
        assert 2 + 2 * 2 <= made.branches() <= 2 + 2 * 3


def test_an_earlier_visit_is_the_beginning_of_a_later_one():
    made = tree()
    early, late = made.at(30), made.at(42)
    np.testing.assert_array_equal(early.segments, late.segments[:30])
    assert early.branches() <= late.branches()


def test_it_stays_inside_the_head():
    for seed in range(5):
        assert np.linalg.norm(tree(seed, 110.0).segments, axis=2).max() <= 24.0


def test_distances_on_a_grid_are_those_to_the_segments():
    made = tree().at(20)
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[:3, 3] = -30
    box = (slice(0, 60), slice(0, 60), slice(0, 60))
    gap = distance_to(made, np.eye(4), affine, box)
    middle = made.segments.mean(axis=1)
    for index in ((30, 30, 30), *np.round(middle[::7] + 30).astype(int)):
        nearest = np.linalg.norm(np.array(index) - 30 - middle, axis=1)
        assert gap[tuple(index)] == pytest.approx(min(3.0, (nearest - made.radius).min()), abs=0.3)
