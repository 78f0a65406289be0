"""Rigid registration of a hip's visits: known moves come back, SimpleITK agrees, what cannot be laid is said."""

from __future__ import annotations

import numpy as np
import pytest
import tissues
from torsos import person, turned

from tasks.domain.volume import Grid, Volume
from tasks.standardize.align import align, row_of
from tasks.standardize.params import Params
from tasks.store import hips

GRID = Grid((12, 64, 64), (4.0, 1.4, 1.4))


def hip(image: np.ndarray, role: str = "t1") -> hips.HipFile:
    stored, scale = hips.quantize(image)
    grid = {"shape": list(GRID.shape), "spacing": list(GRID.spacing)}
    return hips.HipFile({role: stored}, {"scale": {role: scale}, "grids": {role: grid}})


@pytest.fixture(scope="module")
def visits() -> tuple[np.ndarray, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """The first visit of a dead head, and others: name -> (image, pose from the first visit's hip space to its own)."""
    rng = np.random.default_rng(12)
    who = person(rng, 1.0, {"L": "dead", "R": "sound"})
    centre = who.joints["L"].centre

    def seen(pose: np.ndarray, noise: float, state: tissues.Sequence = tissues.T1) -> np.ndarray:
        """The body moved by `pose`: a place of this visit shows what lay at inverse(pose) of it."""
        there = GRID.hip_affine()
        body = np.linalg.inv(pose) @ there
        index = np.argwhere(np.ones(GRID.shape, bool))
        total = np.zeros((len(index), len(tissues.NAMES)), np.float32)
        for away in (-1.2, 0.0, 1.2):
            points = index @ body[:3, :3].T + body[:3, 3] + away * body[:3, 0] / 4 + centre
            field = tissues.Field(points.astype(np.float32), 0.9)
            who.paint(field)
            total += field.shares / 3
        clean = (total @ state.signals()).reshape(GRID.shape)
        return np.abs(clean + rng.normal(0, noise, GRID.shape)).astype(np.float32)

    def pose(turn: tuple[float, float, float], move: tuple[float, float, float]) -> np.ndarray:
        out = np.eye(4)
        out[:3, :3], out[:3, 3] = turned(*turn), move
        return out

    poses = {
        "small": pose((1.0, -2.0, 1.5), (0.8, -0.6, 0.5)),
        "turned": pose((-5.0, 6.0, -4.0), (-1.5, 1.0, 2.0)),
        "moved": pose((2.0, 0.0, 0.0), (3.0, 2.0, -2.5)),
    }
    return seen(np.eye(4), 0.01), {name: (seen(one, 0.01) * 1.4 + 0.05, one) for name, one in poses.items()}


def surface(error: np.ndarray) -> float:
    """Root mean square mm by which `error` (4x4) moves the surface of the head."""
    k = np.arange(200) + 0.5
    z, turn = 1 - 2 * k / 200, np.pi * (1 + 5**0.5) * k
    ball = 24.0 * np.stack([np.sqrt(1 - z**2) * np.cos(turn), np.sqrt(1 - z**2) * np.sin(turn), z], axis=-1)
    return float(np.sqrt((((ball @ error[:3, :3].T + error[:3, 3]) - ball) ** 2).sum(axis=1).mean()))


@pytest.mark.parametrize("name", ["small", "turned", "moved"])
def test_a_known_move_comes_back(name: str, visits, params: Params) -> None:
    first, others = visits
    image, pose = others[name]
    found = align(hip(image), hip(first), params.align)
    assert found is not None
    assert surface(pose) > 1.0
    assert surface(found.to_first @ pose) < 0.6
    assert found.residual_mm < 0.8 and found.ncc > 0.95


def test_simpleitk_says_the_same(visits, params: Params) -> None:
    import SimpleITK as sitk

    first, others = visits
    image, _ = others["turned"]

    def picture(array: np.ndarray) -> sitk.Image:
        out = sitk.GetImageFromArray(array)  # (x, y, z) of ITK is (lateral, inferior, posterior) here
        out.SetSpacing(GRID.spacing[::-1])
        out.SetOrigin([-(n - 1) / 2 * s for n, s in zip(GRID.shape[::-1], GRID.spacing[::-1], strict=True)])
        return out

    fixed, moving = picture(first), picture(image)
    inside = np.linalg.norm(Volume(first, GRID.hip_affine()).to_lps(np.argwhere(first > -1)), axis=1) < 32
    ball = sitk.GetImageFromArray(inside.reshape(GRID.shape).astype(np.uint8))
    ball.CopyInformation(fixed)
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsCorrelation()
    method.SetMetricFixedMask(ball)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetNumberOfThreads(1)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 0.01, 40)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(sitk.Euler3DTransform())
    method.SetShrinkFactorsPerLevel([2])
    method.SetSmoothingSigmasPerLevel([2.0])
    transform = method.Execute(fixed, moving)
    axes = GRID.hip_affine()[:3, :3] / GRID.spacing  # columns: d, h, w in hip space
    to_hip = axes[:, ::-1]
    k = np.eye(4)
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1.0]])
    there = np.array([transform.TransformPoint(tuple(c @ to_hip)) for c in corners]) @ to_hip.T
    k[:3, :3], k[:3, 3] = (there[1:] - there[0]).T, there[0]
    found = align(hip(image), hip(first), params.align)
    assert found is not None
    assert surface(k) > 2.0
    assert surface(found.to_first @ k) < 1.0


def test_what_cannot_be_laid_is_said(tmp_path, visits, params: Params) -> None:
    first, others = visits
    noise = np.random.default_rng(1).random(GRID.shape).astype(np.float32)
    for name, one in {"a": hip(first), "b": hip(others["small"][0]), "c": hip(noise), "d": hip(first, "fluid")}.items():
        hips.write(tmp_path / f"{name}.safetensors", one)
    rows = {
        name: row_of((str(tmp_path / f"{name}.safetensors"), str(tmp_path / "a.safetensors"), "a", params.align))
        for name in "bcd"
    }
    assert rows["b"]["align_status"] == "ok" and len(rows["b"]["to_first"]) == 16
    assert rows["c"]["align_status"] == "failed" and rows["c"]["to_first"] is None
    assert rows["d"] == {"first_visit": "a", "align_status": "no common role", "to_first": None}
