"""Each visit of a hip laid onto the hip's first visit, so that change is measured at the same place.

Rigid, in hip space (mm about the head's centre), by the brightness of the ball of the femoral head: Gauss-Newton with
the gradients of the first visit (Baker and Matthews 2004), gain and offset free, voxels that changed weigh less. The
head turns in its socket from visit to visit, so what lies outside the ball is not asked. What is left over is measured
by eight parts of the ball that may each move by themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tasks.domain.hip import ROLES
from tasks.domain.volume import Grid, Volume
from tasks.standardize.params import Align
from tasks.store import hips

BLURS_MM = (3.0, 1.5)
"""Coarse, then fine."""
STEP_MM = 0.01
"""A smaller move of the surface ends the search."""


@dataclass(frozen=True)
class Aligned:
    """to_first: 4x4, hip space of this visit -> hip space of the first. residual_mm: root mean square of what eight
    parts of the ball would still move. ncc: correlation of brightness in the ball, after."""

    to_first: NDArray[np.float64]
    residual_mm: float
    ncc: float
    role: str


def row_of(work: tuple[str, str, str, Align]) -> dict[str, Any]:
    """Columns of one hip-visit: (path of its file, path of the first visit's, key of the first visit, params)."""
    path, first_path, first, params = work
    found = align(hips.read(Path(path)), hips.read(Path(first_path)), params)
    if found is None:
        return {"first_visit": first, "align_status": "no common role", "to_first": None}
    turned, moved = size_of(found.to_first)
    bad = found.residual_mm > params.residual_mm or found.ncc < params.ncc or moved > params.farthest_mm
    return {
        "first_visit": first,
        "align_status": "failed" if bad else "ok",
        "to_first": None if bad else [float(v) for v in found.to_first.ravel()],
        "align_residual_mm": found.residual_mm, "align_ncc": found.ncc, "align_role": found.role,
        "align_mm": moved, "align_deg": turned,
    }  # fmt: skip


def align(hip: hips.HipFile, first: hips.HipFile, params: Align) -> Aligned | None:
    """None where the two visits have no role in common."""
    role = next((role for role in ROLES if role in hip.tensors and role in first.tensors), None)
    if role is None:
        return None
    still, moving = _volume(first, role), _volume(hip, role)
    shown = (still.array.shape[0], *(-(-n // 2) for n in still.array.shape[1:]))
    places = np.argwhere(np.ones(shown, bool)) * np.array([1, 2, 2])
    points = still.to_lps(places.astype(np.float64))
    ball = np.linalg.norm(points, axis=1) <= params.radius_mm
    places, points = places[ball], points[ball]
    pose = np.eye(4)  # first -> this visit
    for blur in BLURS_MM:
        one, two = _blurred(still, blur), _blurred(moving, blur)
        here = one.array[tuple(places.T)]
        gradient = _gradient(one)[tuple(places.T)]
        turn = np.cross(points, gradient)
        jacobian = np.column_stack([gradient, turn, here, np.ones(len(here))])
        for _ in range(params.iterations):
            there, inside = _sampled(two, points, pose)
            seen = _weights(there, here, inside)
            # brightness there ~ gain * (here + gradient . step) + offset
            weighted = jacobian * seen[:, None]
            answer = np.linalg.lstsq(weighted.T @ jacobian + 1e-6 * np.eye(8), weighted.T @ there, rcond=None)[0]
            gain = answer[6] if abs(answer[6]) > 0.2 else 0.2
            step = _pose(answer[:3] / gain, answer[3:6] / gain)
            pose = pose @ np.linalg.inv(step)  # the first visit's gradients say where it should have been asked
            if np.linalg.norm(answer[:3] / gain) + params.radius_mm * np.linalg.norm(answer[3:6] / gain) < STEP_MM:
                break
    there, inside = _sampled(two, points, pose)
    ncc = float(np.corrcoef(here[inside], there[inside])[0, 1]) if inside.sum() > 50 else 0.0
    residual = _residual(points, here, there, gradient, inside)
    return Aligned(np.asarray(np.linalg.inv(pose), np.float64), residual, ncc if np.isfinite(ncc) else 0.0, role)


def _volume(hip: hips.HipFile, role: str) -> Volume:
    grid = hip.meta["grids"][role]
    shape, spacing = (tuple(grid[name]) for name in ("shape", "spacing"))
    return Volume(hip.values(role), Grid(shape, spacing).hip_affine())


def _blurred(volume: Volume, sigma_mm: float) -> Volume:
    return Volume(ndimage.gaussian_filter(volume.array, sigma_mm / volume.spacing, truncate=2.5), volume.affine)


def _gradient(volume: Volume) -> NDArray[np.float64]:
    """(D, H, W, 3) by hip space, per mm."""
    along = np.stack(np.gradient(volume.array), axis=-1)
    return along @ np.linalg.inv(volume.affine[:3, :3])


def _sampled(
    volume: Volume, points: NDArray[np.float64], pose: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    index = volume.to_index(points @ pose[:3, :3].T + pose[:3, 3])
    inside: NDArray[np.bool_] = np.all((index >= 0) & (index <= np.array(volume.array.shape) - 1), axis=1)
    return ndimage.map_coordinates(volume.array, index.T, order=1, mode="nearest"), inside


def _weights(there: NDArray, here: NDArray, inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Tukey's: voxels whose brightness changed by much more than most others' do not pull."""
    if inside.sum() < 50:
        return inside.astype(float)
    gain, offset = np.polyfit(here[inside], there[inside], 1)
    off = np.abs(there - gain * here - offset)
    scale = max(4.7 * 1.4826 * float(np.median(off[inside])), 1e-6)
    return np.where(inside, np.maximum(1 - (off / scale) ** 2, 0) ** 2, 0.0)


def _pose(step: NDArray[np.float64], turn: NDArray[np.float64]) -> NDArray[np.float64]:
    angle = float(np.linalg.norm(turn))
    x, y, z = turn / angle if angle > 1e-12 else np.zeros(3)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    pose = np.eye(4)
    pose[:3, :3] = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    pose[:3, 3] = step
    return pose


def _residual(points: NDArray, here: NDArray, there: NDArray, gradient: NDArray, inside: NDArray[np.bool_]) -> float:
    """Root mean square, mm, of the moves by which each eighth of the ball would fit best."""
    if inside.sum() < 50:
        return float("inf")
    gain, offset = np.polyfit(here[inside], there[inside], 1)
    left = there - gain * here - offset
    octant = (points > 0) @ np.array([1, 2, 4])
    found = []
    for k in range(8):
        part = inside & (octant == k)
        slope = gain * gradient[part]
        if len(slope) < 50:
            continue
        # A little stiffness: where brightness is flat nothing is known to move.
        stiff = 0.02 * float((slope**2).sum()) * np.eye(3) + 1e-9 * np.eye(3)
        found.append(np.linalg.solve(slope.T @ slope + stiff, slope.T @ left[part]))
    return float(np.sqrt((np.array(found) ** 2).sum(axis=1).mean())) if found else float("inf")


def size_of(pose: NDArray[np.float64]) -> tuple[float, float]:
    """Degrees turned and mm moved at the centre of the head."""
    angle = np.degrees(np.arccos(np.clip((np.trace(pose[:3, :3]) - 1) / 2, -1, 1)))
    return float(angle), float(np.linalg.norm(pose[:3, 3]))
