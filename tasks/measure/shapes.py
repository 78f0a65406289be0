"""Shape of head and lesion from their masks: sphere, arcs, lateral margin, collapse.

Masks are (D, H, W) in hip space with their spacing in mm: d runs to posterior, h to inferior, w to lateral. Points are
(d, h, w) in mm from the grid's first voxel. Angles in the coronal plane are degrees from superior, lateral positive.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Spacing = NDArray[np.float64]

_STEP_DEG = 2.0
_RINGS = (0.80, 0.87, 0.94)
"""Fractions of the head's radius at which an arc is looked for: below the cartilage, above a flattened contour."""


_ON_SPHERE = 0.4
"""Least share of the border within 1.5 mm of the sphere: less, and the mask is not a femoral head."""


@dataclass(frozen=True)
class Sphere:
    centre: NDArray[np.float64]
    radius: float


def fit_sphere(head: Mask, spacing: Spacing) -> Sphere | None:
    """Least squares sphere through the in-plane border of the head, trimmed of neck and flattened contour."""
    points = _border(head, spacing)
    if len(points) < 50:
        return None
    kept = points
    centre, radius = np.zeros(3), 0.0
    for limit in (np.inf, 3.0, 2.0, 1.2, 1.2, 1.2):
        if limit < np.inf:
            away = np.abs(np.linalg.norm(points - centre, axis=1) - radius)
            kept = points[away <= max(limit, float(np.quantile(away, 0.5)))]
        origin = kept.mean(axis=0)
        local = kept - origin
        system = np.column_stack([2 * local, np.ones(len(local))])
        solution, *_ = np.linalg.lstsq(system, (local**2).sum(axis=1), rcond=None)
        centre = solution[:3] + origin
        radius = float(np.sqrt(max(solution[3] + solution[:3] @ solution[:3], 0.0)))
    near = np.abs(np.linalg.norm(points - centre, axis=1) - radius) <= 1.5
    return Sphere(centre, radius) if 10.0 <= radius <= 45.0 and near.mean() >= _ON_SPHERE else None


def _border(mask: Mask, spacing: Spacing) -> NDArray[np.float64]:
    """Points half way between a voxel inside and its neighbour outside, along rows and columns of each slice."""
    points = []
    for axis in (1, 2):
        before = np.argwhere(np.diff(mask.astype(np.int8), axis=axis) != 0).astype(np.float64)
        before[:, axis] += 0.5
        points.append(before * spacing)
    return np.concatenate(points)


@dataclass(frozen=True)
class Arcs:
    """Degrees. lateral and medial are the margins of the lesion in the coronal plane; NaN without lesion."""

    coronal: float
    sagittal: float
    lateral: float
    medial: float


def arcs(lesion: Mask, sphere: Sphere, spacing: Spacing, largest: bool) -> Arcs:
    """Arcs of the head's surface over the lesion, on the coronal and the sagittal slice through the head's centre, or
    on those of `largest` lesion. Margins are of the coronal slice; of the largest where that one shows no lesion."""
    if not lesion.any():
        return Arcs(0.0, 0.0, np.nan, np.nan)
    d, w = (
        axis * spacing[i] for i, axis in ((0, lesion.sum(axis=(1, 2)).argmax()), (2, lesion.sum(axis=(0, 1)).argmax()))
    )
    ball = sphere.centre
    coronal = _coronal(lesion, sphere, spacing, float(d if largest else ball[0]))
    sagittal = _sagittal(lesion, sphere, spacing, float(w if largest else ball[2]))
    run = _longest_run(coronal)
    if run is None:
        run = _longest_run(_coronal(lesion, sphere, spacing, float(d)))
    medial = lateral = np.nan
    if run is not None:
        medial = -180.0 + _STEP_DEG * (run[0] - 0.5)
        lateral = medial + _STEP_DEG * run[1]
    return Arcs(_STEP_DEG * float(coronal.sum()), _STEP_DEG * float(sagittal.sum()), lateral, medial)


def _coronal(lesion: Mask, sphere: Sphere, spacing: Spacing, d_mm: float) -> Mask:
    """Directions from superior (-h) towards lateral (+w) in the plane at `d_mm`."""
    return _arc(lesion, sphere, spacing, d_mm, across=0, side=(2, 1.0))


def _sagittal(lesion: Mask, sphere: Sphere, spacing: Spacing, w_mm: float) -> Mask:
    """Directions from superior (-h) towards anterior (-d) in the plane at `w_mm`."""
    return _arc(lesion, sphere, spacing, w_mm, across=2, side=(0, -1.0))


