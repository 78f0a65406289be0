"""What two readers draw: head and lesion as DICOM SEG (now and then RTSTRUCT), vessels as NIfTI or NRRD.

A reader's contour is the truth, moved by their own habit and by a slowly varying error along the border.
"""

from __future__ import annotations

import datetime as dt
import gzip
import struct
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, RTStructureSetStorage, SegmentationStorage

from tasks.domain.volume import LPS_TO_RAS
from tasks.phantom.dicomfiles import IMPLEMENTATION, Visit, header, uid
from tasks.phantom.hip import wobble
from tasks.phantom.identity import Register
from tasks.phantom.scanners import SCANNERS
from tasks.phantom.study import Rendered, Series

HABIT_MM = (0.12, -0.18)
"""How far the first and the second reader draw outside the true border, on average."""
CODES = {"head": ("24136001", "Hip joint structure"), "lesion": ("397758007", "Osteonecrosis of femoral head")}
LATERALITY = {"L": ("7771000", "Left"), "R": ("24028007", "Right")}

Masks = dict[tuple[str, str], NDArray[np.bool_]]


def drawn(rendered: Rendered, reader: int, key: tuple[int, ...]) -> Masks:
    """(side, label) -> mask on the T1 grid, as `reader` (0 or 1) draws them; empty ones are left out."""
    masks: Masks = {}
    for number, (side, truth) in enumerate(sorted(rendered.truth.items())):
        lattice = _lattice(rendered.series[0].affine, truth.box)
        for label, distance, error in (("head", truth.head, 0.35), ("lesion", truth.lesion, 0.6)):
            wave = wobble(lattice, key=(*key, 40, reader, number, len(label)), length_mm=15.0)
            mask = np.zeros(rendered.series[0].pixels.shape, bool)
            mask[truth.box] = distance < HABIT_MM[reader] * (1.5 if label == "lesion" else 1) + error * wave
            if mask.sum() >= 8:
                masks[side, label] = mask
    return masks


def _lattice(affine: NDArray[np.float64], box: tuple[slice, slice, slice]) -> list[NDArray[np.float32]]:
    """Coordinates in mm along the grid's own axes, ready to broadcast."""
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    axes = [
        np.arange(part.start, part.stop, dtype=np.float32) * np.float32(step)
        for part, step in zip(box, steps, strict=True)
    ]
    return [axes[0][:, None, None], axes[1][None, :, None], axes[2][None, None, :]]


def vessel_volume(rendered: Rendered, reader: int, key: tuple[int, ...]) -> NDArray[np.uint8]:
    """Vessels on the contrast grid as `reader` traces them: 1 in the left hip, 2 in the right one."""
    volume = np.zeros(rendered.series[2].pixels.shape, np.uint8)
    for number, (side, (box, distance)) in enumerate(sorted(rendered.vessels.items())):
        wave = wobble(_lattice(rendered.series[2].affine, box), key=(*key, 41, reader, number), length_mm=20.0)
        part = volume[box]
        part[distance < 0.12 + 0.4 * HABIT_MM[reader] + 0.10 * wave] = {"L": 1, "R": 2}[side]
    return volume


def write_nifti(path: Path, volume: NDArray[np.uint8], affine: NDArray[np.float64]) -> None:
    """(slices, rows, columns) and index -> LPS mm, as a compressed NIfTI-1 file with its first axis along columns."""
    ras = LPS_TO_RAS @ affine @ np.eye(4)[:, [2, 1, 0, 3]]
    shape = volume.shape[::-1]
    head = bytearray(352)
    struct.pack_into("<i", head, 0, 348)
    struct.pack_into("<8h", head, 40, 3, *shape, 1, 1, 1, 1)
    struct.pack_into("<2h", head, 70, 2, 8)  # uint8
    struct.pack_into("<8f", head, 76, 1.0, *np.linalg.norm(ras[:3, :3], axis=0), 0, 0, 0, 0)
    struct.pack_into("<2f", head, 108, 352.0, 1.0)
    head[123] = 2  # mm
    struct.pack_into("<2h", head, 252, 0, 1)  # sform: scanner coordinates
    struct.pack_into("<12f", head, 280, *ras[:3].ravel())
    head[344:348] = b"n+1\0"
    path.write_bytes(gzip.compress(bytes(head) + volume.tobytes(), 1, mtime=0))


