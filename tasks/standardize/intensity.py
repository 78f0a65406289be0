"""Brightness that means the same in every scanner."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tasks.domain.volume import Volume
from tasks.standardize.balls import block_mean, percentile
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
    return values, values[values > 0.1 * percentile(values, 99)]


def unit(body: NDArray[np.float32], level: Level) -> float:
    """The intensity that becomes 1."""
    return max(percentile(body, level.percentile), 1e-6) / level.value if len(body) else 1.0


def unbiased(volume: Volume, params: N4) -> Volume:
    """The volume without the slow field of its coils: N4's sharpening of the histogram (Sled 1998, Tustison 2010), with
    a field of polynomials fitted by least squares where N4 has B-splines: SimpleITK's N4 takes seconds to a minute for
    what this does in a tenth of one."""
    factors = np.maximum(np.round(params.block_mm / volume.spacing), 1).astype(int)
    coarse = block_mean(volume, np.minimum(factors, volume.array.shape))
    body = coarse.array > 0.1 * percentile(coarse.array, 97)
    if body.sum() < 200:
        return volume
    whole = polynomials(coarse.array.shape, params.order)
    basis = whole[body.ravel()]
    # A ridge, so that corners of which the body shows little do not run away.
    fit = np.linalg.solve(basis.T @ basis + params.ridge * len(basis) * np.eye(basis.shape[1]), basis.T)
    seen = np.log(coarse.array[body])
    weights = np.zeros(basis.shape[1])
    for _ in range(params.iterations):
        flat = seen - basis @ weights
        step = fit @ (flat - sharpened(flat, params.width))
        weights += step
        if float(np.abs(basis[::7] @ step).max()) < params.converged:
            break
    field = (whole @ weights).reshape(coarse.array.shape)
    inverse = Volume(np.exp(-(field - field[body].mean())).astype(np.float32), coarse.affine)
    return Volume(
        volume.array.astype(np.float32) * resample(inverse, volume.affine, volume.array.shape, edge=True), volume.affine
    )


def polynomials(shape: tuple[int, ...], order: int) -> NDArray[np.float64]:
    """(voxels, terms): products of Legendre polynomials along the three axes up to `order`, without the constant."""
    axes = [np.polynomial.legendre.legvander(np.linspace(-1, 1, n), order) for n in shape]
    terms = [
        np.einsum("i,j,k->ijk", axes[0][:, a], axes[1][:, b], axes[2][:, c]).ravel()
        for a in range(order + 1)
        for b in range(order + 1 - a)
        for c in range(order + 1 - a - b)
        if a + b + c
    ]
    return np.stack(terms, axis=1)


def sharpened(logs: NDArray[np.float64], width: float) -> NDArray[np.float64]:
    """What each value is expected to be without a field that blurs the histogram by a Gaussian of FWHM `width`."""
    low, high = float(logs.min()), float(logs.max())
    bins = 200
    step = max(high - low, 1e-6) / (bins - 1)
    at = (logs - low) / step
    below = np.minimum(at.astype(int), bins - 2)
    share = at - below
    counts = np.bincount(below, 1 - share, bins) + np.bincount(below + 1, share, bins)
    size = 512
    sigma = width / 2.355 / step
    places = np.minimum(np.arange(size), size - np.arange(size))
    blur = np.exp(-0.5 * (places / sigma) ** 2)
    blur /= blur.sum()
    transfer = np.fft.rfft(blur).real
    padded = np.zeros(size)
    padded[156 : 156 + bins] = counts
    sharp = np.maximum(np.fft.irfft(np.fft.rfft(padded) * transfer / (transfer**2 + 0.01), size), 0)
    values = low + (np.arange(size) - 156) * step

    def blurred(what: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.fft.irfft(np.fft.rfft(what) * transfer, size)

    expected = blurred(sharp * values) / np.maximum(blurred(sharp), 1e-9 * sharp.sum())
    return np.interp(logs, values, expected)
