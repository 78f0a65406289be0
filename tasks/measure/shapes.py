"""Shape of head and lesion from their masks: sphere, arcs, lateral margin, collapse.

Masks are (D, H, W) in hip space with their spacing in mm: d runs to posterior, h to inferior, w to lateral. Points are
(d, h, w) in mm from the grid's first voxel. Angles in the coronal plane are degrees from superior, lateral positive.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tasks.store.femoral_head import Arcs, Mask, Spacing, Sphere, arcs, fit_sphere, necrotic_index

__all__ = [
    "Arcs", "Border", "Mask", "Spacing", "Sphere", "arcs", "collapse_depth", "fit_sphere", "jic", "necrotic_index",
]  # fmt: skip


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


@dataclass(frozen=True)
class Border:
    """A mask by the distance (mm, inside positive) of each voxel near it to its border, for all repeats."""

    shape: tuple[int, ...]
    box: tuple[slice, ...]
    signed: NDArray[np.float64] | None
    """(d, h, w) over the box; None for an empty mask."""

    @classmethod
    def of(cls, mask: Mask, spacing: Spacing) -> Border:
        from scipy.ndimage import distance_transform_edt

        if not mask.any():
            return cls(mask.shape, (), None)
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
        signed = np.where(part, inside, -outside) - 0.5 * np.where(part, 1, -1) * spacing.min()
        return cls(mask.shape, box, signed)

    def elsewhere(self, rng: np.random.Generator) -> Border:
        """The same thing with the voxels laid over it anew, up to half a voxel further along each axis."""
        from scipy.ndimage import shift

        if self.signed is None:
            return self
        return replace(self, signed=shift(self.signed, rng.uniform(-0.5, 0.5, 3), order=1, mode="nearest"))

    def moved(self, border_mm: float, rng: np.random.Generator) -> Mask:
        """The mask with its border moved in or out: a common shift and a smooth field, SD `border_mm` together."""
        from scipy.ndimage import zoom

        result = np.zeros(self.shape, dtype=bool)
        if self.signed is None:
            return result
        coarse = rng.normal(size=(4, 4, 4))
        field = zoom(coarse, np.array(self.signed.shape) / 4, order=1, grid_mode=True, mode="nearest")
        moved = border_mm * (0.6 * rng.normal() + 0.8 * field / coarse.std())
        result[self.box] = self.signed + moved > 0
        return result
