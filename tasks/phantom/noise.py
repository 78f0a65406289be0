"""Pools of random fields, drawn once a process from fixed seeds: an image takes a stretch of one at a random offset."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

_SIZE = 2**22


@cache
def _white() -> NDArray[np.float32]:
    return np.random.default_rng(20190303).standard_normal(_SIZE, dtype=np.float32)


@cache
def _smooth() -> NDArray[np.float32]:
    """(24, 160, 160) of unit SD, periodic: texture with a grain of about two voxels."""
    field = _white()[: 24 * 160 * 160].reshape(24, 160, 160)
    field = gaussian_filter(field, (0.7, 1.3, 1.3), mode="wrap")
    return np.asarray(field / field.std(), dtype=np.float32)


def pool(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    """Standard normal noise of `shape` (a copy)."""
    n = int(np.prod(shape))
    offset = int(rng.integers(0, _SIZE))
    white = _white()
    if offset + n <= _SIZE:
        return white[offset : offset + n].reshape(shape).copy()
    return np.resize(np.roll(white, -offset), n).reshape(shape)


def texture(shape: tuple[int, int, int], rng: np.random.Generator) -> NDArray[np.float32]:
    """Smooth unit noise of `shape`."""
    field = _smooth()
    start = [int(rng.integers(0, size)) for size in field.shape]
    index = [np.arange(first, first + n) % size for first, n, size in zip(start, shape, field.shape, strict=True)]
    return field[np.ix_(*index)]
