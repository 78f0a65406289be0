"""Head and lesion as masks on the hip grid: the sphere of the head, and the arcs of its surface over the lesion.

Used by what reads masks (annotate) and by what measures predicted ones (measure): one geometry for both. Masks are
(D, H, W) in hip space with their spacing in mm: d runs to posterior, h to inferior, w to lateral. Points are (d, h, w)
in mm from the grid's first voxel. Angles in the coronal plane are degrees from superior, lateral positive.
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


def necrotic_index(widest: Arcs) -> float:
    """Modified index (Cherian 2003): arcs on the slices of largest lesion, each against a half circle, of 100."""
    return widest.coronal / 180 * widest.sagittal / 180 * 100
