"""The geometry of a lesion: a ball around a point of the head's surface, and how readers describe it.

In the hip's own space (x lateral, y posterior, z superior) its axis leaves the head's centre `lateral` degrees lateral
and `anterior` degrees anterior of straight up; it covers the surface within `half_angle`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tasks.phantom.presets import WEIGHT_BEARING_DEG

JIC_EDGES = tuple(np.linspace(*WEIGHT_BEARING_DEG, 4)[1:])
"""Lateral margins, in degrees, that divide JIC A, B, C1 and C2."""


def arcs(
    half: NDArray[np.float64], lateral: NDArray[np.float64], anterior: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Degrees -> (coronal arc, sagittal arc, lateral margin in the midcoronal plane), degrees.

    A lesion that misses a plane has arc 0 there; one that misses the midcoronal plane has the margin of its edge
    nearest to it pulled medial of the weight-bearing zone, as a reader of that plane would see no lesion in it.
    """
    theta, phi, ant = np.deg2rad(half), np.deg2rad(lateral), np.deg2rad(anterior)
    coronal = np.arccos(np.clip(np.cos(theta) / np.cos(ant), -1, 1))
    reach = np.sqrt(np.sin(ant) ** 2 + (np.cos(phi) * np.cos(ant)) ** 2)
    sagittal = np.arccos(np.clip(np.cos(theta) / reach, -1, 1))
    margin = np.where(coronal > 0, np.rad2deg(phi + coronal), -90.0)
    return 2 * np.rad2deg(coronal), 2 * np.rad2deg(sagittal), margin


def lesion_fraction(half_angle: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of a unit ball inside a ball of chord radius c = 2 sin(half/2) centred on its surface (two caps)."""
    c = 2 * np.sin(np.deg2rad(half_angle) / 2)
    cut = c**2 / 2  # distance of the plane of intersection from the lesion's centre
    depth_head, depth_lesion = cut, c - cut
    caps = np.pi * depth_head**2 * (1 - depth_head / 3) + np.pi * depth_lesion**2 * (c - depth_lesion / 3)
    return np.asarray(caps / (4 * np.pi / 3))


def jic_type(margin: NDArray[np.float64], affected: NDArray[np.bool_]) -> NDArray[np.str_]:
    """Lateral margin in degrees -> "A" | "B" | "C1" | "C2"; "" for a hip without a lesion."""
    types = np.array(["A", "B", "C1", "C2"])[np.searchsorted(JIC_EDGES, margin)]
    return np.where(affected, types, "")
