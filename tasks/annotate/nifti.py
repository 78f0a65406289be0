"""NIfTI masks: RAS to LPS in one place, the geometry taken only where the file states it."""

from __future__ import annotations

import zlib
from itertools import product
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from tasks.annotate.drawn import check_affine, check_size
from tasks.domain.errors import BadInput
from tasks.domain.volume import LPS_TO_RAS

SUFFIXES = (".nii", ".nii.gz")

FORMS_MM = 1.0
"""A file's two statements of its position (sform and qform) may differ by this much at a corner."""


def read(path: Path, value: int | None) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """(bool (D, H, W): where `value` stands, or anything but 0; affine to LPS mm) of a 3D NIfTI file."""
    try:
        image: Any = nibabel.load(path)
        shape = tuple(n for n in image.shape if n != 1) if len(image.shape) > 3 else image.shape
        if len(shape) != 3:
            raise BadInput("not_a_volume", f"has {len(image.shape)} dimensions; a mask has 3")
        if image.get_data_dtype().kind not in "biuf":
            raise BadInput("not_a_mask", "holds colours or complex numbers; a mask holds numbers")
        check_size(*shape, item=image.get_data_dtype().itemsize)
        units = {"meter": 1000.0, "micron": 0.001}.get(image.header.get_xyzt_units()[0], 1.0)
        _one_position(image, shape, units)
        values = np.asarray(image.dataobj).reshape(shape)
    except (
        ImageFileError,
        HeaderDataError,
        OSError,
        EOFError,
        ValueError,
        LookupError,
        ArithmeticError,
        zlib.error,
    ) as error:
        raise BadInput("damaged", f"cannot be read as NIfTI ({type(error).__name__})") from None
    affine = LPS_TO_RAS @ np.asarray(image.affine, dtype=np.float64)
    affine[:3] *= units
    affine = affine[:, [2, 1, 0, 3]]  # (i, j, k) of the file -> (d, h, w)
    check_affine(affine)
    array = values > 0.5 if value is None else np.abs(values - float(value)) < 0.5
    return np.transpose(array, (2, 1, 0)), affine


def _one_position(image: Any, shape: tuple[int, ...], units: float) -> None:
    """Raises BadInput when the file says nowhere, or says two things about, where in the patient it lies."""
    forms = (("sform_code", image.get_sform), ("qform_code", image.get_qform))
    said = [form() for code, form in forms if int(image.header[code])]
    if not said:
        raise BadInput("bad_geometry", "states no position in the patient (sform and qform are 0)")
    corners = np.array([(*corner, 1.0) for corner in product(*[(0, n - 1) for n in shape])])
    apart = float(np.linalg.norm(corners @ (said[0] - said[-1]).T, axis=1).max()) * units
    if not apart <= FORMS_MM:
        raise BadInput("two_positions", f"its sform and its qform are {apart:.1f} mm apart; keep one of them")
