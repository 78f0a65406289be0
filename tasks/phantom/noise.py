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


_GRAIN = (48, 224, 320)


@cache
def _smooth() -> NDArray[np.float32]:
    """Texture of unit SD with a grain of about two voxels."""
    field = _white()[: int(np.prod(_GRAIN))].reshape(_GRAIN)
    field = gaussian_filter(field, (0.7, 1.2, 1.2), mode="wrap", truncate=2.5)
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
    """Smooth unit noise of `shape` (a view: do not write into it)."""
    field = _smooth()
    if any(n > size for n, size in zip(shape, field.shape, strict=True)):
        field = np.tile(field, [-(-n // size) for n, size in zip(shape, field.shape, strict=True)])
    start = [int(rng.integers(0, size - n + 1)) for size, n in zip(field.shape, shape, strict=True)]
    part = field[tuple(slice(first, first + n) for first, n in zip(start, shape, strict=True))]
    flips = tuple(slice(None, None, -1) if rng.random() < 0.5 else slice(None) for _ in shape)
    return part[flips]