def write_nrrd(path: Path, volume: NDArray[np.uint8], affine: NDArray[np.float64]) -> None:
    vectors = " ".join("(" + ",".join(f"{v:.8f}" for v in affine[:3, axis]) + ")" for axis in (2, 1, 0))
    sizes = " ".join(str(n) for n in volume.shape[::-1])
    origin = ",".join(f"{v:.8f}" for v in affine[:3, 3])
    text = (
        "NRRD0004\ntype: unsigned char\ndimension: 3\nspace: left-posterior-superior\n"
        f"sizes: {sizes}\nspace directions: {vectors}\nkinds: domain domain domain\n"
        f"encoding: gzip\nspace origin: ({origin})\n\n"
    )
    path.write_bytes(text.encode() + gzip.compress(volume.tobytes(), 1, mtime=0))


def write_seg(path: Path, visit: Visit, series: Series, masks: Masks, reader: str, register: Register) -> None:
    """One binary DICOM SEG with a segment for each side and label, its frames referencing the series' images."""
    ds, meta = _derived(visit, series, SegmentationStorage, "SEG", f"seg/{reader}", reader, register)
    ds.ImageType = ["DERIVED", "PRIMARY"]
    ds.ContentLabel, ds.ContentDescription, ds.ContentCreatorName = "HIP_SEG", "Hips, drawn by hand", reader
    ds.SegmentationType = "BINARY"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = series.protocol.shape[1:]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 1, 1, 0, 0
    ds.LossyImageCompression = "00"
    keys = sorted(masks, key=lambda key: (key[1], key[0]))
    ds.SegmentSequence = [_segment(number, *key) for number, key in enumerate(keys, start=1)]

    organization = Dataset()
    organization.DimensionOrganizationUID = uid(visit.key, "dimension", reader)
    ds.DimensionOrganizationSequence = [organization]
    ds.DimensionIndexSequence = [
        _item(
            DimensionOrganizationUID=organization.DimensionOrganizationUID,
            DimensionIndexPointer=pointer,
            FunctionalGroupPointer=group,
            DimensionDescriptionLabel=label,
        )
        for pointer, group, label in (
            (0x0062000B, 0x0062000A, "Segment Number"),
            (0x00200032, 0x00209113, "Image Position Patient"),
        )
    ]
    plane = _item(
        PlaneOrientationSequence=[_item(ImageOrientationPatient=_orientation(series.affine))],
        PixelMeasuresSequence=[
            _item(
                SliceThickness=f"{series.protocol.thickness:g}",
                SpacingBetweenSlices=f"{series.protocol.spacing[0]:g}",
                PixelSpacing=[f"{series.protocol.spacing[1]:.6g}", f"{series.protocol.spacing[2]:.6g}"],
            )
        ],
    )
    ds.SharedFunctionalGroupsSequence = [plane]

    frames, groups, used = [], [], set()
    for number, key in enumerate(keys, start=1):
        for index in np.flatnonzero(masks[key].any(axis=(1, 2))):
            frames.append(masks[key][index])
            used.add(int(index))
            position = [f"{v:.4f}" for v in series.affine[:3, 3] + index * series.affine[:3, 0]]
            source = _item(
                ReferencedSOPClassUID="1.2.840.10008.5.1.4.1.1.4",
                ReferencedSOPInstanceUID=visit.sop_uid(series.protocol.name, int(index)),
                PurposeOfReferenceCodeSequence=[_code("121322", "DCM", "Source image for image processing operation")],
            )
            groups.append(
                _item(
                    DerivationImageSequence=[
                        _item(
                            SourceImageSequence=[source],
                            DerivationCodeSequence=[_code("113076", "DCM", "Segmentation")],
                        )
                    ],
                    FrameContentSequence=[_item(DimensionIndexValues=[number, int(index) + 1])],
                    PlanePositionSequence=[_item(ImagePositionPatient=position)],
                    SegmentIdentificationSequence=[_item(ReferencedSegmentNumber=number)],
                )
            )
    ds.NumberOfFrames = len(frames)
    ds.PerFrameFunctionalGroupsSequence = groups
    ds.ReferencedSeriesSequence = [
        _item(
            SeriesInstanceUID=visit.series_uid(series.protocol.name),
            ReferencedInstanceSequence=[
                _item(
                    ReferencedSOPClassUID="1.2.840.10008.5.1.4.1.1.4",
                    ReferencedSOPInstanceUID=visit.sop_uid(series.protocol.name, index),
                )
                for index in sorted(used)
            ],
        )
    ]
    packed = np.packbits(np.stack(frames).ravel(), bitorder="little").tobytes()
    ds.add_new(0x7FE00010, "OB", packed if len(packed) % 2 == 0 else packed + b"\0")
    _save(path, ds, meta)


