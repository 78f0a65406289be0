"""What was drawn on slices as thick as clinics have them keeps its volume on the hip grid, wherever the slices fell."""

from __future__ import annotations

import numpy as np
import pytest
from hospital import CENTRES, VISIT, tilted
from numpy.typing import NDArray

from tasks.annotate import fit
from tasks.annotate.readers import dice
from tasks.domain.volume import Volume

GRID = VISIT.patient_affine(CENTRES["L"], "L")


def ball(affine: NDArray, shape: tuple[int, int, int], radius: float, shift: float = 0.0) -> NDArray:
    lps = Volume(np.zeros(shape, np.uint8), affine).to_lps(np.stack(np.indices(shape), axis=-1))
    return np.linalg.norm(lps - CENTRES["L"] - [0, shift, 0], axis=-1) <= radius


def volume(mask: NDArray, affine: NDArray) -> float:
    return float(mask.sum() * abs(np.linalg.det(affine[:3, :3])))


@pytest.mark.parametrize(("mm", "radius", "least"), [(6.0, 11.0, 0.92), (4.4, 11.0, 0.95), (6.0, 6.0, 0.84)])
def test_a_ball_between_slices(mm: float, radius: float, least: float) -> None:
    affine = tilted((mm, 0.8, 0.8), (14, 112, 240))
    kept, alike = [], []
    for shift in (-1.5, 0.0, 1.5):
        drawn = ball(affine, (14, 112, 240), radius, shift)
        found = fit.on_grid("lesion", drawn, affine, GRID, VISIT.shape)
        kept.append(volume(found, GRID) / volume(drawn, affine))
        alike.append(dice(found.astype(bool), ball(GRID, VISIT.shape, radius, shift)))
    assert kept == pytest.approx([1.0] * 3, abs=0.01)
    assert np.mean(alike) > least


def test_a_lesion_of_one_slice_is_as_thick_as_its_slice() -> None:
    affine = tilted((6.0, 0.8, 0.8), (14, 112, 240))
    drawn = ball(affine, (14, 112, 240), 11.0)
    drawn[: drawn.any(axis=(1, 2)).argmax() + 1] = False
    drawn[drawn.any(axis=(1, 2)).argmax() + 1 :] = False
    found = fit.on_grid("lesion", drawn, affine, GRID, VISIT.shape)
    assert drawn.any(axis=(1, 2)).sum() == 1
    assert volume(found, GRID) / volume(drawn, affine) == pytest.approx(1.0, abs=0.01)


def test_what_reaches_beyond_the_grid_is_cut_there_and_not_moved_into_it() -> None:
    affine = tilted((3.0, 1.2, 1.2), (28, 112, 240))
    far = ball(affine, (28, 112, 240), 24.0, shift=-9.0)
    found = fit.on_grid("head", far, affine, GRID, VISIT.shape).astype(bool)
    assert dice(found, ball(GRID, VISIT.shape, 24.0, -9.0)) > 0.97
