"""NRRD masks, 3D Slicer's .seg.nrrd included; SimpleITK gives positions in LPS."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from tasks.annotate.drawn import check_affine, check_size, label_of
from tasks.domain.errors import BadInput

SUFFIXES = (".nrrd", ".nhdr")


def read(path: Path, label: str) -> tuple[NDArray, NDArray[np.float64], int | None]:
    """((D, H, W) values, affine to LPS mm, the value of `label` where the file itself names its segments)."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        size = reader.GetSize()
        check_size(*size, reader.GetNumberOfComponents())
        if len(size) != 3:
            raise BadInput("not_a_volume", f"has {len(size)} dimensions; a mask has 3")
        image = reader.Execute()
    except RuntimeError:
        raise BadInput("damaged", "cannot be read as NRRD") from None
    values = sitk.GetArrayFromImage(image)
    segments = _segments(reader)
    wanted = next((s for s in segments if s["label"] == label), None)
    if segments and wanted is None:
        raise BadInput("no_known_segment", f"names no segment as {label}")
    if values.ndim == 4:  # overlapping segments stand in layers
        values = values[..., wanted["layer"] if wanted else 0]
    direction = np.array(image.GetDirection()).reshape(3, 3)
    affine = np.eye(4)
    affine[:3, :3] = (direction * np.array(image.GetSpacing()))[:, ::-1]  # (i, j, k) of the file -> (d, h, w)
    affine[:3, 3] = image.GetOrigin()
    check_affine(affine)
    return values, affine, wanted["value"] if wanted else None


def _segments(reader: sitk.ImageFileReader) -> list[dict]:
    keys = set(reader.GetMetaDataKeys())
    found = []
    for n in range(1000):
        if f"Segment{n}_LabelValue" not in keys:
            break
        names = [reader.GetMetaData(key) for key in (f"Segment{n}_Name", f"Segment{n}_Tags") if key in keys]
        layer = int(reader.GetMetaData(f"Segment{n}_Layer")) if f"Segment{n}_Layer" in keys else 0
        value = int(reader.GetMetaData(f"Segment{n}_LabelValue"))
        found.append({"label": label_of(*names), "layer": layer, "value": value})
    return found
