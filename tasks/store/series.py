"""Series of a study archive as volumes: frames, stacks, geometry. Needs pydicom, which GPU workers do not have.

A frame is one image plane: a classic DICOM object or one frame of an enhanced multi-frame object. A stack is the frames
of one series that are parallel and differ by position alone; a series with several orientations, echoes or time points
holds several. Slices are ordered by their position along the normal, never by InstanceNumber.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.tag import Tag

from tasks.domain.errors import BadInput
from tasks.domain.volume import Volume

PARALLEL = 0.01
"""Direction cosines of one stack agree to this (0.6 degrees)."""
DUPLICATE_MM = 0.05
"""Two frames closer than this along the normal are at the same place."""
EVEN_SHARE = 0.02
"""Gaps that differ from the median by less than this share of it are even: the slices are used as they are."""
UNEVEN_SHARE = 0.35
"""Gaps that differ by less than this are interpolated onto an even grid; beyond it the stack is rejected."""
MISSING_SLICES = 1
"""As many single slices may be missing inside a stack; they are interpolated from their neighbours."""
DRIFT_MM = 0.75
"""Slices may lie this far beside the straight line through their origins."""
TILT_DEG = 30.0
"""That line may lean by this much against the slices' normal; such a sheared stack keeps its true affine."""

_PHYSICS_TAGS = [
    Tag(tag_for_keyword(keyword) or 0)
    for keyword in (
        "ImageType", "RepetitionTime", "EchoTime", "InversionTime", "ScanOptions", "SequenceVariant",
        "SpectrallySelectedSuppression", "ContrastBolusAgent", "ContrastBolusAgentSequence",
        "ContrastBolusIngredient", "MRAcquisitionType", "TemporalPositionIdentifier", "AcquisitionNumber",
        "DiffusionBValue", "FrameType", "EffectiveEchoTime", "InversionTimes", "SpectrallySelectedExcitation",
        "TemporalPositionIndex",
    )
]  # fmt: skip
"""All that `physics_of` reads."""

UNCOMPRESSED = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"}
BIG_ENDIAN = "1.2.840.10008.1.2.2"


@dataclass(frozen=True)
class Frame:
    """One plane. position and orientation are ImagePositionPatient and ImageOrientationPatient; spacing is mm between
    rows and between columns; `dataset` holds the pixels, `number` counts its frames from 0."""

    dataset: Dataset = field(repr=False, compare=False)
    number: int
    sop: str
    position: NDArray[np.float64]
    orientation: NDArray[np.float64]
    spacing: tuple[float, float]
    thickness: float
    slope: float
    intercept: float
    physics: tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Stack:
    """Parallel frames of one series, not yet ordered. `physics` is that of its frames (see `physics_of`)."""

    series: str
    study: str
    subject: str
    frame_of_reference: str
    frames: list[Frame]
    physics: dict[str, Any]
    vendor: str
    laterality: str


@dataclass(frozen=True)
class Unusable:
    """A series, or a part of one, that is no stack of MR planes, and why. `frames` counts its objects."""

    series: str
    study: str
    vendor: str
    frames: int
    reason: str


@dataclass(frozen=True)
class Measured:
    """What was found when a stack was put in order: mm and degrees, for the manifest and for reasons."""

    gap_mm: float
    uneven_mm: float
    missing: int
    duplicates: int
    drift_mm: float
    tilt_deg: float


def read_stacks(entries: Iterable[tuple[str, bytes]]) -> tuple[list[Stack], list[Unusable]]:
    """All stacks of the objects in `entries` (as tasks.store.archives.read gives them), and what is none."""
    stacks: list[Stack] = []
    unusable: list[Unusable] = []
    by_series: dict[str, list[Dataset]] = defaultdict(list)
    for _, data in entries:
        try:
            dataset: Dataset = pydicom.dcmread(io.BytesIO(data))
        except (InvalidDicomError, EOFError, ValueError, KeyError, AttributeError) as error:
            unusable.append(Unusable("", "", "", 1, f"not readable as DICOM ({type(error).__name__})"))
            continue
        by_series[str(dataset.get("SeriesInstanceUID", ""))].append(dataset)
    for series, datasets in sorted(by_series.items()):
        first = datasets[0]
        study, vendor = str(first.get("StudyInstanceUID", "")), str(first.get("Manufacturer", "") or "")
        why = _no_image(datasets)
        if why:
            unusable.append(Unusable(series, study, vendor, len(datasets), why))
            continue
        try:
            frames = [frame for dataset in datasets for frame in frames_of(dataset)]
        except BadInput as error:
            unusable.append(Unusable(series, study, vendor, len(datasets), str(error)))
            continue
        for group in _parallel(frames):
            one = group[0].dataset
            stacks.append(
                Stack(
                    series=series,
                    study=study,
                    subject=str(first.get("PatientID", "")),
                    frame_of_reference=str(one.get("FrameOfReferenceUID", "") or ""),
                    frames=group,
                    physics=dict(group[0].physics),
                    vendor=vendor,
                    laterality=str(one.get("Laterality", "") or one.get("ImageLaterality", "") or ""),
                )
            )
    return stacks, unusable


