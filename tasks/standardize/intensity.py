"""Brightness that means the same in every scanner."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tasks.domain.volume import Volume
from tasks.standardize.balls import block_mean
from tasks.standardize.params import N4, Level
from tasks.store.resample import resample

AROUND_MM = 75.0
"""Normalization and QC look at the box this far around each femoral head, where every field of view shows body."""

ENOUGH = 100_000
"""Values by which a series is normalized."""


def around(volume: Volume, centres: list[NDArray[np.float64]]) -> list[NDArray]:
    """The part of the volume within AROUND_MM of each centre (a view, not a copy); empty parts are left out."""
    boxes = []
    reach = np.abs(np.linalg.inv(volume.affine[:3, :3])) @ np.full(3, AROUND_MM)
    for centre in centres:
        middle = volume.to_index(centre)
        low = np.clip(np.floor(middle - reach), 0, volume.array.shape).astype(int)
        high = np.clip(np.ceil(middle + reach) + 1, 0, volume.array.shape).astype(int)
        box = volume.array[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        if box.size:
            boxes.append(box)
    return boxes


def sample(boxes: list[NDArray]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Some 100,000 values of the boxes; and those of the body: above a tenth of the brightest percent."""
    step = max(round((sum(box.size for box in boxes) / ENOUGH) ** 0.5), 2)
    values = np.concatenate([box[:, ::step, ::step].ravel() for box in boxes]).astype(np.float32)
    return values, values[values > 0.1 * np.percentile(values, 99)]


def unit(body: NDArray[np.float32], level: Level) -> float:
    """The intensity that becomes 1."""
    return max(float(np.percentile(body, level.percentile)), 1e-6) / level.value if len(body) else 1.0


def unbiased(volume: Volume, params: N4) -> Volume:
    """N4 (Tustison 2010): the smooth field is fitted to blocks of about `params.block_mm` and divides every voxel."""
    import SimpleITK as sitk  # here, so that a run without N4 does not pay for the import

    factors = np.maximum(np.round(params.block_mm / volume.spacing), 1).astype(int)
    coarse = block_mean(volume, np.minimum(factors, volume.array.shape))
    if min(coarse.array.shape) < 4:
        return volume
    image = sitk.GetImageFromArray(np.maximum(coarse.array, 0).astype(np.float32))
    image.SetSpacing([float(s) for s in coarse.spacing[::-1]])
    corrector = sitk.N4BiasFieldCorrectionImageFilter()
    corrector.SetNumberOfThreads(1)
    corrector.SetMaximumNumberOfIterations(list(params.iterations))
    corrector.SetConvergenceThreshold(params.converged)
    corrector.Execute(image, sitk.OtsuThreshold(image, 0, 1, 200))
    field = sitk.GetArrayFromImage(corrector.GetLogBiasFieldAsImage(image))
    inverse = Volume(np.exp(-field), coarse.affine)
    whole = resample(inverse, volume.affine, volume.array.shape, edge=True)
    return Volume(volume.array.astype(np.float32) * whole, volume.affine)
