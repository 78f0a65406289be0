"""Brightness that means the same in every scanner, and how good the series is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tasks.domain.volume import Volume
from tasks.standardize.params import N4, Level

AROUND_MM = 75.0
"""Normalization and QC look at the box this far around each femoral head, where every field of view shows body."""


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
    """Every fourth value of the boxes; and those of the body: above a tenth of the brightest percent."""
    values = np.concatenate([box[:, ::2, ::2].ravel() for box in boxes]).astype(np.float32)
    return values, values[values > 0.1 * np.percentile(values, 99)]


def unit(body: NDArray[np.float32], level: Level) -> float:
    """The intensity that becomes 1."""
    return max(float(np.percentile(body, level.percentile)), 1e-6) / level.value if len(body) else 1.0


def noise(boxes: list[NDArray]) -> float:
    """Standard deviation of the noise: the median of second differences along rows, which anatomy hardly moves
    (1.4826 / sqrt(6): from the median of |a - 2b + c| of white noise)."""
    parts = [np.diff(box[:, ::2].astype(np.float32), n=2, axis=2).ravel() for box in boxes if box.shape[2] > 4]
    if not parts:
        return 0.0
    return float(np.median(np.abs(np.concatenate(parts))) * 1.4826 / np.sqrt(6))


def quality(
    boxes: list[NDArray], values: NDArray[np.float32], body: NDArray[np.float32], top: float
) -> dict[str, float]:
    """snr: body's median over noise. clipped: share of voxels at the series' highest value."""
    sigma = noise(boxes)
    snr = float(np.median(body)) / sigma if len(body) and sigma > 0 else 0.0
    return {"snr": min(snr, 1000.0), "clipped": float((values >= top).mean())}


def unbiased(volume: Volume, params: N4) -> Volume:
    """N4 (Tustison 2010) on a shrunken copy; the fitted field divides the whole volume."""
    import SimpleITK as sitk  # here, so that a run without N4 does not pay for the import

    array = volume.array.astype(np.float32)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing([float(s) for s in volume.spacing[::-1]])
    small = sitk.Shrink(image, [params.shrink, params.shrink, 1])
    mask = sitk.OtsuThreshold(small, 0, 1, 200)
    corrector = sitk.N4BiasFieldCorrectionImageFilter()
    corrector.SetMaximumNumberOfIterations(list(params.iterations))
    corrector.Execute(small, mask)
    field = sitk.GetArrayFromImage(corrector.GetLogBiasFieldAsImage(image))
    return Volume(array / np.exp(field), volume.affine)