def _no_image(datasets: list[Dataset]) -> str:
    first = datasets[0]
    if str(first.get("Modality", "")) != "MR":
        return f"modality {first.get('Modality', 'missing')} is not MR"
    if any("MOSAIC" in (d.get("ImageType") or []) for d in datasets):
        return "mosaic: several slices in one image"
    if any("PixelData" not in d for d in datasets):
        return "objects without pixel data"
    if any(int(d.get("SamplesPerPixel", 1) or 1) != 1 for d in datasets):
        return "colour images"
    return ""


def frames_of(dataset: Dataset) -> list[Frame]:
    """Frames of a classic or enhanced object; raises BadInput where one has no place in the patient."""
    shared = _first(dataset, "SharedFunctionalGroupsSequence")
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence")
    if not per_frame:
        return [_frame(dataset, dataset, None, None, 0)]
    if len(per_frame) != int(dataset.get("NumberOfFrames", 1) or 1):
        raise BadInput("frames_disagree", f"{len(per_frame)} functional groups, NumberOfFrames says otherwise")
    return [_frame(dataset, None, groups, shared, number) for number, groups in enumerate(per_frame)]


def _frame(
    dataset: Dataset, classic: Dataset | None, own: Dataset | None, shared: Dataset | None, number: int
) -> Frame:
    def group(name: str) -> Dataset:
        if classic is not None:
            return classic
        found = _first(own, name)
        return found if found is not None else (_first(shared, name) or Dataset())

    measures, transform = group("PixelMeasuresSequence"), group("PixelValueTransformationSequence")
    position = group("PlanePositionSequence").get("ImagePositionPatient")
    orientation = group("PlaneOrientationSequence").get("ImageOrientationPatient")
    spacing = measures.get("PixelSpacing")
    if not position or not orientation or not spacing:
        raise BadInput("no_geometry", "a frame without position, orientation or pixel spacing")
    place, axes = np.array(position, float), np.array(orientation, float)
    rows_mm, columns_mm = float(spacing[0]), float(spacing[1])
    lengths = np.linalg.norm(axes.reshape(2, 3), axis=1)
    if len(place) != 3 or len(axes) != 6 or not np.isfinite([*place, *axes, rows_mm, columns_mm]).all():
        raise BadInput("bad_geometry", "position or orientation is not 3 and 6 finite numbers")
    if min(rows_mm, columns_mm) <= 0 or np.abs(lengths - 1).max() > 0.01 or abs(axes[:3] @ axes[3:]) > 0.01:
        raise BadInput("bad_geometry", f"spacing {rows_mm:g} x {columns_mm:g} mm, axes of length {lengths.round(3)}")
    return Frame(
        dataset=dataset,
        number=number,
        sop=str(dataset.get("SOPInstanceUID", "")),
        position=place,
        orientation=axes,
        spacing=(rows_mm, columns_mm),
        thickness=_number(measures.get("SliceThickness")) or 0.0,
        slope=_number(transform.get("RescaleSlope")) or 1.0,
        intercept=_number(transform.get("RescaleIntercept")) or 0.0,
        physics=_physics(dataset, group, classic is not None),
    )


def _physics(dataset: Dataset, group: Any, classic: bool) -> tuple[tuple[str, Any], ...]:
    """`physics_of`, worked out once for classic objects that agree in the raw bytes of all that it reads."""
    if not classic:
        return tuple(sorted(physics_of(dataset, group).items()))
    raw = tuple(str(dataset.get_item(tag).value) if tag in dataset else None for tag in _PHYSICS_TAGS)
    if raw not in _known:
        if len(_known) > 1000:
            _known.clear()
        _known[raw] = tuple(sorted(physics_of(dataset, group).items()))
    return _known[raw]


_known: dict[tuple, tuple[tuple[str, Any], ...]] = {}


