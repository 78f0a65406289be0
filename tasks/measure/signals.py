"""Signal in and around the head: oedema, effusion, enhancement. Normalized intensities in, fractions of 1 out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tasks.measure.shapes import Mask, Spacing, Sphere

Image = NDArray[np.float32]

_NECK = np.array([0.0, np.sqrt(0.5), np.sqrt(0.5)])
"""Direction of the neck from the head's centre: inferior and lateral alike (neck-shaft angle about 135 degrees)."""


def zones(shape: tuple[int, ...], sphere: Sphere, spacing: Spacing) -> tuple[NDArray, NDArray]:
    """For every voxel: distance from the head's centre as a fraction of its radius, and cosine to the neck's axis."""
    axes = np.meshgrid(*[np.arange(n) * s for n, s in zip(shape, spacing, strict=True)], indexing="ij", sparse=True)
    d, h, w = (a - c for a, c in zip(axes, sphere.centre, strict=True))
    distance = np.sqrt(d**2 + h**2 + w**2)
    towards = (d * _NECK[0] + h * _NECK[1] + w * _NECK[2]) / np.maximum(distance, 1e-6)
    return distance / sphere.radius, towards


def oedema(fluid: Image, lesion: Mask, sphere: Sphere, spacing: Spacing, level: float) -> float:
    """Fraction of the marrow of head and neck, lesion left out with a rim of 2 mm, that is bright on fluid series."""
    from scipy.ndimage import binary_dilation

    far, towards = zones(fluid.shape, sphere, spacing)
    marrow = (far < 0.85) | ((far < 1.5) & (towards > 0.9))
    rim = max(1, round(2.0 / float(spacing[1])))
    outside = marrow & ~binary_dilation(lesion, np.ones((1, 3, 3), dtype=bool), iterations=rim)
    return float((fluid[outside] > level).mean()) if outside.sum() > 100 else float("nan")


def effusion(fluid: Image, sphere: Sphere, spacing: Spacing, level: float) -> float:
    """Fraction of the shell up to a quarter radius outside the head, the neck left out, that is bright."""
    far, towards = zones(fluid.shape, sphere, spacing)
    shell = (far > 1.02) & (far < 1.25) & (towards < 0.7)
    return float((fluid[shell] > level).mean()) if shell.sum() > 100 else float("nan")


def enhancement(contrast: Image, region: Mask, level: float) -> float:
    """Fraction of the region that is brighter than `level` on the contrast series."""
    return float((contrast[region] > level).mean()) if region.sum() > 100 else float("nan")
