"""Volumes written as DICOM the way that scanners of several makers write them, faults included. Shares nothing with
`scans` or tasks/phantom. A dialect is a table of what it says where; `written` turns a volume into files."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from tasks.domain.volume import Volume

Files = list[tuple[str, bytes]]

TIMES: dict[str, dict[str, Any]] = {
    "t1": {"RepetitionTime": 520, "EchoTime": 14, "MRAcquisitionType": "2D"},
    "stir": {"RepetitionTime": 3900, "EchoTime": 34, "InversionTime": 150, "MRAcquisitionType": "2D"},
    "t2fs": {"RepetitionTime": 3600, "EchoTime": 62, "MRAcquisitionType": "2D", "ScanOptions": ["SFS", "FS"]},
    "post": {"RepetitionTime": 5.9, "EchoTime": 2.1, "MRAcquisitionType": "3D", "ScanOptions": ["FS"]},
}

DIALECTS: dict[str, dict[str, Any]] = {
    # Signed, interleaved, a contrast agent without a value in every image, implicit VR.
    "ge": {"Manufacturer": "GE MEDICAL SYSTEMS", "ImageType": ["ORIGINAL", "PRIMARY", "OTHER"], "signed": True,
           "ContrastBolusAgent": "", "syntax": ImplicitVRLittleEndian, "order": "interleaved", "bits": 16},
    # 12 bits, numbered from the back.
    "siemens": {"Manufacturer": "SIEMENS", "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "NORM"],
                "syntax": ExplicitVRLittleEndian, "order": "descending", "bits": 12},
    # Each slice with a rescale of its own, big endian.
    "philips": {"Manufacturer": "Philips Medical Systems", "ImageType": ["ORIGINAL", "PRIMARY", "M_SE", "M", "SE"],
                "syntax": ExplicitVRBigEndian, "order": "ascending", "bits": 16, "rescale": True},
    "canon": {"Manufacturer": "TOSHIBA_MEC_MR3", "ImageType": ["ORIGINAL", "PRIMARY"], "order": "random", "bits": 16,
              "syntax": ExplicitVRLittleEndian, "BodyPartExamined": "PELVIS", "Laterality": ""},
}  # fmt: skip
_OURS = ("signed", "syntax", "order", "bits", "rescale")


def written(
    volume: Volume,
    role: str,
    dialect: str,
    study: str = "1.2.826.0.1.77",
    *,
    number: int = 1,
    change: Callable[[int, Dataset], Dataset | None] = lambda k, dataset: dataset,
    **more: Any,
) -> Files:
    """One file a slice; `change` sees each dataset before it is written, and may drop it."""
    says = DIALECTS[dialect]
    count = len(volume.array)
    rng = np.random.default_rng(number)
    order = {
        "ascending": np.arange(count),
        "descending": np.arange(count)[::-1],
        "interleaved": np.argsort(np.r_[np.arange(0, count, 2), np.arange(1, count, 2)]),
        "random": rng.permutation(count),
    }[says["order"]]
    series = f"{study}.{number}"
    top = float(volume.array.max()) or 1.0
    files = []
    for k in range(count):
        plane = volume.array[k].astype(np.float64)
        slope, intercept = (top / 30000 * (1 + 0.3 * np.sin(k)), -3.0 * k) if says.get("rescale") else (1.0, 0.0)
        if says["bits"] == 12:
            plane = plane * min(4095 / top, 1.0)
        stored = np.round((plane - intercept) / slope)
        dataset = _head(study, series, f"{series}.{k + 1}", says["syntax"])
        for name, value in (says | TIMES[role] | more).items():
            if name not in _OURS and value is not None:
                setattr(dataset, name, value)
        dataset.InstanceNumber = int(order[k]) + 1
        _lay(dataset, volume, k)
        _pixels(dataset, stored, says)
        if says.get("rescale"):
            dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = f"{slope:.9g}", f"{intercept:g}", "US"
        changed = change(k, dataset)
        if changed is not None:
            files.append((f"{series}.{k + 1}.dcm", encoded(changed)))
    return files


def multiframe(volumes: list[Volume], role: str, frames: list[dict[str, Any]], study: str = "1.2.826.0.1.77") -> Files:
    """One enhanced object of several volumes on one grid; `frames` says of each: te, kind (FrameType), time, b
    (s/mm2), agent (YES or NO), stack (StackID)."""
    series = f"{study}.900"
    dataset = _head(study, series, f"{series}.1", ExplicitVRLittleEndian)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.4.1")
    dataset.Manufacturer, dataset.ImageType = "Philips", ["ORIGINAL", "PRIMARY", "M", "NONE"]
    times = TIMES[role]
    dataset.MRAcquisitionType = times["MRAcquisitionType"]
    shared = Dataset()
    shared.MRTimingAndRelatedParametersSequence = [_with(RepetitionTime=float(times["RepetitionTime"]))]
    dataset.SharedFunctionalGroupsSequence = [shared]
    groups, pixels = [], []
    for k in range(len(volumes[0].array)):
        for volume, says in zip(volumes, frames, strict=True):
            one, place = Dataset(), Dataset()
            _lay(place, volume, k)
            one.PlanePositionSequence = [_with(ImagePositionPatient=place.ImagePositionPatient)]
            one.PlaneOrientationSequence = [_with(ImageOrientationPatient=place.ImageOrientationPatient)]
            one.PixelMeasuresSequence = [_with(PixelSpacing=place.PixelSpacing, SliceThickness=place.SliceThickness)]
            one.MREchoSequence = [_with(EffectiveEchoTime=float(says.get("te", times["EchoTime"])))]
            one.MRImageFrameTypeSequence = [_with(FrameType=["ORIGINAL", "PRIMARY", says.get("kind", "M"), "NONE"])]
            one.FrameContentSequence = [_with(TemporalPositionIndex=int(says.get("time", 1)))]
            if "stack" in says:
                one.FrameContentSequence[0].StackID = says["stack"]
            if "b" in says:
                one.MRDiffusionSequence = [_with(DiffusionBValue=float(says["b"]))]
            if "agent" in says:
                dataset.ContrastBolusAgentSequence = [_with(ContrastBolusAgentNumber=1)]
                one.ContrastBolusUsageSequence = [_with(ContrastBolusAgentAdministered=says["agent"])]
            one.PixelValueTransformationSequence = [_with(RescaleSlope="2", RescaleIntercept="0", RescaleType="US")]
            groups.append(one)
            pixels.append(np.round(volume.array[k] / 2).astype("<u2").tobytes())
    dataset.PerFrameFunctionalGroupsSequence = groups
    dataset.NumberOfFrames = len(groups)
    dataset.Rows, dataset.Columns = volumes[0].array.shape[1:]
    _bits(dataset, 16, False)
    dataset.PixelData = b"".join(pixels)
    return [(f"{series}.1.dcm", encoded(dataset))]


def _with(**values: Any) -> Dataset:
    dataset = Dataset()
    for name, value in values.items():
        setattr(dataset, name, value)
    return dataset


def _head(study: str, series: str, sop: str, syntax: UID) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = UID("1.2.840.10008.5.1.4.1.1.4")
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = UID(sop)
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = study, series, f"{study}.0"
    dataset.Modality, dataset.PatientID = "MR", "STRANGER"
    return dataset


def _lay(dataset: Dataset, volume: Volume, k: int) -> None:
    spacing = volume.spacing
    dataset.ImagePositionPatient = [float(f"{v:.5f}") for v in volume.to_lps(np.array([k, 0.0, 0.0]))]
    axes = [*(volume.affine[:3, 2] / spacing[2]), *(volume.affine[:3, 1] / spacing[1])]
    dataset.ImageOrientationPatient = [float(f"{v:.6f}") for v in axes]
    dataset.PixelSpacing = [float(f"{v:.5f}") for v in spacing[1:]]
    dataset.SliceThickness = float(f"{min(spacing[0], 6.0):.2f}")


def _pixels(dataset: Dataset, stored: np.ndarray, says: dict[str, Any]) -> None:
    signed = bool(says.get("signed"))
    _bits(dataset, says["bits"], signed)
    dataset.Rows, dataset.Columns = stored.shape
    order = ">" if says["syntax"] == ExplicitVRBigEndian else "<"
    limits = (-32768, 32767) if signed else (0, 65535)
    dataset.PixelData = np.clip(stored, *limits).astype(f"{order}{'i' if signed else 'u'}2").tobytes()


def _bits(dataset: Dataset, stored: int, signed: bool) -> None:
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, stored, stored - 1
    dataset.PixelRepresentation = int(signed)


def encoded(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax == ExplicitVRBigEndian:
        pydicom.dcmwrite(buffer, dataset, little_endian=False, implicit_vr=False, enforce_file_format=False)
        data = buffer.getvalue()
        return data if data[128:132] == b"DICM" else bytes(128) + b"DICM" + data
    dataset.preamble = bytes(128)
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()