def physics_of(dataset: Dataset, group: Any) -> dict[str, Any]:
    """What the scanner did, in ms, from standard attributes alone (private ones, Philips' scaling too, are ignored).

    fat_suppressed: a saturation or excitation that spares fat, a Dixon water image, or an inversion time that nulls
    fat. contrast: a contrast agent was given; the attribute alone says so (PS3.3 C.7.6.4: type 2, in a module that is
    there only if contrast was used), since its text goes in de-identification.
    """
    timing, echo = group("MRTimingAndRelatedParametersSequence"), group("MREchoSequence")
    modifier, frame_type = group("MRModifierSequence"), group("MRImageFrameTypeSequence")
    kind = [str(v).upper() for v in (frame_type.get("FrameType") or dataset.get("ImageType") or [])]
    content = group("FrameContentSequence")
    tr = _number(timing.get("RepetitionTime"))
    te = _number(echo.get("EffectiveEchoTime")) or _number(echo.get("EchoTime"))
    ti = _number(modifier.get("InversionTimes")) or _number(modifier.get("InversionTime"))
    options = _words(dataset.get("ScanOptions")) + _words(dataset.get("SequenceVariant"))
    suppression = str(
        modifier.get("SpectrallySelectedSuppression") or dataset.get("SpectrallySelectedSuppression") or ""
    ).upper()
    excitation = str(modifier.get("SpectrallySelectedExcitation") or "").upper()
    fat = (
        any(word in {"FS", "FATSAT", "SPIR", "SPAIR", "FSAT", "WE"} or "FAT_SAT" in word for word in options)
        or suppression in {"FAT", "FAT_AND_WATER", "SILICON_AND_FAT"}
        or excitation == "WATER"
        or "WATER" in kind
        or (ti is not None and tr is not None and tr > 1200 and 80 <= ti <= 300)
    )
    agent = any(
        keyword in dataset
        for keyword in ("ContrastBolusAgent", "ContrastBolusAgentSequence", "ContrastBolusIngredient")
    )
    return {
        "tr_ms": tr,
        "te_ms": te,
        "ti_ms": ti,
        "fat_suppressed": fat,
        "contrast": agent,
        "three_d": str(dataset.get("MRAcquisitionType", "") or "").upper() == "3D",
        "kind": "+".join(sorted(set(kind) - {"ORIGINAL", "DERIVED", "PRIMARY", "SECONDARY"})),
        "derived": "DERIVED" in kind[:1],
        "time": _number(content.get("TemporalPositionIndex")) or _number(dataset.get("TemporalPositionIdentifier")),
        "acquisition": _number(dataset.get("AcquisitionNumber")),
        "b_value": _number(dataset.get("DiffusionBValue")),
    }


def _parallel(frames: list[Frame]) -> list[list[Frame]]:
    """Frames with one orientation, matrix, spacing, echo, time point and image type; where places are still shared,
    by acquisition number too."""
    groups: dict[tuple, list[Frame]] = {}
    for frame in sorted(frames, key=lambda f: (f.sop, f.number)):
        physics = dict(frame.physics)
        rest = (
            int(frame.dataset.Rows),
            int(frame.dataset.Columns),
            tuple(np.round(frame.spacing, 3)),
            *(physics[name] for name in ("te_ms", "ti_ms", "time", "b_value", "kind")),
        )
        for key in groups:
            if key[1:] == rest and np.abs(np.array(key[0]) - frame.orientation).max() < PARALLEL:
                groups[key].append(frame)
                break
        else:
            groups[(tuple(frame.orientation), *rest)] = [frame]
    found = []
    for group in groups.values():
        places = np.sort([f.position @ normal(f.orientation) for f in group])
        numbers = {dict(f.physics)["acquisition"] for f in group}
        if len(group) > 1 and (np.diff(places) < DUPLICATE_MM).any() and 1 < len(numbers) <= len(group) // 3:
            for number in sorted(numbers, key=lambda n: (n is None, n)):
                found.append([f for f in group if dict(f.physics)["acquisition"] == number])
        else:
            found.append(group)
    return found