def write_rtstruct(path: Path, visit: Visit, series: Series, masks: Masks, reader: str, register: Register) -> None:
    """The same shapes as contours, one structure for each side and label, in patient coordinates."""
    from skimage.measure import find_contours  # here: few studies need it, and it is slow to import

    ds, meta = _derived(visit, series, RTStructureSetStorage, "RTSTRUCT", f"rtstruct/{reader}", reader, register)
    ds.StructureSetLabel, ds.OperatorsName = "HIPS", reader
    ds.StructureSetDate, ds.StructureSetTime = ds.SeriesDate, ds.SeriesTime
    keys = sorted(masks, key=lambda key: (key[1], key[0]))
    image = {"ReferencedSOPClassUID": "1.2.840.10008.5.1.4.1.1.4"}
    images = [
        _item(**image, ReferencedSOPInstanceUID=visit.sop_uid(series.protocol.name, index))
        for index in range(series.protocol.shape[0])
    ]
    ds.ReferencedFrameOfReferenceSequence = [
        _item(
            FrameOfReferenceUID=visit.frame_uid,
            RTReferencedStudySequence=[
                _item(
                    ReferencedSOPClassUID="1.2.840.10008.3.1.2.3.1",
                    ReferencedSOPInstanceUID=visit.study_uid,
                    RTReferencedSeriesSequence=[
                        _item(SeriesInstanceUID=visit.series_uid(series.protocol.name), ContourImageSequence=images)
                    ],
                )
            ],
        )
    ]
    structures, contours, observations = [], [], []
    for number, (side, label) in enumerate(keys, start=1):
        name = f"{label}_{side}"
        structures.append(
            _item(
                ROINumber=number,
                ReferencedFrameOfReferenceUID=visit.frame_uid,
                ROIName=name,
                ROIGenerationAlgorithm="MANUAL",
            )
        )
        parts = []
        for index in np.flatnonzero(masks[side, label].any(axis=(1, 2))):
            for line in find_contours(np.pad(masks[side, label][index], 1).astype(np.float32), 0.5):
                if len(line) < 5:
                    continue
                points = (
                    np.c_[np.full(len(line) - 1, index), line[:-1] - 1] @ series.affine[:3, :3].T + series.affine[:3, 3]
                )
                parts.append(
                    _item(
                        ContourImageSequence=[
                            _item(**image, ReferencedSOPInstanceUID=visit.sop_uid(series.protocol.name, int(index)))
                        ],
                        ContourGeometricType="CLOSED_PLANAR",
                        NumberOfContourPoints=len(points),
                        ContourData=[f"{v:.3f}" for v in points.ravel()],
                    )
                )
        contours.append(
            _item(ROIDisplayColor=[255, 64 * number % 256, 0], ReferencedROINumber=number, ContourSequence=parts)
        )
        observations.append(
            _item(ObservationNumber=number, ReferencedROINumber=number, RTROIInterpretedType="", ROIInterpreter=reader)
        )
    ds.StructureSetROISequence, ds.ROIContourSequence, ds.RTROIObservationsSequence = structures, contours, observations
    ds.ApprovalStatus = "UNAPPROVED"
    _save(path, ds, meta)


