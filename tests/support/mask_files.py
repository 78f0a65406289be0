"""Mask files as other programs write them: SEG by highdicom, RTSTRUCT, NIfTI by nibabel, NRRD by SimpleITK."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import highdicom as hd
import nibabel
import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage, generate_uid

from tasks.domain.volume import LPS_TO_RAS, Volume


def seg(
    path: Path,
    images: list[Dataset],
    volume: Volume,
    masks: list[tuple[str, NDArray]],
    kind: str = "BINARY",
    reader: str = "Reader^Anna",
    **changes: Any,
) -> Path:
    """`masks` are (segment label, bool or float array) on the grid of `volume`, which need not be that of `images`."""
    descriptions = [
        hd.seg.SegmentDescription(n, label, codes.SCT.Tissue, codes.SCT.Organ, hd.seg.SegmentAlgorithmTypeValues.MANUAL)
        for n, (label, _) in enumerate(masks, 1)
    ]
    if kind == "LABELMAP":
        array = np.zeros(volume.array.shape, dtype=np.uint8)
        for n, (_, mask) in enumerate(masks, 1):
            array[mask.astype(bool)] = n
    else:
        array = np.stack([mask for _, mask in masks], axis=-1).astype(np.float32 if kind == "FRACTIONAL" else np.uint8)
    system = hd.CoordinateSystemNames.PATIENT
    frame = images[0].FrameOfReferenceUID
    segmentation = hd.seg.Segmentation(
        source_images=images, pixel_array=hd.Volume(array, volume.affine, system, frame_of_reference_uid=frame,
                                                    channels={"SegmentNumber": list(range(1, len(masks) + 1))}
                                                    if array.ndim == 4 else None),
        segmentation_type=kind, segment_descriptions=descriptions, series_instance_uid=generate_uid(),
        series_number=9, sop_instance_uid=generate_uid(), instance_number=1, manufacturer="m",
        manufacturer_model_name="m", software_versions="1", device_serial_number="1", content_creator_name=reader,
        omit_empty_frames=True,
    )  # fmt: skip
    for name, value in changes.items():
        setattr(segmentation, name, value)
    segmentation.save_as(path)
    return path


def rtstruct(
    path: Path, image: Dataset, structures: list[tuple[str, list[NDArray]]], interpreter: str = "Reader^Anna"
) -> Path:
    """`structures` are (name, closed contours as (N, 3) LPS mm)."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = RTStructureSetStorage
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = generate_uid()
    ds.PatientID, ds.PatientName, ds.Modality = image.PatientID, image.PatientName, "RTSTRUCT"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = image.StudyInstanceUID, generate_uid()
    series = item(SeriesInstanceUID=image.SeriesInstanceUID)
    study = item(ReferencedSOPInstanceUID=image.StudyInstanceUID, RTReferencedSeriesSequence=[series])
    frame = item(FrameOfReferenceUID=image.FrameOfReferenceUID, RTReferencedStudySequence=[study])
    ds.ReferencedFrameOfReferenceSequence = [frame]
    ds.StructureSetROISequence, ds.ROIContourSequence, ds.RTROIObservationsSequence = [], [], []
    for n, (name, contours) in enumerate(structures, 1):
        roi = item(ROINumber=n, ROIName=name, ReferencedFrameOfReferenceUID=image.FrameOfReferenceUID)
        ds.StructureSetROISequence.append(roi)
        parts = [
            item(
                ContourGeometricType="CLOSED_PLANAR", NumberOfContourPoints=len(points),
                ContourData=[f"{value:.4f}" for value in points.ravel()],
            )
            for points in contours
        ]  # fmt: skip
        ds.ROIContourSequence.append(item(ReferencedROINumber=n, ContourSequence=parts))
        ds.RTROIObservationsSequence.append(item(ReferencedROINumber=n, ROIInterpreter=interpreter))
    pydicom.dcmwrite(path, ds, enforce_file_format=True)
    return path


def item(**values: Any) -> Dataset:
    ds = Dataset()
    for name, value in values.items():
        setattr(ds, name, value)
    return ds


def nifti(path: Path, volume: Volume, array: NDArray, affine: NDArray | None = None) -> Path:
    """`affine` (of the file, RAS) replaces the true one."""
    ras = LPS_TO_RAS @ volume.affine[:, [2, 1, 0, 3]]
    image = nibabel.Nifti1Image(np.transpose(array, (2, 1, 0)).astype(np.uint8), ras if affine is None else affine)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)
    return path


def nrrd(path: Path, volume: Volume, array: NDArray, **meta: str) -> Path:
    image = sitk.GetImageFromArray(array.astype(np.uint8), isVector=array.ndim == 4)
    image.SetSpacing([float(v) for v in volume.spacing[::-1]])
    image.SetDirection((volume.affine[:3, :3] / volume.spacing)[:, ::-1].ravel().tolist())
    image.SetOrigin(volume.affine[:3, 3].tolist())
    for name, value in meta.items():
        image.SetMetaData(name, value)
    sitk.WriteImage(image, str(path), useCompression=True)
    return path
