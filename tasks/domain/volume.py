"""A volume: an array and where it is in the patient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""The one place that converts DICOM's LPS to NIfTI's RAS and back: `LPS_TO_RAS @ affine` (its own inverse)."""


@dataclass(frozen=True)
class Volume:
    """array: (D, H, W), any dtype. affine: 4x4, (d, h, w, 1) index of a voxel centre -> LPS position in mm."""

    array: NDArray
    affine: NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.array.ndim != 3 or self.affine.shape != (4, 4):
            raise ValueError(f"a Volume is (D, H, W) and 4x4, not {self.array.shape} and {self.affine.shape}")

    @property
    def spacing(self) -> NDArray[np.float64]:
        """(3,) mm between voxel centres along d, h, w."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    def to_lps(self, index: NDArray[np.float64]) -> NDArray[np.float64]:
        """(..., 3) voxel index (d, h, w) -> (..., 3) LPS mm."""
        return np.asarray(index) @ self.affine[:3, :3].T + self.affine[:3, 3]

    def to_index(self, lps: NDArray[np.float64]) -> NDArray[np.float64]:
        """(..., 3) LPS mm -> (..., 3) fractional voxel index (d, h, w)."""
        inverse = np.linalg.inv(self.affine)
        return np.asarray(lps) @ inverse[:3, :3].T + inverse[:3, 3]


@dataclass(frozen=True)
class Grid:
    """A fixed grid around a femoral head, axis aligned in hip space.

    Hip space is patient LPS in mm with its origin at the centre of the femoral head and, for right hips, x
    mirrored, so that +x is lateral in every hip. Arrays are (D, H, W): d runs anterior to posterior (+y),
    h superior to inferior (-z), w medial to lateral (+x).
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]

    def hip_affine(self) -> NDArray[np.float64]:
        """4x4: (d, h, w, 1) -> hip space (x lateral, y posterior, z superior) in mm."""
        depth, height, width = self.spacing
        affine = np.zeros((4, 4))
        affine[1, 0], affine[2, 1], affine[0, 2], affine[3, 3] = depth, -height, width, 1.0
        centre = (np.array(self.shape) - 1) / 2
        affine[:3, 3] = -affine[:3, :3] @ centre
        return affine

    def patient_affine(self, centre_lps: NDArray[np.float64], side: str) -> NDArray[np.float64]:
        """4x4: (d, h, w, 1) -> patient LPS mm for the hip of `side` (L or R) centred at `centre_lps`.

        In LPS +x is the patient's left: lateral is +x for a left hip and -x for a right one.
        """
        mirror = np.diag([1.0 if side == "L" else -1.0, 1.0, 1.0, 1.0])
        affine = mirror @ self.hip_affine()
        affine[:3, 3] += np.asarray(centre_lps, dtype=np.float64)
        return affine