def _arc(lesion: Mask, sphere: Sphere, spacing: Spacing, at_mm: float, across: int, side: tuple[int, float]) -> Mask:
    """Which directions in the plane `at_mm` along axis `across` meet the lesion near the head's surface."""
    from scipy.ndimage import map_coordinates

    off = at_mm - float(sphere.centre[across])
    ring = np.sqrt(max(sphere.radius**2 - off**2, (0.3 * sphere.radius) ** 2))
    angle = np.deg2rad(np.arange(-180.0, 180.0, _STEP_DEG))
    radii = np.array(_RINGS)[:, None] * ring
    points = np.empty((3, len(_RINGS), len(angle)))
    points[across] = at_mm
    points[1] = sphere.centre[1] - radii * np.cos(angle)
    points[side[0]] = sphere.centre[side[0]] + side[1] * radii * np.sin(angle)
    inside = map_coordinates(lesion.astype(np.float32), points / spacing[:, None, None], order=1, mode="nearest")
    return np.asarray((inside >= 0.5).any(axis=0))


def _longest_run(flags: Mask) -> tuple[int, int] | None:
    """Start and length of the longest run of true flags, the flags being a circle."""
    if not flags.any():
        return None
    if flags.all():
        return 0, len(flags)
    first = int(np.flatnonzero(~flags)[0])
    turned = np.roll(flags, -first)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], turned.astype(np.int8), [0]])))
    starts, lengths = edges[::2], edges[1::2] - edges[::2]
    best = int(lengths.argmax())
    start = (int(starts[best]) + first) % len(flags)
    return start - (len(flags) if start + lengths[best] > len(flags) else 0), int(lengths[best])


def jic(lateral: float, weight_bearing: tuple[float, float]) -> str | None:
    """JIC type by the lateral margin: thirds of the weight-bearing arc, and beyond its lateral end (C2)."""
    if np.isnan(lateral):
        return None
    medial_end, lateral_end = weight_bearing
    third = (lateral_end - medial_end) / 3
    for name, limit in (("A", medial_end + third), ("B", medial_end + 2 * third), ("C1", lateral_end)):
        if lateral <= limit:
            return name
    return "C2"


def collapse_depth(head: Mask, sphere: Sphere, spacing: Spacing, sector_deg: float) -> float:
    """mm by which the superior contour lies below the sphere: the deepest patch of the sector, at least 0."""
    from scipy.ndimage import map_coordinates, uniform_filter

    lateral = np.deg2rad(np.arange(-sector_deg, sector_deg + 1e-6, 4.0))
    front = np.deg2rad(np.arange(-20.0, 20.1, 5.0))
    phi, tilt = np.meshgrid(lateral, front, indexing="ij")
    direction = np.stack([np.sin(tilt), -np.cos(tilt) * np.cos(phi), np.cos(tilt) * np.sin(phi)], axis=-1)
    along = np.arange(0.5 * sphere.radius, sphere.radius + 2.0, 0.4)
    points = (sphere.centre + along[:, None, None, None] * direction) / spacing
    inside = map_coordinates(head.astype(np.float32), np.moveaxis(points, -1, 0), order=1, mode="constant")
    within = (inside >= 0.5).cumprod(axis=0).astype(bool)
    last = np.maximum(within.sum(axis=0) - 1, 0)
    rows, columns = np.indices(last.shape)
    one, two = inside[last, rows, columns], inside[np.minimum(last + 1, len(along) - 1), rows, columns]
    reached = along[last] + 0.4 * np.clip((one - 0.5) / np.maximum(one - two, 1e-6), 0, 1)
    # A patch of about 20 by 15 degrees: a single ray would find the noise of the border.
    return float(max(uniform_filter(sphere.radius - reached, (5, 3), mode="nearest").max(), 0.0))


def perturbed(mask: Mask, spacing: Spacing, border_mm: float, rng: np.random.Generator) -> Mask:
    """The mask with its border moved in or out: a common shift and a smooth field over it, SD `border_mm` together."""
    from scipy.ndimage import distance_transform_edt, zoom

    if not mask.any():
        return mask
    corner = [np.flatnonzero(mask.any(axis=o))[[0, -1]] for o in ((1, 2), (0, 2), (0, 1))]
    reach = [0 if s > 2 else 3 for s in spacing]
    box = tuple(
        slice(max(int(low) - r, 0), min(int(high) + 1 + r, n))
        for (low, high), r, n in zip(corner, reach, mask.shape, strict=True)
    )
    part = mask[box]
    plane = np.where(spacing > 2, 1e3, spacing)  # thick slices keep their own border: only in-plane distances count
    inside = distance_transform_edt(np.pad(part, 1), sampling=plane)[1:-1, 1:-1, 1:-1]
    outside = distance_transform_edt(~part, sampling=plane)
    signed = np.where(part, inside, -outside)
    signed -= 0.5 * np.where(part, 1, -1) * spacing.min()
    coarse = rng.normal(size=(4, 4, 4))
    field = zoom(coarse, np.array(part.shape) / 4, order=1, grid_mode=True, mode="nearest")
    moved = border_mm * (0.6 * rng.normal() + 0.8 * field / coarse.std())
    result = np.zeros_like(mask)
    result[box] = signed + moved > 0
    return result