def _derived(
    visit: Visit, series: Series, sop_class: str, modality: str, what: str, reader: str, register: Register
) -> tuple[Dataset, FileMetaDataset]:
    """A new object of the same patient and study: the header's patient and study parts, and its own series."""
    moment = dt.datetime.combine(visit.day, visit.start) + dt.timedelta(hours=3)
    source = header(visit, SCANNERS[visit.scanner], series, 2, moment, register)
    ds = Dataset()
    for name in (
        "SpecificCharacterSet",
        "StudyDate",
        "StudyTime",
        "AccessionNumber",
        "ReferringPhysicianName",
        "StudyDescription",
        "PatientName",
        "PatientID",
        "IssuerOfPatientID",
        "PatientBirthDate",
        "PatientSex",
        "PatientAge",
        "StudyInstanceUID",
        "StudyID",
        "FrameOfReferenceUID",
        "PositionReferenceIndicator",
        "InstitutionName",
    ):
        ds[name] = source[name]
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class, uid(visit.key, what, "instance")
    ds.SeriesInstanceUID, ds.SeriesNumber, ds.InstanceNumber = uid(visit.key, what, "series"), 900 + len(reader), 1
    ds.Modality, ds.SeriesDescription = modality, f"{modality} {visit.who.latin[0]}" if visit.chatty else modality
    ds.Manufacturer, ds.ManufacturerModelName = "osteoflow", "phantom reader"
    ds.DeviceSerialNumber, ds.SoftwareVersions = "1", "1"
    ds.SeriesDate = ds.ContentDate = ds.InstanceCreationDate = visit.day.strftime("%Y%m%d")
    ds.SeriesTime = ds.ContentTime = ds.InstanceCreationTime = moment.strftime("%H%M%S")
    register.add("uids", ds.SOPInstanceUID, ds.SeriesInstanceUID)
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID(sop_class), UID(ds.SOPInstanceUID)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID, meta.ImplementationVersionName = UID(IMPLEMENTATION), "OFPHANTOM_1"
    return ds, meta


def _segment(number: int, side: str, label: str) -> Dataset:
    category = (
        _code("91723000", "SCT", "Anatomical structure")
        if label == "head"
        else _code("49755003", "SCT", "Morphologically abnormal structure")
    )
    kind = _code("2812003", "SCT", "Head of femur") if label == "head" else _code("6574001", "SCT", "Necrosis")
    kind.SegmentedPropertyTypeModifierCodeSequence = [_code(LATERALITY[side][0], "SCT", LATERALITY[side][1])]
    return _item(
        SegmentNumber=number,
        SegmentLabel=label,
        SegmentDescription=f"{label} {LATERALITY[side][1].lower()}",
        SegmentAlgorithmType="MANUAL",
        SegmentedPropertyCategoryCodeSequence=[category],
        SegmentedPropertyTypeCodeSequence=[kind],
    )


def _orientation(affine: NDArray[np.float64]) -> list[str]:
    along = [affine[:3, axis] / np.linalg.norm(affine[:3, axis]) for axis in (2, 1)]
    return [f"{round(float(v), 8) + 0.0:g}" if abs(v) in (0, 1) else f"{v:.8f}" for v in np.concatenate(along)]


def _item(**values: object) -> Dataset:
    ds = Dataset()
    for name, value in values.items():
        setattr(ds, name, value)
    return ds


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    return _item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def _save(path: Path, ds: Dataset, meta: FileMetaDataset) -> None:
    buffer = BytesIO()
    file = FileDataset(buffer, ds, file_meta=meta, preamble=b"\0" * 128)
    file.save_as(buffer, enforce_file_format=True)
    path.write_bytes(buffer.getvalue())
