"""DICOM Segmentation (PS3.3 A.51): binary, fractional and label map, any maker's, to LPS volumes."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels import iter_pixels

from tasks.annotate.drawn import Drawn, check_affine, check_size, label_of, side_of, stack
from tasks.domain.errors import BadInput

SOP_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
"""Segmentation Storage and Label Map Segmentation Storage."""

FRACTION = 0.5
"""A fractional voxel belongs to the mask from here on."""

PLANE_TOLERANCE_MM = 0.1


def read(dataset: Dataset) -> tuple[list[Drawn], list[str]]:
    """The head, lesion and vessel segments of one SEG, and notes on the segments that are none of these."""
    frames = int(dataset.get("NumberOfFrames", 1) or 1)
    if dataset.get("DimensionOrganizationType") == "TILED_FULL":
        raise BadInput("tiled", "is a segmentation of a slide, not of a volume")
    labels, notes = _labels(dataset)
    if not labels:
        raise BadInput("no_known_segment", "names no segment as femoral head, lesion or vessel")
    axes, offsets, origin, pitch = _geometry(dataset, frames)
    owner = _owner(dataset)
    drawn = []
    for number, (label, side) in labels.items():
        planes = _planes(dataset, offsets, number)
        if not any(plane.any() for plane in planes.values()):
            notes.append(f"segment {number} ({label}) is empty and was left out")
            continue
        array, step = stack(planes, pitch)
        affine = np.eye(4)
        affine[:3, :3] = axes * np.array([step, 1.0, 1.0])
        affine[:3, 3] = origin + axes[:, 0] * min(planes)
        check_affine(affine)
        drawn.append(Drawn(label, array, affine, "seg", side=side, **owner))
    return drawn, notes


def _labels(dataset: Dataset) -> tuple[dict[int, tuple[str, str]], list[str]]:
    """{segment number: (label, the side that it claims)}, and notes on those that are none."""
    labels: dict[int, tuple[str, str]] = {}
    notes = []
    for segment in dataset.SegmentSequence:
        number = int(segment.SegmentNumber)
        types, regions = (
            segment.get(f"{name}Sequence", []) for name in ("SegmentedPropertyTypeCode", "AnatomicRegion")
        )
        names = [segment.get("SegmentLabel"), segment.get("SegmentDescription")]
        names += [code.get("CodeMeaning", "") for code in (*types, *regions)]
        turned = [
            modifier.get("CodeMeaning", "")
            for code in (*types, *regions)
            for name in ("SegmentedPropertyTypeModifierCodeSequence", "AnatomicRegionModifierSequence")
            for modifier in (*code.get(name, []), *segment.get(name, []))
        ]
        label = label_of(*names)
        if label:
            label_name, description, *codes = names
            labels[number] = label, side_of(*turned, label_name, *codes, described=(description,))
        elif number:  # 0 is the background of a label map
            notes.append(f"segment {number} is neither head, lesion nor vessel and was left out")
    return labels, notes


def _owner(dataset: Dataset) -> dict[str, Any]:
    study, series = str(dataset.StudyInstanceUID), {str(s.SeriesInstanceUID) for s in _references(dataset)}
    others = dataset.get("StudiesContainingOtherReferencedInstancesSequence", [])
    if not series and len(others) == 1:  # kept in a study of its own, drawn on images of another
        study = str(others[0].StudyInstanceUID)
        series = {str(s.SeriesInstanceUID) for s in _references(others[0])}
    frame = str(dataset.get("FrameOfReferenceUID") or "")
    if len(series) > 1 and not frame:
        raise BadInput("several_series", f"refers to {len(series)} series and names no frame of reference of them")
    reader = str(dataset.get("ContentCreatorName") or dataset.get("OperatorsName") or "").strip()
    if not reader:
        makers = [str(s.get("SegmentAlgorithmName") or "") for s in dataset.SegmentSequence]
        reader = next((maker for maker in makers if maker), "not named")
    return {
        "study": study,
        "series": next(iter(series)) if len(series) == 1 else "",
        "frame": frame,
        "reader": reader,
        "patient_id": str(dataset.get("PatientID") or "").strip() or None,
    }


def _references(dataset: Dataset) -> list[Dataset]:
    return [item for item in dataset.get("ReferencedSeriesSequence", []) if "SeriesInstanceUID" in item]


def _geometry(dataset: Dataset, frames: int) -> tuple[NDArray, list[float], NDArray, float | None]:
    """(3x3 columns d, h, w in mm with d of length 1; offset of each frame along d; its origin; claimed pitch)."""
    shared = dataset.get("SharedFunctionalGroupsSequence", [Dataset()])[0]
    groups = dataset.get("PerFrameFunctionalGroupsSequence", [Dataset()] * frames)
    if len(groups) != frames:
        raise BadInput("malformed", f"describes {len(groups)} frames and holds {frames}")
    orientation = _one(shared, groups, "PlaneOrientationSequence", "ImageOrientationPatient")
    spacing = _one(shared, groups, "PixelMeasuresSequence", "PixelSpacing")
    row, column = np.array(orientation[:3], dtype=float), np.array(orientation[3:], dtype=float)
    normal = np.cross(row, column)
    positions = np.array([_value(shared, group, "PlanePositionSequence", "ImagePositionPatient") for group in groups])
    offsets = positions @ normal
    flat = positions - np.outer(offsets, normal)
    drift = float(np.linalg.norm(flat - flat[0], axis=1).max())
    if drift > PLANE_TOLERANCE_MM:
        raise BadInput("not_a_volume", f"its planes are shifted sideways by up to {drift:.1f} mm")
    measures = [*shared.get("PixelMeasuresSequence", []), *groups[0].get("PixelMeasuresSequence", [])]
    claimed = [m.get("SpacingBetweenSlices") or m.get("SliceThickness") for m in measures]
    pitch = next((abs(float(mm)) for mm in claimed if mm), None)
    if pitch is None and len({round(float(offset), 2) for offset in offsets}) == 1:
        raise BadInput("no_thickness", "has one plane and says neither its thickness nor its spacing")
    axes = np.stack([normal, column * float(spacing[0]), row * float(spacing[1])], axis=1)
    return axes, [float(offset) for offset in offsets], flat[0], pitch


def _one(shared: Dataset, groups: Any, sequence: str, name: str) -> list[float]:
    values = np.array([_value(shared, group, sequence, name) for group in groups])
    if float(np.abs(values - values[0]).max()) > 1e-3:
        raise BadInput("not_a_volume", f"{name} differs between its frames")
    return [float(value) for value in values[0]]


def _value(shared: Dataset, group: Dataset, sequence: str, name: str) -> list[float]:
    for place in (group, shared):
        if (items := place.get(sequence)) and name in items[0]:
            return [float(value) for value in items[0][name].value]
    raise BadInput("bad_geometry", f"does not give {name} for every frame")


def _planes(dataset: Dataset, offsets: list[float], number: int) -> dict[float, NDArray[np.bool_]]:
    """{offset: bool plane} of segment `number`; of a label map all frames, also those without it. Only its frames are
    decoded: a file with a hundred organs may be large, one of them is not."""
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    shared = dataset.get("SharedFunctionalGroupsSequence", [Dataset()])[0]
    groups = dataset.get("PerFrameFunctionalGroupsSequence", [Dataset()] * len(offsets))
    wanted = list(range(len(offsets)))
    if dataset.get("SegmentationType") != "LABELMAP" and len(dataset.SegmentSequence) > 1:
        wanted = [n for n, group in enumerate(groups) if _segment(shared, group) == number]
    if not wanted:
        return {}
    check_size(len({offsets[n] for n in wanted}), rows, columns)
    least, most = {
        "LABELMAP": (float(number), number),
        "FRACTIONAL": (FRACTION * float(dataset.get("MaximumFractionalValue") or 255), 2**16),
    }.get(str(dataset.get("SegmentationType")), (0.5, 2**16))
    planes: dict[float, NDArray[np.bool_]] = defaultdict(lambda: np.zeros((rows, columns), dtype=bool))
    for n, pixels in zip(wanted, iter_pixels(dataset, indices=wanted, raw=True), strict=True):
        planes[offsets[n]] |= (pixels >= least) & (pixels <= most)
    return dict(planes)


def _segment(shared: Dataset, group: Dataset) -> int | None:
    items = group.get("SegmentIdentificationSequence") or shared.get("SegmentIdentificationSequence")
    return int(items[0].ReferencedSegmentNumber) if items else None
