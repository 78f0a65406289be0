"""Small DICOM files written by pydicom, for tests of arrival."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def dataset(
    study: str = "1.2.3.1",
    series: str = "1",
    number: int = 1,
    patient: str = "PAT-1",
    step: float = 4.0,
    orientation: tuple[float, ...] = CORONAL,
    **changes: Any,
) -> Dataset:
    """One MR slice of 8 x 8 pixels: instance `number` of a stack with `step` mm between slices. `changes` by keyword;
    None removes."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = MRImageStorage
    ds.SOPInstanceUID = f"{study}.{series}.{number}"
    ds.StudyInstanceUID = study
    ds.SeriesInstanceUID = f"{study}.{series}"
    ds.PatientID = patient
    ds.PatientName = f"Doe^{patient}"
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = "20240309"
    ds.Modality = "MR"
    ds.InstanceNumber = number
    ds.ImageOrientationPatient = list(orientation)
    normal = np.cross(orientation[:3], orientation[3:])
    ds.ImagePositionPatient = [round(float(v), 4) for v in normal * step * (number - 1)]
    ds.Rows = ds.Columns = 8
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation, ds.SamplesPerPixel = 15, 0, 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.PixelData = (np.arange(64, dtype="<u2") + number).tobytes()
    for name, value in changes.items():
        if value is None:
            delattr(ds, name)
        else:
            setattr(ds, name, value)
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.get("SOPInstanceUID", "1.2.3")
    return ds


def encoded(ds: Dataset) -> bytes:
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def dicom(*args: Any, **kwargs: Any) -> bytes:
    """`dataset`, as the bytes of a Part 10 file."""
    return encoded(dataset(*args, **kwargs))


def stack(study: str = "1.2.3.1", slices: int = 5, **kwargs: Any) -> list[bytes]:
    """A whole series."""
    return [dicom(study=study, number=number, **kwargs) for number in range(1, slices + 1)]


def write_tree(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder
