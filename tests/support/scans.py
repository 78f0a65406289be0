"""Volumes written as DICOM, classic and enhanced, with the physics of the three roles and room for every fault."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from tasks.domain.volume import Volume

CLASSIC, ENHANCED = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1"
PHYSICS: dict[str, dict[str, Any]] = {
    "t1": {"RepetitionTime": 560, "EchoTime": 11, "MRAcquisitionType": "2D", "ScanOptions": "SP"},
    "fluid": {"RepetitionTime": 4200, "EchoTime": 50, "InversionTime": 160, "MRAcquisitionType": "2D"},
    "contrast": {
        "RepetitionTime": 5.2, "EchoTime": 2.4, "MRAcquisitionType": "3D", "ScanOptions": "FS",
        "ContrastBolusAgent": "",
    },
}  # fmt: skip

Entries = list[tuple[str, bytes]]


def uid(*parts: object) -> str:
    return generate_uid(entropy_srcs=[str(part) for part in parts])


def head(study: str, series: str, sop: str, kind: str, **more: Any) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = kind, sop
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = kind, sop
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.PatientID = study, series, "OFTEST"
    dataset.Modality, dataset.Manufacturer, dataset.SeriesDescription = "MR", "TEST", "LEFT SHOULDER LOCALIZER"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "M"]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    for name, value in more.items():
        setattr(dataset, name, value)
    return dataset


def classic(
    volume: Volume,
    role: str,
    study: str = "1.2.3",
    *,
    name: str = "",
    frame: str = "1.2.9",
    change: Callable[[int, FileDataset], FileDataset | None] = lambda number, dataset: dataset,
    **more: Any,
) -> Entries:
    """One file a slice. `change` may alter a slice's dataset, or drop it (None). InstanceNumber runs at random."""
    series = uid(study, role, name)
    numbers = np.random.default_rng(5).permutation(len(volume.array))
    entries = []
    for k, plane in enumerate(volume.array):
        dataset = head(study, series, uid(series, k), CLASSIC, **(PHYSICS[role] | more))
        dataset.FrameOfReferenceUID = frame
        dataset.InstanceNumber = int(numbers[k])
        place(dataset, dataset, dataset, volume, k)
        dataset.Rows, dataset.Columns = plane.shape
        dataset.PixelData = plane.astype("<u2").tobytes()
        changed = change(k, dataset)
        if changed is not None:
            entries.append((f"{series}/{changed.SOPInstanceUID}.dcm", data_of(changed)))
    return entries


def enhanced(volume: Volume, role: str, study: str = "1.2.3", *, frame: str = "1.2.9", scale: float = 1.0) -> Entries:
    """One multi-frame file whose frames are in random order, timing shared, places and rescale per frame."""
    series = uid(study, role, "enhanced")
    physics = PHYSICS[role]
    dataset = head(study, series, uid(series), ENHANCED, MRAcquisitionType=physics["MRAcquisitionType"])
    dataset.FrameOfReferenceUID = frame
    shared, timing, echo = Dataset(), Dataset(), Dataset()
    timing.RepetitionTime, echo.EffectiveEchoTime = physics["RepetitionTime"], physics["EchoTime"]
    shared.MRTimingAndRelatedParametersSequence, shared.MREchoSequence = Sequence([timing]), Sequence([echo])
    modifier = Dataset()
    modifier.InversionRecovery = "YES" if "InversionTime" in physics else "NO"
    if "InversionTime" in physics:
        modifier.InversionTimes = [physics["InversionTime"]]
    modifier.SpectrallySelectedSuppression = "FAT" if physics.get("ScanOptions") == "FS" else "NONE"
    shared.MRModifierSequence = Sequence([modifier])
    if "ContrastBolusAgent" in physics:
        dataset.ContrastBolusAgentSequence = Sequence([Dataset()])
    order = np.random.default_rng(6).permutation(len(volume.array))
    frames = []
    for k in order:
        groups, position, orientation, measures, transform = (Dataset() for _ in range(5))
        place(position, orientation, measures, volume, int(k))
        transform.RescaleSlope, transform.RescaleIntercept, transform.RescaleType = scale, 0, "US"
        groups.PlanePositionSequence = Sequence([position])
        groups.PlaneOrientationSequence = Sequence([orientation])
        groups.PixelMeasuresSequence = Sequence([measures])
        groups.PixelValueTransformationSequence = Sequence([transform])
        frames.append(groups)
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    dataset.PerFrameFunctionalGroupsSequence = Sequence(frames)
    dataset.NumberOfFrames = len(frames)
    dataset.Rows, dataset.Columns = volume.array.shape[1:]
    dataset.PixelData = (volume.array[order] / scale).round().astype("<u2").tobytes()
    return [(f"{series}/{dataset.SOPInstanceUID}.dcm", data_of(dataset))]


def place(position: Dataset, orientation: Dataset, measures: Dataset, volume: Volume, number: int) -> None:
    affine, spacing = volume.affine, volume.spacing
    position.ImagePositionPatient = [f"{v:.6f}" for v in volume.to_lps(np.array([number, 0, 0]))]
    axes = np.concatenate([affine[:3, 2] / spacing[2], affine[:3, 1] / spacing[1]])
    orientation.ImageOrientationPatient = [f"{v:.8f}" for v in axes]
    measures.PixelSpacing = [f"{spacing[1]:.6f}", f"{spacing[2]:.6f}"]
    measures.SliceThickness = f"{spacing[0] * 0.9:.3f}"


def data_of(dataset: FileDataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
