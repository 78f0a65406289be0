"""A volume seen on another grid: the one place where images and masks are interpolated."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tasks.domain.volume import Volume


def resample(
    volume: Volume,
    affine: NDArray,
    shape: tuple[int, int, int],
    order: int = 1,
    fill: float = 0.0,
) -> NDArray[np.float32]:
    """`volume` at the voxel centres of the grid `affine` (4x4, index -> LPS mm) and `shape` (D, H, W).

    order 0 is nearest (masks), 1 linear, 3 cubic. A source voxel reaches half a voxel beyond its centre; what is
    further out than that is `fill`.
    """
    to_source = np.linalg.inv(volume.affine) @ np.asarray(affine, dtype=np.float64)
    matrix, offset = to_source[:3, :3], to_source[:3, 3]
    matrix = np.where(np.abs(matrix) < 1e-9, 0.0, matrix)  # keeps axis-aligned grids exactly axis aligned
    array = volume.array
    if array.dtype == bool:
        array = array.view(np.uint8)
    elif array.dtype.byteorder == ">" or array.dtype == np.float16:
        array = array.astype(np.float32)
    values = ndimage.affine_transform(
        array,
        matrix,
        offset,
        shape,
        output=np.float32,
        order=order,
        mode="nearest",
        prefilter=order > 1,
    )
    values[~inside(volume.array.shape, matrix, offset, shape)] = fill
    return values


def inside(
    source_shape: tuple[int, ...],
    matrix: NDArray,
    offset: NDArray,
    shape: tuple[int, int, int],
) -> NDArray[np.bool_]:
    """(D, H, W) whether `matrix @ index + offset` lies within the voxels of an array of `source_shape`."""
    answer = np.ones(shape, dtype=bool)
    d, h, w = np.ogrid[: shape[0], : shape[1], : shape[2]]
    for axis in range(3):
        position = (
            matrix[axis, 0] * d + matrix[axis, 1] * h + matrix[axis, 2] * w + offset[axis]
        )  # broadcasts over the axes whose factor is 0 as well
        answer &= (position > -0.5 - 1e-6) & (position < source_shape[axis] - 0.5 + 1e-6)
    return answer
