"""A volume seen on another grid: the one place where images and masks are interpolated."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from tasks.domain.volume import Volume

_INTERPOLATORS = {0: sitk.sitkNearestNeighbor, 1: sitk.sitkLinear, 3: sitk.sitkBSpline3}
LEAN = 1e-4
"""Voxels that one end of a grid may lie off the source's axes for the two to count as parallel."""
_KINDS = ("uint8", "int8", "uint16", "int16", "int32", "float32", "float64")


def resample(
    volume: Volume, affine: NDArray, shape: tuple[int, int, int], order: int = 1, fill: float = 0.0, edge: bool = False
) -> NDArray[np.float32]:
    """`volume` at the voxel centres of the grid `affine` (4x4, index -> LPS mm) and `shape` (D, H, W).

    order 0 is nearest (masks), 1 linear, 3 cubic. A source voxel reaches half a voxel beyond its centre; what is
    further out than that is `fill`, or with `edge` the nearest voxel. Where the two grids are parallel, linear is done
    an axis at a time, in a tenth of the time; else ITK does it in index space, 2.4 times as fast as scipy.
    """
    array = volume.array.view(np.uint8) if volume.array.dtype == bool else volume.array
    if array.dtype.name not in _KINDS or not array.dtype.isnative:
        array = array.astype(np.float32)
    to_source: NDArray[np.float64] = (np.linalg.inv(volume.affine) @ affine).astype(np.float64)
    if order == 1 and not edge and _parallel(to_source, shape):
        return _straight(array, to_source, shape, fill)
    # ITK's points are (w, h, d), the reverse of the array's axes; both images get unit spacing and no origin.
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(to_source[:3, :3][::-1, ::-1].ravel().tolist())
    transform.SetTranslation(to_source[:3, 3][::-1].tolist())
    resampler = sitk.ResampleImageFilter()
    resampler.SetNumberOfThreads(1)
    resampler.SetSize([int(n) for n in shape[::-1]])
    resampler.SetTransform(transform)
    resampler.SetInterpolator(_INTERPOLATORS[order])
    resampler.SetDefaultPixelValue(float(fill))
    if edge:
        resampler.SetUseNearestNeighborExtrapolator(True)
    resampler.SetOutputPixelType(sitk.sitkFloat32)
    return sitk.GetArrayFromImage(resampler.Execute(sitk.GetImageFromArray(array)))


def _parallel(to_source: NDArray[np.float64], shape: tuple[int, int, int]) -> bool:
    leaning = to_source[:3, :3] - np.diag(np.diag(to_source[:3, :3]))
    return bool((np.abs(leaning) @ np.array(shape) < LEAN).all())


def _straight(
    array: NDArray, to_source: NDArray[np.float64], shape: tuple[int, int, int], fill: float
) -> NDArray[np.float32]:
    """Linear between parallel grids: the box of the source that is wanted, then one axis after the other."""
    values, outside, steps = array, [], []
    for axis, (wanted, there) in enumerate(zip(shape, array.shape, strict=True)):
        at = to_source[axis, axis] * np.arange(wanted) + to_source[axis, 3]
        outside.append((at < -0.5) | (at >= there - 0.5))
        low = np.clip(np.floor(at).astype(int), 0, there - 1)
        high = np.minimum(low + 1, there - 1)
        start = int(low.min())
        values = values[(slice(None),) * axis + (slice(start, int(high.max()) + 1),)]
        form = [-1 if k == axis else 1 for k in range(3)]
        steps.append((low - start, high - start, np.clip(at - low, 0, 1).astype(np.float32).reshape(form)))
    values = values.astype(np.float32)
    for axis, (low, high, share) in enumerate(steps):
        below = np.take(values, low, axis)
        values = below + share * (np.take(values, high, axis) - below)
    for axis, beyond in enumerate(outside):
        values[(slice(None),) * axis + (beyond,)] = fill
    return values
