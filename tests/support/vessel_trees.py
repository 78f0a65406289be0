"""Synthetic vessel trees with known length and branches, written apart from tasks/phantom."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def grow(rng: np.random.Generator, length: float, reach: float = 22.0) -> list[NDArray[np.float64]]:
    """Branches as polylines of 1 mm steps inside a ball of `reach` mm; their lengths sum to about `length`."""

    def turn(direction: NDArray, angle: float) -> NDArray:
        side = np.cross(direction, rng.normal(size=3))
        side /= np.linalg.norm(side)
        return direction * np.cos(angle) + side * np.sin(angle)

    start = np.array([0.0, reach * 0.8, 0.0])
    tips = [(start, np.array([0.0, -1.0, 0.0]) + rng.normal(0, 0.2, 3))]
    branches: list[NDArray[np.float64]] = []
    total = 0.0
    while tips and total < length:
        point, direction = tips.pop(0)
        direction = direction / np.linalg.norm(direction)
        line, fork = [point], 4 + rng.exponential(7)
        while len(line) - 1 < fork and total < length:
            direction = direction + rng.normal(0, 0.10, 3)
            direction /= np.linalg.norm(direction)
            following = line[-1] + direction
            if np.linalg.norm(following) > reach:
                break
            line.append(following)
            total += 1.0
        else:
            if total < length:
                spread = np.deg2rad(rng.uniform(28, 55, 2))
                first = turn(direction, spread[0])
                away = direction - 0.9 * (first - direction * (first @ direction))
                tips += [(line[-1], first), (line[-1], away / np.linalg.norm(away))]
        if len(line) > 1:
            branches.append(np.array(line))
    return branches


def length_of(branches: list[NDArray[np.float64]]) -> float:
    return float(sum(np.linalg.norm(np.diff(line, axis=0), axis=1).sum() for line in branches))


def draw(
    branches: list[NDArray[np.float64]], spacing: tuple[float, float, float], radius: float = 1.0,
    offset: NDArray | None = None,
) -> NDArray[np.bool_]:  # fmt: skip
    """The exact mask of tubes of `radius` mm around the branches, on a grid of +-26 mm; their ends are flat."""
    shape = tuple(int(52 / s) for s in spacing)
    mask = np.zeros(shape, dtype=bool)
    centre = (np.array(shape) - 1) / 2 * np.asarray(spacing) + (0 if offset is None else offset)
    for line in branches:
        for a, b in zip(line[:-1] + centre, line[1:] + centre, strict=True):
            low = np.maximum(np.floor((np.minimum(a, b) - radius) / spacing).astype(int), 0)
            high = np.minimum(np.ceil((np.maximum(a, b) + radius) / spacing).astype(int) + 1, shape)
            if (low >= high).any():
                continue
            axes = [np.arange(i, j) * step for i, j, step in zip(low, high, spacing, strict=True)]
            grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
            along = b - a
            t = np.clip(((grid - a) @ along) / (along @ along), 0, 1)
            near = np.linalg.norm(grid - a - t[..., None] * along, axis=-1) <= radius
            mask[tuple(slice(i, j) for i, j in zip(low, high, strict=True))] |= near
    return mask
