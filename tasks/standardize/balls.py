"""Balls found by votes: step 1 of `locate`. Intensities are logarithms of brightness; lengths are mm, places LPS."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tasks.domain.volume import Volume
from tasks.standardize.params import Localizer

VOTE_MM = 2.0
"""In-plane voxel, about, of the images that vote."""

SLICE_MM = 3.6
"""Thinner slices are averaged up to about this before they vote."""

CELL_MM = 4.0
"""Cell of the vote accumulators."""

RADIUS_STEP_MM = 2.0

VOTERS = 82.0
"""Percentile of the gradient above which a pixel votes."""

SMALLEST_CIRCLE_MM = 8.0
"""Radius of the smallest circle that votes are counted for; smaller cuts of a ball use it too."""

CANDIDATES, REFINED = 16, 6
"""Balls kept from the votes, and those of them that are refined."""

APART_MM = 15.0
"""Two candidates are at least this far apart."""

FLOOR = 0.06
"""Added to brightness (1 is the 97th percentile) before its logarithm: what is darker is noise."""

AIR = float(np.log(FLOOR + 0.09))


def view(volume: Volume) -> Volume:
    """log brightness, averaged to about VOTE_MM in plane and SLICE_MM through it, a little smoothed."""
    factors = np.maximum(np.round(VOTE_MM / volume.spacing), 1).astype(int)
    factors[0] = max(int(SLICE_MM // volume.spacing[0]), 1)
    coarse = block_mean(volume, np.minimum(factors, volume.array.shape))
    high = max(percentile(coarse.array[:, ::4, ::4], 97), 1e-9)
    logs = np.log(np.maximum(coarse.array, 0) * np.float32(1 / high) + np.float32(FLOOR))
    sigma = (0.0, *(0.5 * VOTE_MM / coarse.spacing[1:]))
    return Volume(ndimage.gaussian_filter(logs, sigma, truncate=2.5), coarse.affine)


def block_mean(volume: Volume, factors: NDArray[np.int_]) -> Volume:
    """Average blocks of `factors` voxels; what does not fill a block at the far end is left out."""
    fd, fh, fw = (int(f) for f in factors)
    d, h, w = (n // f for n, f in zip(volume.array.shape, (fd, fh, fw), strict=True))
    # Whole strided planes are added up: numpy's mean over short axes takes five times as long.
    array = np.zeros((d, h, w), np.float32)
    for i, j, k in np.ndindex(fd, fh, fw):
        array += volume.array[i : d * fd : fd, j : h * fh : fh, k : w * fw : fw]
    array *= np.float32(1 / (fd * fh * fw))
    affine = volume.affine.copy()
    affine[:3, 3] = volume.to_lps((np.array([fd, fh, fw]) - 1) / 2)
    affine[:3, :3] = volume.affine[:3, :3] * [fd, fh, fw]
    return Volume(array, affine)


def percentile(values: NDArray, share: float) -> float:
    """The value that `share` percent lie below: one that is there. numpy interpolates, for ten times the price."""
    k = round(share / 100 * (values.size - 1))
    return float(np.partition(values, k, axis=None)[k])


def voted(seen: Volume, sign: int, params: Localizer) -> Votes | None:
    """Every strong edge votes along its gradient; None where the slices are too small."""
    thin = [2 if spacing < 0.85 * VOTE_MM else 1 for spacing in seen.spacing[1:]]  # `view` has smoothed it
    array, spacing = seen.array[:, :: thin[0], :: thin[1]], seen.spacing * [1, *thin]
    slices, height, width = array.shape
    if height < 8 or width < 8:
        return None
    circle_radii = np.arange(SMALLEST_CIRCLE_MM, params.radius_mm[1] + RADIUS_STEP_MM, RADIUS_STEP_MM)
    gy, gx = np.gradient(array, spacing[1], axis=1), np.gradient(array, spacing[2], axis=2)
    size = np.hypot(gy, gx)
    floor = max(percentile(size[:, ::2, ::2], VOTERS), 1e-6)
    s, y, x = np.nonzero(size > floor)
    strength = size[s, y, x]
    weight = np.minimum(strength / (2 * floor), 1.0)
    uy, ux = (sign / CELL_MM) * gy[s, y, x] / strength, (sign / CELL_MM) * gx[s, y, x] / strength
    rows, columns = int(np.ceil(height * spacing[1] / CELL_MM)), int(np.ceil(width * spacing[2] / CELL_MM))
    py, px = (
        (y * (spacing[1] / CELL_MM) + 0.5).astype(np.float32),
        (x * (spacing[2] / CELL_MM) + 0.5).astype(np.float32),
    )
    circles = np.zeros((len(circle_radii), slices, rows, columns), np.float32)
    for j, radius in enumerate(circle_radii):
        cy, cx = np.floor(py + radius * uy).astype(np.int32), np.floor(px + radius * ux).astype(np.int32)
        flat = (s * rows + cy) * columns + cx
        ok = (cy >= 0) & (cy < rows) & (cx >= 0) & (cx < columns)
        found = np.bincount(flat[ok], weight[ok], slices * rows * columns)
        circles[j] = found.reshape(slices, rows, columns)
    circles = box3(box3(circles, 2), 3)
    ball_radii = np.arange(params.radius_mm[0] + 1.5, params.radius_mm[1] + 0.1, RADIUS_STEP_MM)
    middles = np.arange(2 * slices - 1) / 2
    score = np.zeros((len(ball_radii), len(middles), rows, columns), np.float32)
    pixel = float(spacing[1:].mean())
    for i, radius in enumerate(ball_radii):
        for c, middle in enumerate(middles):
            far = (np.arange(slices) - middle) * spacing[0]
            cut = np.flatnonzero(np.abs(far) < 0.9 * radius)
            circle = np.sqrt(radius**2 - far[cut] ** 2)
            bins = np.clip(np.round((circle - circle_radii[0]) / RADIUS_STEP_MM), 0, None).astype(int)
            score[i, c] = circles[bins, cut].sum(axis=0)
            # The whole edge that slices could show; a ball that leaves the stack is not let off for what is missing.
            whole = 2 * np.pi * radius * 0.8 * (1.8 * radius / spacing[0]) / pixel
            score[i, c] /= max(2 * np.pi * float(circle.sum()) / pixel, 0.6 * whole)
    return Votes(score, ball_radii, seen)


@dataclass(frozen=True)
class Votes:
    """score: (radii, 2 x slices - 1, rows, columns) votes for a ball of each of `radii` mm centred in each cell, as a
    share of the edge that the slices could show of it; `place` is the LPS place of the cells' middles."""

    score: NDArray[np.float32]
    radii: NDArray[np.float64]
    seen: Volume

    @property
    def step(self) -> NDArray[np.float64]:
        return np.array([self.seen.spacing[0] / 2, CELL_MM, CELL_MM])

    @property
    def across(self) -> NDArray[np.float64]:
        """LPS x of the cells' middles, of the shape of one radius' votes."""
        c, row, column = (np.arange(n) * step for n, step in zip(self.score.shape[1:], self.step, strict=True))
        axes = self.seen.affine[0, :3] / self.seen.spacing
        start = self.place((0, 0, 0))[0]
        return start + axes[0] * c[:, None, None] + axes[1] * row[:, None] + axes[2] * column

    def place(self, cell: tuple[int, ...]) -> NDArray[np.float64]:
        # Cells count from the corner of the first voxel, voxels from its centre.
        at = (np.array(cell) + [0.0, 0.5, 0.5]) * self.step - [0.0, 0.5 * CELL_MM, 0.5 * CELL_MM]
        return self.seen.affine[:3, 3] + (self.seen.affine[:3, :3] / self.seen.spacing) @ at


def balls(votes: Votes | None, count: int = CANDIDATES) -> list[tuple[NDArray[np.float64], float]]:
    """(centre LPS, radius) of the balls with most votes for their size."""
    if votes is None:
        return []
    best = votes.score.max(axis=0)
    reach = np.ceil(APART_MM / votes.step).astype(int)
    answer = []
    for _ in range(count):
        c, row, column = (int(i) for i in np.unravel_index(int(best.argmax()), best.shape))
        if best[c, row, column] <= 0:
            break
        answer.append((votes.place((c, row, column)), float(votes.radii[int(votes.score[:, c, row, column].argmax())])))
        best[tuple(slice(max(p - n, 0), p + n + 1) for p, n in zip((c, row, column), reach, strict=True))] = 0
    return answer


def box3(values: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Mean of each value and its two neighbours along `axis`; zero beyond the ends."""
    total, along = values.copy(), [slice(None)] * values.ndim
    ahead, behind = list(along), list(along)
    ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
    total[tuple(behind)] += values[tuple(ahead)]
    total[tuple(ahead)] += values[tuple(behind)]
    return total * np.float32(1 / 3)
