"""JPEG of ISO 10918 in DICOM: lossless (the commonest compression of an archive) and 12 bits. pydicom's own decoders
for it are not among this project's packages; GDCM, which SimpleITK carries, reads them. GDCM reads files alone, so it
gets one that lives in memory and holds the pixels and nothing else."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import SecondaryCaptureImageStorage, generate_uid

SYNTAXES = {
    "1.2.840.10008.1.2.4.50": "JPEG baseline",
    "1.2.840.10008.1.2.4.51": "JPEG extended",
    "1.2.840.10008.1.2.4.57": "JPEG lossless",
    "1.2.840.10008.1.2.4.70": "JPEG lossless, first order",
}

_PIXELS = (
    "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "NumberOfFrames", "PixelData",
)  # fmt: skip


def decode(dataset: Dataset) -> NDArray:
    """(rows, columns) or (frames, rows, columns) as stored; raises RuntimeError where GDCM cannot."""
    known = getattr(dataset, "_osteoflow_pixels", None)
    if known is not None:
        return known
    import SimpleITK as sitk

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    bare = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    bare.SOPClassUID, bare.SOPInstanceUID = SecondaryCaptureImageStorage, meta.MediaStorageSOPInstanceUID
    bare.SamplesPerPixel, bare.PhotometricInterpretation = 1, "MONOCHROME2"
    for name in _PIXELS:
        if name in dataset:
            bare[name] = dataset[name]
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, bare)
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    with _in_memory(buffer.getvalue()) as path:
        reader.SetFileName(path)
        array = sitk.GetArrayFromImage(reader.Execute())
    array = array[0] if array.ndim == 3 and len(array) == 1 else array
    if np.issubdtype(array.dtype, np.floating):
        raise RuntimeError("not integers")
    dataset._osteoflow_pixels = array
    return array


@contextmanager
def _in_memory(data: bytes) -> Iterator[str]:
    """The path of a file that is nowhere on a disk."""
    handle = os.memfd_create("pixels")
    try:
        os.write(handle, data)
        yield f"/proc/self/fd/{handle}"
    finally:
        os.close(handle)