def normal(orientation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Unit vector across the slices: right-handed with the row and column directions."""
    across = np.cross(orientation[:3], orientation[3:])
    return across / np.linalg.norm(across)


def measure(stack: Stack) -> tuple[list[Frame], Measured]:
    """Frames in order along the normal, exact duplicates dropped, and how evenly they lie.

    Raises BadInput with the numbers where the stack cannot be a volume.
    """
    along = normal(stack.frames[0].orientation)
    ordered = sorted(stack.frames, key=lambda f: (float(f.position @ along), f.sop, f.number))
    kept: list[Frame] = []
    duplicates = 0
    for frame in ordered:
        if kept and float((frame.position - kept[-1].position) @ along) < DUPLICATE_MM:
            duplicates += 1
            if not np.array_equal(decode(frame), decode(kept[-1])):
                raise BadInput("duplicate_positions", "two different images at one place")
            continue
        kept.append(frame)
    if len(kept) < 3:
        raise BadInput("too_few_slices", f"{len(kept)} places")
    origins = np.array([f.position for f in kept])
    places = origins @ along
    gaps = np.diff(places)
    gap = float(np.median(gaps))
    steps = np.maximum(np.round(gaps / gap), 1)
    missing = int((steps - 1).sum())
    uneven = float(np.abs(gaps - steps * gap).max())
    line = (origins[-1] - origins[0]) / (places[-1] - places[0])
    drift = float(np.linalg.norm(origins - origins[0] - np.outer(places - places[0], line), axis=1).max())
    tilt = float(np.degrees(np.arccos(np.clip(along @ line / np.linalg.norm(line), -1, 1))))
    found = Measured(gap, uneven, missing, duplicates, drift, tilt)
    if missing > MISSING_SLICES or steps.max() > MISSING_SLICES + 1:
        raise BadInput("missing_slices", f"{missing} of {len(kept) + missing} at {gap:.2f} mm")
    if uneven > UNEVEN_SHARE * gap:
        raise BadInput("uneven_slices", f"{uneven:.2f} mm off a gap of {gap:.2f} mm")
    if drift > DRIFT_MM:
        raise BadInput("drifting_slices", f"{drift:.2f} mm beside a straight line")
    if tilt > TILT_DEG:
        raise BadInput("tilted_slices", f"{tilt:.1f} degrees")
    return kept, found


def volume(stack: Stack) -> tuple[Volume, Measured, list[Frame]]:
    """The stack as a volume in LPS, with its measurements and its frames in order. Raises BadInput with the reason.

    Evenly lying slices are used as they are; a missing or displaced slice is interpolated linearly along the stack.
    """
    frames, found = measure(stack)
    planes = np.stack([decode(frame) for frame in frames])
    first, last = frames[0], frames[-1]
    along = normal(first.orientation)
    places = np.array([float((f.position - first.position) @ along) for f in frames])
    count = len(frames) + found.missing
    step = places[-1] / (count - 1)
    if found.missing or np.abs(places - np.arange(count)[: len(places)] * step).max() > EVEN_SHARE * found.gap_mm:
        planes = _even(planes, places, np.arange(count) * step)
    affine = np.eye(4)
    affine[:3, 0] = (last.position - first.position) / (count - 1)
    affine[:3, 1] = first.orientation[3:] * first.spacing[0]
    affine[:3, 2] = first.orientation[:3] * first.spacing[1]
    affine[:3, 3] = first.position
    return Volume(planes, affine), found, frames


def _even(planes: NDArray, places: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.float32]:
    above = np.clip(np.searchsorted(places, wanted), 1, len(places) - 1)
    share = np.clip((wanted - places[above - 1]) / (places[above] - places[above - 1]), 0, 1).astype(np.float32)
    share = share[:, None, None]
    return planes[above - 1].astype(np.float32) * (1 - share) + planes[above].astype(np.float32) * share


def decode(frame: Frame) -> NDArray:
    """(rows, columns) of one frame; integers as stored, or float32 where a rescale is to be applied.

    Raises BadInput where the pixels cannot be decoded.
    """
    dataset = frame.dataset
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    syntax = str(dataset.file_meta.TransferSyntaxUID) if hasattr(dataset, "file_meta") else ""
    bits = int(dataset.get("BitsAllocated", 0) or 0)
    if syntax in UNCOMPRESSED and bits == 16 and dataset.get("BitsStored") in (12, 16) and "PixelData" in dataset:
        size = rows * columns * 2
        data = dataset.PixelData[frame.number * size : (frame.number + 1) * size]
        if len(data) != size:
            raise BadInput("truncated_pixels", f"{len(data)} of {size} bytes")
        order = ">" if syntax == BIG_ENDIAN else "<"
        plane = np.frombuffer(data, f"{order}{'i' if dataset.PixelRepresentation else 'u'}2").reshape(rows, columns)
        plane = plane.astype(plane.dtype.newbyteorder("="), copy=False)
        if dataset.BitsStored == 12:
            plane = (plane << 4) >> 4  # overlay bits above the stored ones are not pixels
    else:
        try:
            array = dataset.pixel_array
        except Exception as error:  # noqa: BLE001 - decoders of several packages, each with errors of its own
            raise BadInput("undecodable_pixels", f"transfer syntax {syntax}: {type(error).__name__}") from None
        plane = array if array.ndim == 2 else array[frame.number]
    if str(dataset.get("PhotometricInterpretation", "")) == "MONOCHROME1":
        plane = plane.max() - plane
    if frame.slope != 1.0 or frame.intercept != 0.0:
        return plane.astype(np.float32) * np.float32(frame.slope) + np.float32(frame.intercept)
    return plane


def _first(dataset: Dataset | None, name: str) -> Dataset | None:
    sequence = dataset.get(name) if dataset is not None else None
    return sequence[0] if sequence else None


def _number(value: Any) -> float | None:
    if isinstance(value, (list, tuple)) or type(value).__name__ == "MultiValue":
        value = value[0] if len(value) else None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None


def _words(value: Any) -> list[str]:
    if not value:
        return []
    values = [value] if isinstance(value, str) else list(value)
    return [str(v).upper().strip() for v in values]
