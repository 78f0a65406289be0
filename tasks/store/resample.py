"""A volume seen on another grid: the one place where images and masks are interpolated."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from tasks.domain.volume import Volume

_INTERPOLATORS = {0: sitk.sitkNearestNeighbor, 1: sitk.sitkLinear, 3: sitk.sitkBSpline3}
_KINDS = ("uint8", "int8", "uint16", "int16", "int32", "float32", "float64")


def resample(
    volume: Volume, affine: NDArray, shape: tuple[int, int, int], order: int = 1, fill: float = 0.0, edge: bool = False
) -> NDArray[np.float32]:
    """`volume` at the voxel centres of the grid `affine` (4x4, index -> LPS mm) and `shape` (D, H, W).

    order 0 is nearest (masks), 1 linear, 3 cubic. A source voxel reaches half a voxel beyond its centre; what is
    further out than that is `fill`, or with `edge` the nearest voxel. ITK does it in index space, where it is 2.4 times
    as fast as scipy.
    """
    array = volume.array.view(np.uint8) if volume.array.dtype == bool else volume.array
    if array.dtype.name not in _KINDS or not array.dtype.isnative:
        array = array.astype(np.float32)
    to_source = np.linalg.inv(volume.affine) @ np.asarray(affine, dtype=np.float64)
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
