"""Contours that run through the centres of the outermost pixels, as OpenCV's `findContours` traces them (rt-utils and
many programs that turn a network's mask into an RTSTRUCT): half a pixel inside what was drawn, all around.

They are known by their steps, from pixel to one of its eight neighbours or several on in the same direction. What
marching squares makes goes from the middle of one pixel's edge to that of the next: along an axis always by two of its
half pixels. An outline along the pixels' edges has no slanting step.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from skimage.draw import polygon_perimeter
from skimage.measure import grid_points_in_poly

Points = NDArray[np.float64]

TURNED_DEG = 22.5
"""Rows and columns of the image lie nearer to the given axes than this; or its diagonals could be taken for them."""

EXACT = 0.04
"""Of a pixel: how far from whole numbers of pixels a step may be. Coordinates are written in hundredths of a mm."""

STEPS = 24
"""Of a structure with fewer steps nothing is said."""


def pixels(contours: list[Points]) -> Points | None:
    """The pixel grid (2, 2) whose centres these closed contours of (n, 2) in mm run through, rows its two steps in mm;
    None where they do not."""
    steps = np.concatenate([np.roll(p, -1, axis=0) - p for p in contours])
    steps = steps[np.abs(steps).max(axis=1) > 1e-6]
    if len(steps) < STEPS:
        return None
    angle = np.rad2deg(np.arctan2(steps[:, 1], steps[:, 0]))
    turned = (angle + 45) % 90 - 45  # from the nearer one of the two axes
    length = np.linalg.norm(steps, axis=1)
    along = np.abs(turned) < TURNED_DEG
    if not along.any():
        return None
    turn = np.deg2rad(turned[along][np.argmin(np.abs(turned[along] - np.median(turned[along])))])
    axes = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    parts = steps @ axes.T
    size = np.array([_least(np.abs(parts[:, n]), 0.05 * float(np.median(length))) for n in (0, 1)])
    if not (size > 0).all():
        return None
    whole = np.abs(np.round(parts / size))
    if not whole.sum(axis=0).all():
        return None
    size = np.abs(parts).sum(axis=0) / whole.sum(axis=0)  # free of the rounding of single steps
    if np.abs(np.abs(parts) / size - whole).max() > EXACT:
        return None
    straight, slanting = (whole == 0).any(axis=1), whole[:, 0] == whole[:, 1]
    by_one = bool((whole[straight].sum(axis=1) % 2 == 1).any())
    return axes * size[:, None] if (straight | slanting).all() and slanting.any() and by_one else None


def _least(parts: Points, nothing: float) -> float:
    parts = parts[parts > nothing]
    return float(np.median(parts[parts < 1.2 * parts.min()])) if len(parts) else 0.0


def filled(
    contours: list[Points], grid: Points, low: Points, size_mm: float, shape: tuple[int, int]
) -> NDArray[np.bool_]:
    """What the contours of one plane enclose, their own pixels as a whole with it, at `shape` points of `size_mm` from
    `low`. A contour on pixels that another one fills is that of a hole: it runs outside the hole."""
    origin = contours[0][0]
    inverse = np.linalg.inv(grid)
    index = [np.round((p - origin) @ inverse).astype(int) for p in contours]
    first = np.min([i.min(axis=0) for i in index], axis=0)
    count = np.max([i.max(axis=0) for i in index], axis=0) - first + 1
    mask = np.zeros(tuple(count), dtype=bool)
    for points in sorted((i - first for i in index), key=lambda i: -float(np.ptp(i, axis=0).prod())):
        rim = np.zeros_like(mask)
        rim[polygon_perimeter(points[:, 0], points[:, 1], shape=mask.shape)] = True
        within = grid_points_in_poly(mask.shape, points)
        mask = mask & ~(within & ~rim) if mask[tuple(points.T)].all() else mask | within | rim
    rows, columns = np.indices(shape)
    at = np.stack([rows, columns], axis=-1) * size_mm + low - origin
    place = np.round(at @ inverse).astype(int) - first
    inside = ((place >= 0) & (place < count)).all(axis=-1)
    place = np.clip(place, 0, count - 1)
    return np.asarray(mask[place[..., 0], place[..., 1]] & inside)
