"""NIfTI masks: RAS to LPS in one place, the geometry taken only where the file states it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray

from tasks.annotate.drawn import check_affine, check_size
from tasks.domain.errors import BadInput
from tasks.domain.volume import LPS_TO_RAS

SUFFIXES = (".nii", ".nii.gz")


def read(path: Path) -> tuple[NDArray, NDArray[np.float64]]:
    """((D, H, W) values, affine to LPS mm) of a 3D NIfTI file."""
    try:
        image: Any = nibabel.load(path)
        shape = tuple(n for n in image.shape if n != 1) if len(image.shape) > 3 else image.shape
        if len(shape) != 3:
            raise BadInput("not_a_volume", f"has {len(image.shape)} dimensions; a mask has 3")
        check_size(*shape)
        if int(image.header["sform_code"]) == 0 and int(image.header["qform_code"]) == 0:
            raise BadInput("bad_geometry", "states no position in the patient (sform and qform are 0)")
        units = {"meter": 1000.0, "micron": 0.001}.get(image.header.get_xyzt_units()[0], 1.0)
        values = np.asarray(image.dataobj).reshape(shape)
    except (ImageFileError, OSError, EOFError, ValueError, KeyError, IndexError) as error:
        raise BadInput("damaged", f"cannot be read as NIfTI ({type(error).__name__})") from None
    affine = LPS_TO_RAS @ np.asarray(image.affine, dtype=np.float64)
    affine[:3] *= units
    affine = affine[:, [2, 1, 0, 3]]  # (i, j, k) of the file -> (d, h, w)
    check_affine(affine)
    return np.transpose(values, (2, 1, 0)), affine
