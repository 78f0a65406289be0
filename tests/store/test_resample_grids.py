from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from tasks.domain.volume import Grid, Volume
from tasks.store.resample import resample


def oblique(rng: np.random.Generator, spacing: tuple[float, float, float]) -> np.ndarray:
    axes, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = axes * spacing
    affine[:3, 3] = rng.normal(0, 3, 3)
    return affine


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int16, np.float32, np.float64, np.int64, bool, ">i2"])
@pytest.mark.parametrize("order", [0, 1])
def test_the_own_grid_gives_the_same_values(kind: object, order: int) -> None:
    array = (np.random.default_rng(1).random((3, 7, 5)) * 100).astype(kind)
    affine = oblique(np.random.default_rng(2), (4.0, 0.8, 0.9))
    again = resample(Volume(array, affine), affine, array.shape, order)
    assert again.dtype == np.float32
    assert np.allclose(again, array.astype(np.float32), atol=1e-3)


def test_oblique_linear_interpolation_is_that_of_scipy() -> None:
    rng = np.random.default_rng(3)
    array = rng.random((20, 24, 22)).astype(np.float32)
    source, target = oblique(rng, (3.0, 1.0, 1.2)), oblique(rng, (1.5, 1.1, 0.9))
    target[:3, 3] += (source @ [9.5, 11.5, 10.5, 1] - target @ [4, 4, 4, 1])[:3]
    values = resample(Volume(array, source), target, (9, 9, 9))
    to_source = np.linalg.inv(source) @ target
    index = np.stack(np.meshgrid(*[np.arange(9)] * 3, indexing="ij"), axis=0).reshape(3, -1)
    places = to_source[:3, :3] @ index + to_source[:3, 3:]
    assert np.allclose(values.ravel(), ndimage.map_coordinates(array, places, order=1, mode="nearest"), atol=1e-4)


def test_half_a_voxel_beyond_the_edge_is_still_the_edge_and_further_out_is_fill() -> None:
    volume = Volume(np.full((1, 4, 4), 7.0, np.float32), np.diag([5.0, 1.0, 1.0, 1.0]))
    target = np.diag([1.0, 1.0, 1.0, 1.0])
    target[0, 3] = -4.0
    along = resample(volume, target, (9, 1, 1), 1, fill=-1.0)[:, 0, 0]
    assert along.tolist() == [-1, -1, 7, 7, 7, 7, 7, -1, -1]


def test_a_mask_on_the_hip_grid_returns_to_the_source_within_half_a_voxel() -> None:
    grid = Grid((12, 112, 112), (4.0, 0.8, 0.8))
    affine = grid.patient_affine(np.array([88.0, -3.0, 12.0]), "R")
    source = np.eye(4)
    source[:3, :3] = np.array([[0.02, 0.0, 0.9], [0.999, -0.03, -0.02], [-0.03, -0.9, 0.0]]) * [4.4, 1.0, 1.0]
    source[:3, 3] = affine[:3, 3] - source[:3, :3] @ [2.0, 10.0, 100.0]
    mask = np.zeros(grid.shape, np.uint8)
    mask[4:8, 40:70, 30:60] = 1
    there = resample(Volume(mask, affine), source, (16, 160, 160), 0) > 0.5
    back = resample(Volume(there, source), affine, grid.shape, 1)
    edge = np.abs(np.argwhere(there).mean(axis=0))
    lps = Volume(there, source).to_lps(edge)
    want = Volume(mask, affine).to_lps(np.argwhere(mask).mean(axis=0))
    assert np.abs(lps - want).max() < 0.5 * 4.4
    assert (back[5:7, 42:68, 32:58] > 0.5).all()
