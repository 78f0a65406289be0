"""How good a series is: noise, clipping, ghosts and movement, in numbers that do not depend on a scanner's units."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tasks.domain.volume import Volume
from tasks.standardize.balls import block_mean, percentile

BODY = 0.25
"""Brighter than this share of the bright (97th percentile) is body, and what lies between such; beyond is air."""
MARGIN_MM = 12.0
LEAST_AIR = 0.01
"""With less air than this share of the slices ghosts cannot be told from anatomy."""
DARK = 0.3
"""What is brighter than this share of the body is no air with ghosts: the body goes on there, beyond its bright fat."""
GRAIN = 4
"""Pixels; air is looked at in squares of so many, in which noise evens out."""
LOOK_MM = 4.0
"""In-plane voxel of the images whose movement is measured."""
LONGEST_MM = 20.0
SLICES = 6
"""Slices of a series, evenly over it, that ghosts are looked for in."""


def noise(boxes: list[NDArray]) -> float:
    """Standard deviation of the noise: the median of second differences along rows, which anatomy hardly moves
    (1.4826 / sqrt(6): from the median of |a - 2b + c| of white noise)."""
    parts = [
        np.diff(box[:: max(len(box) // SLICES, 1), ::2].astype(np.float32), n=2, axis=2).ravel()
        for box in boxes
        if box.shape[2] > 4
    ]
    if not parts:
        return 0.0
    return float(np.median(np.abs(np.concatenate(parts))) * 1.4826 / np.sqrt(6))


def quality(
    image: Volume, boxes: list[NDArray], values: NDArray[np.float32], body: NDArray[np.float32]
) -> dict[str, float | None]:
    """snr: body's median over noise. clipped: share of voxels at the series' highest value. ghosting: signal in air
    beyond noise, as a share of the body's. motion_mm: how far slices are beside the middle of their neighbours."""
    sigma = noise(boxes)
    snr = float(np.median(body)) / sigma if len(body) and sigma > 0 else 0.0
    return {
        "snr": min(snr, 1000.0),
        "clipped": float((values >= float(image.array.max())).mean()),
        "ghosting": ghosting(image, sigma),
        "motion_mm": motion(image),
    }


def ghosting(image: Volume, sigma: float) -> float | None:
    """None where the field of view shows too little air, or what is no air, or a scanner has painted it black."""
    chosen = np.unique(np.linspace(0, len(image.array) - 1, SLICES + 2).round().astype(int)[1:-1])
    planes = image.array[chosen, ::2, ::2].astype(np.float32)
    spacing = 2 * image.spacing[1:]
    bright = percentile(planes, 97)
    bright_enough = ndimage.uniform_filter(planes, (1, 3, 3)) > max(BODY * bright, 2.5 * sigma)
    # Small specks of ghost are not body; muscle between fat is; what lies near the body is left out.
    # An opening by minimum and maximum, which scipy does an axis at a time.
    shrunk = ndimage.minimum_filter(bright_enough, (1, 5, 5), mode="constant")
    body = ndimage.maximum_filter(shrunk, (1, 5, 5), mode="constant")
    body = _between(body, 1) & _between(body, 2)
    reach = np.maximum(np.ceil(MARGIN_MM / spacing), 1).astype(int)
    near = ndimage.maximum_filter(body, (1, *(2 * reach + 1)))
    air = planes[~near]
    if air.size < LEAST_AIR * planes.size or not body.any() or float((air == 0).mean()) > 0.5:
        return None
    level = max(percentile(planes[body], 50), 1e-6)
    whole = ndimage.minimum_filter(~near, (1, GRAIN, GRAIN))
    if not whole.any():
        return None
    squares = ndimage.uniform_filter(planes, (1, GRAIN, GRAIN))[whole]
    middle = percentile(squares, 50)  # bright specks, as of skin, are no ghosts
    if middle > DARK * level:
        return None
    # Noise alone is Rayleigh distributed where there is no signal (mean 1.25 of its sigma). Where coils or a scanner's
    # filters make it another in the air than in the body, the darker parts of the air say how bright empty air is.
    empty = min(percentile(squares, 25), float(np.sqrt(np.pi / 2)) * sigma)
    return max(middle - empty, 0.0) / level


def _between(body: NDArray[np.bool_], axis: int) -> NDArray[np.bool_]:
    """What has body on both sides of it along `axis`."""
    ahead = np.maximum.accumulate(body, axis=axis)
    behind = np.flip(np.maximum.accumulate(np.flip(body, axis), axis=axis), axis)
    return ahead & behind


def motion(image: Volume) -> float | None:
    """mm, in the plane of the slices: a patient who moved between the two passes of an interleaved stack shows as
    slices that all lie beside the middle of their neighbours. None for fewer than five slices."""
    factors = np.maximum(np.round(LOOK_MM / image.spacing), 1).astype(int)
    factors[0] = max(int(LOOK_MM // image.spacing[0]), 1)
    small = block_mean(image, np.minimum(factors, image.array.shape))
    slices, height, width = small.array.shape
    if slices < 5 or min(height, width) < 16:
        return None
    window = np.hanning(height)[:, None] * np.hanning(width)
    bright = percentile(small.array, 90)
    if bright <= 0:
        return None
    planes = np.log1p(np.maximum(small.array, 0) / bright * 4)
    spectra = np.fft.rfft2((planes - planes.mean(axis=(1, 2), keepdims=True)) * window)
    low = np.exp(-((np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)) / 0.18) ** 2))
    moved = []
    for k in range(1, slices - 1):
        cross = spectra[k] * np.conj(0.5 * (spectra[k - 1] + spectra[k + 1]))
        peak = np.fft.irfft2(cross / np.maximum(np.abs(cross), 1e-9) * low, (height, width))
        moved.append(_shift(peak, small.spacing[1:]))
    return float(np.median(moved))


def _shift(peak: NDArray[np.float64], spacing: NDArray[np.float64]) -> float:
    """mm from the origin to the highest place of a correlation within LONGEST_MM, to a fraction of a voxel."""
    reach = np.maximum((LONGEST_MM / spacing).astype(int), 1)
    reach = np.minimum(reach, (np.array(peak.shape) - 3) // 2)
    around = np.roll(peak, reach + 1, axis=(0, 1))[: 2 * reach[0] + 3, : 2 * reach[1] + 3]
    at = np.unravel_index(int(around[1:-1, 1:-1].argmax()), (2 * reach[0] + 1, 2 * reach[1] + 1))
    y, x = int(at[0]) + 1, int(at[1]) + 1

    def fine(before: float, top: float, after: float) -> float:
        bend = before - 2 * top + after
        return 0.5 * (before - after) / bend if bend < 0 else 0.0

    dy = y - reach[0] - 1 + fine(around[y - 1, x], around[y, x], around[y + 1, x])
    dx = x - reach[1] - 1 + fine(around[y, x - 1], around[y, x], around[y, x + 1])
    return float(np.hypot(dy * spacing[0], dx * spacing[1]))
