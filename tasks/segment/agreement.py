"""How well two masks agree: overlap, distance of their surfaces, and overlap of thin trees by their centre lines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def dice(a: Mask, b: Mask) -> float:
    """Of both together, how much is shared; NaN where both are empty."""
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else float("nan")


def cldice(a: Mask, b: Mask, steps: int) -> float:
    """Harmonic mean of how much of each centre line lies in the other mask (Shit 2021); NaN where both are empty."""
    box = _box(a | b)
    if box is None:
        return float("nan")
    if not a.any() or not b.any():
        return 0.0
    thin = [skeleton(mask[box], steps) for mask in (a, b)]
    found = (thin[0] & b[box]).sum() / max(1, thin[0].sum())
    covered = (thin[1] & a[box]).sum() / max(1, thin[1].sum())
    return float(2 * found * covered / (found + covered)) if found + covered else 0.0


def skeleton(mask: Mask, steps: int) -> Mask:
    """What opening takes away from the mask eroded 0, 1, ... `steps` times: its centre lines, a voxel or two wide."""
    thin = mask & ~_dilate(_erode(mask))
    for _ in range(steps):
        mask = _erode(mask)
        thin |= mask & ~_dilate(_erode(mask))
    return thin


def _erode(mask: Mask) -> Mask:
    """By the six neighbours."""
    wide, out = np.pad(mask, 1, constant_values=True), mask.copy()
    for axis in range(mask.ndim):
        out &= _shifted(wide, axis, 0) & _shifted(wide, axis, 2)
    return out


def _dilate(mask: Mask) -> Mask:
    """By all neighbours, one axis after the other."""
    for axis in range(mask.ndim):
        wide = np.pad(mask, 1)
        mask = mask | _shifted(wide, axis, 0) | _shifted(wide, axis, 2)
    return mask


def _shifted(wide: Mask, axis: int, start: int) -> Mask:
    cut = [slice(1, -1)] * wide.ndim
    cut[axis] = slice(start, wide.shape[axis] - 2 + start)
    return wide[tuple(cut)]


def surface_mm(a: Mask, b: Mask, spacing: Sequence[float]) -> tuple[float, float]:
    """(mean distance of the surfaces, 95th percentile of it), both ways, in mm; NaN where one is empty."""
    if not a.any() or not b.any():
        return float("nan"), float("nan")
    first, second = (_surface(mask, spacing) for mask in (a, b))
    between = torch.cdist(first, second)
    nearest = torch.cat([between.amin(1), between.amin(0)]).numpy()
    return float(nearest.mean()), float(np.percentile(nearest, 95))


def _surface(mask: Mask, spacing: Sequence[float]) -> torch.Tensor:
    """(n, 3) mm of the voxels of a mask that touch what is outside it, in plane."""
    padded = np.pad(mask, ((0, 0), (1, 1), (1, 1)))
    inner = padded[:, :-2, 1:-1] & padded[:, 2:, 1:-1] & padded[:, 1:-1, :-2] & padded[:, 1:-1, 2:]
    return torch.from_numpy(np.argwhere(mask & ~inner) * np.asarray(spacing)).float()


def _box(mask: Mask) -> tuple[slice, ...] | None:
    where = np.argwhere(mask)
    if not len(where):
        return None
    low, high = where.min(0), where.max(0) + 1
    return tuple(slice(max(0, a - 1), b + 1) for a, b in zip(low, high, strict=True))
