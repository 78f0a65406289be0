"""Several readers' masks of one hip: how well they agree, and the one mask that they agree on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, distance_transform_edt

Mask = NDArray[np.bool_]


def dice(one: Mask, two: Mask) -> float:
    """2 |A and B| / (|A| + |B|); two empty masks agree."""
    total = int(one.sum()) + int(two.sum())
    return 2.0 * int((one & two).sum()) / total if total else 1.0


def surface_distance(one: Mask, two: Mask, spacing: tuple[float, ...]) -> float:
    """Mean over both surfaces of the distance to the other one, in mm; NaN when a mask is empty."""
    if not one.any() or not two.any():
        return float("nan")
    box = _box([one, two])
    first, second = _surface(one[box]), _surface(two[box])
    to_first = distance_transform_edt(~first, sampling=spacing)
    to_second = distance_transform_edt(~second, sampling=spacing)
    return float(np.concatenate([to_second[first], to_first[second]]).mean())


def combine(masks: list[Mask], method: str, spacing: tuple[float, ...]) -> Mask:
    """One mask of all readers by `method` (tasks.annotate.params.Method)."""
    if len(masks) == 1:
        return masks[0]
    votes = np.stack(masks).sum(axis=0, dtype=np.int16)
    result = np.zeros(masks[0].shape, dtype=bool)
    if not votes.any():
        return result
    box = _box([votes > 0])
    if method == "union":
        result[box] = votes[box] > 0
    elif method == "intersection":
        result[box] = votes[box] == len(masks)
    elif method == "majority":
        result[box] = votes[box] * 2 > len(masks)
    elif method == "mean":
        # Neither reader's bias in size is favoured, as a union or an intersection of two would.
        result[box] = np.mean([_signed(mask[box], spacing) for mask in masks], axis=0) > 0
    else:
        result[box] = staple([mask[box] for mask in masks])
    return result


def staple(masks: list[Mask], rounds: int = 50) -> Mask:
    """Simultaneous truth and performance level estimation (Warfield 2004) on voxels where readers differ in the box."""
    votes = np.stack([mask.ravel() for mask in masks]).astype(np.float64)
    prior = votes.mean()
    sensitivity = np.full(len(masks), 0.99)
    specificity = np.full(len(masks), 0.99)
    truth = votes.mean(0)
    for _ in range(rounds):
        yes = prior * np.prod(np.where(votes > 0, sensitivity[:, None], 1 - sensitivity[:, None]), axis=0)
        no = (1 - prior) * np.prod(np.where(votes > 0, 1 - specificity[:, None], specificity[:, None]), axis=0)
        updated = yes / np.maximum(yes + no, 1e-300)
        done = float(np.abs(updated - truth).max()) < 1e-6
        truth = updated
        sensitivity = np.clip((votes @ truth) / max(truth.sum(), 1e-9), 1e-6, 1 - 1e-6)
        specificity = np.clip(((1 - votes) @ (1 - truth)) / max((1 - truth).sum(), 1e-9), 1e-6, 1 - 1e-6)
        if done:
            break
    return (truth >= 0.5).reshape(masks[0].shape)


def _signed(mask: Mask, spacing: tuple[float, ...]) -> NDArray[np.float64]:
    """mm to the border of the mask, positive inside; an empty mask is far outside everywhere."""
    if not mask.any():
        return np.full(mask.shape, -float(np.linalg.norm(np.array(mask.shape) * spacing)))
    padded = np.pad(mask, 1)
    inside = distance_transform_edt(padded, sampling=spacing)
    outside = distance_transform_edt(~padded, sampling=spacing)
    return (inside - outside)[1:-1, 1:-1, 1:-1]


def _surface(mask: Mask) -> Mask:
    return mask & ~binary_erosion(mask)


def _box(masks: list[Mask]) -> tuple[slice, ...]:
    """The box that holds all of them, one voxel wider."""
    found = np.argwhere(np.any(masks, axis=0))
    low, high = np.maximum(found.min(0) - 1, 0), found.max(0) + 2
    return tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
