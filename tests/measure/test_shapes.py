"""Sphere, arcs, margins and collapse against shapes whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tasks.measure import shapes

SPACING = np.array([4.0, 0.8, 0.8])
SHAPE = (12, 112, 112)
CENTRE = (np.array(SHAPE) - 1) / 2 * SPACING


def grid() -> tuple[NDArray, NDArray, NDArray]:
    d, h, w = np.meshgrid(*[np.arange(n) * s for n, s in zip(SHAPE, SPACING, strict=True)], indexing="ij")
    return d - CENTRE[0], h - CENTRE[1], w - CENTRE[2]


def ball(radius: float = 23.0) -> NDArray[np.bool_]:
    d, h, w = grid()
    return d**2 + h**2 + w**2 <= radius**2


def cone(half_deg: float, lateral_deg: float) -> NDArray[np.bool_]:
    """All within `half_deg` of an axis that leans `lateral_deg` from superior to lateral."""
    d, h, w = grid()
    lean = np.deg2rad(lateral_deg)
    along = -h * np.cos(lean) + w * np.sin(lean)
    return along >= np.cos(np.deg2rad(half_deg)) * np.sqrt(d**2 + h**2 + w**2)


@pytest.mark.parametrize("radius", [18.0, 23.0, 27.0])
def test_a_ball_is_found(radius: float) -> None:
    found = shapes.fit_sphere(ball(radius), SPACING)
    assert found is not None
    assert abs(found.radius - radius) < 0.4
    assert np.abs(found.centre - CENTRE).max() < 0.5


def test_neck_and_flattened_contour_do_not_move_the_sphere() -> None:
    d, h, w = grid()
    neck = (np.hypot(d, (h - w) / np.sqrt(2)) < 9) & (h + w > 0) & (h + w < 55)
    head = (ball() & (h > -19)) | (neck & ~ball())
    found = shapes.fit_sphere(head, SPACING)
    assert found is not None
    assert abs(found.radius - 23) < 1.0
    assert np.abs(found.centre - CENTRE).max() < 1.2


def test_what_is_no_head_has_no_sphere() -> None:
    small = np.zeros(SHAPE, dtype=bool)
    small[5:7, 50:54, 50:54] = True
    assert shapes.fit_sphere(small, SPACING) is None
    slab = np.zeros(SHAPE, dtype=bool)
    slab[:, :, :60] = True
    assert shapes.fit_sphere(slab, SPACING) is None


@pytest.mark.parametrize(("half", "lateral"), [(20.0, 0.0), (40.0, 15.0), (55.0, -10.0)])
def test_arcs_and_margins_of_a_cone(half: float, lateral: float) -> None:
    sphere = shapes.Sphere(CENTRE, 23.0)
    found = shapes.arcs(ball() & cone(half, lateral), sphere, SPACING, largest=False)
    assert abs(found.coronal - 2 * half) <= 6
    assert abs(found.lateral - (lateral + half)) <= 4
    assert abs(found.medial - (lateral - half)) <= 4
    # The sagittal plane cuts the cone off its axis.
    cut = np.rad2deg(np.arccos(np.clip(np.cos(np.deg2rad(half)) / np.cos(np.deg2rad(lateral)), -1, 1)))
    assert abs(found.sagittal - 2 * cut) <= 12


def test_without_a_lesion_arcs_are_zero_and_margins_unknown() -> None:
    found = shapes.arcs(np.zeros(SHAPE, dtype=bool), shapes.Sphere(CENTRE, 23.0), SPACING, largest=False)
    assert (found.coronal, found.sagittal) == (0.0, 0.0)
    assert np.isnan(found.lateral)
    assert shapes.jic(found.lateral, (-24, 32)) is None


def test_jic_is_by_thirds_of_the_weight_bearing_arc() -> None:
    assert [shapes.jic(deg, (-24, 32)) for deg in (-10, 0, 12, 20, 31, 33)] == ["A", "B", "B", "C1", "C1", "C2"]


@pytest.mark.parametrize("depth", [0.0, 2.0, 4.0, 6.0])
def test_depth_of_collapse(depth: float) -> None:
    d, h, _ = grid()
    cap = (h < -(23.0 - depth)) & (np.abs(d) < 40)
    head = ball() & ~cap
    sphere = shapes.fit_sphere(head, SPACING)
    assert sphere is not None
    assert abs(shapes.collapse_depth(head, sphere, SPACING, 40.0) - depth) < 0.9


def test_perturbed_borders_move_both_ways_and_repeat_with_their_seed() -> None:
    head = ball()
    volumes = [
        shapes.Border.of(head, SPACING).moved(0.4, np.random.default_rng(seed)).sum() / head.sum() - 1
        for seed in range(12)
    ]
    assert abs(np.mean(volumes)) < 0.03
    assert 0.003 < np.std(volumes) < 0.08
    again = shapes.Border.of(head, SPACING).moved(0.4, np.random.default_rng(3))
    assert (again == shapes.Border.of(head, SPACING).moved(0.4, np.random.default_rng(3))).all()
    assert not shapes.Border.of(np.zeros(SHAPE, dtype=bool), SPACING).moved(0.4, np.random.default_rng(0)).any()
