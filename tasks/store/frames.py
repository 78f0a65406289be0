"""Frames of DICOM objects: place, physics, pixels. Needs pydicom, which GPU workers do not have.

A frame is one image plane: a classic object, or one frame of an enhanced multi-frame object.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from tasks.domain.errors import BadInput
from tasks.store import jpeg

PHYSICS = (
    "ImageType", "RepetitionTime", "EchoTime", "InversionTime", "ScanOptions", "SequenceVariant",
    "SpectrallySelectedSuppression", "ContrastBolusAgent", "ContrastBolusAgentSequence",
    "ContrastBolusIngredient", "ContrastBolusVolume", "ContrastBolusTotalDose", "ContrastBolusStartTime",
    "ContrastFlowRate", "MRAcquisitionType", "TemporalPositionIdentifier", "AcquisitionNumber", "DiffusionBValue",
    "FrameType", "EffectiveEchoTime", "InversionTimes", "SpectrallySelectedExcitation",
    "TemporalPositionIndex", "TriggerTime",
)  # fmt: skip
"""All that `physics_of` reads."""
PHYSICS_TAGS = [Tag(tag_for_keyword(keyword) or 0) for keyword in PHYSICS]

_DOSE = (
    "ContrastBolusIngredient", "ContrastBolusVolume", "ContrastBolusTotalDose", "ContrastBolusStartTime",
    "ContrastFlowRate", "ContrastBolusAgentSequence",
)  # fmt: skip
"""Attributes that have a value only where contrast was given."""

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
    laterality: str = ""
    """What an enhanced object says of the frame's side."""


def frames_of(dataset: Dataset) -> list[Frame]:
    """Frames of a classic or enhanced object; raises BadInput where one has no place in the patient."""
    shared = _first(dataset, "SharedFunctionalGroupsSequence")
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence")
    if not per_frame:
        if int(dataset.get("NumberOfFrames", 1) or 1) > 1:
            raise BadInput("no_geometry", "several frames in one object, and nothing says where each of them lies")
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
        return _first(own, name) or _first(shared, name) or Dataset()  # an item without values says nothing

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
        laterality="" if classic is not None else str(group("FrameAnatomySequence").get("FrameLaterality", "") or ""),
    )


def _physics(dataset: Dataset, group: Any, classic: bool) -> tuple[tuple[str, Any], ...]:
    """`physics_of`, worked out once for classic objects that agree in the raw bytes of all that it reads."""
    if not classic:
        return tuple(sorted(physics_of(dataset, group).items()))
    raw = tuple(str(dataset.get_item(tag).value) if tag in dataset else None for tag in PHYSICS_TAGS)
    if raw not in _known:
        if len(_known) > 1000:
            _known.clear()
        _known[raw] = tuple(sorted(physics_of(dataset, group).items()))
    return _known[raw]


_known: dict[tuple, tuple[tuple[str, Any], ...]] = {}


def physics_of(dataset: Dataset, group: Any) -> dict[str, Any]:
    """What the scanner did, in ms, from standard attributes alone (private ones, Philips' scaling too, are ignored).

    fat_suppressed: a saturation or excitation that spares fat, a Dixon water image, or an inversion time that nulls
    fat. contrast: True where an agent or its dose is named, or said to be in this frame, None where the agent is there
    without a value (by the standard it was given then, yet some scanners write it into every image: `Stack`s of a study
    are compared), else False. kind: the words of the image type that say what was computed, joined by '+'.
    """
    timing, echo = group("MRTimingAndRelatedParametersSequence"), group("MREchoSequence")
    modifier, frame_type = group("MRModifierSequence"), group("MRImageFrameTypeSequence")
    # A legacy converted object keeps here what its classic objects said.
    kept = group("UnassignedPerFrameConvertedAttributesSequence"), group("UnassignedSharedConvertedAttributesSequence")

    def said(keyword: str, *places: Dataset) -> Any:
        values = (place.get(keyword) for place in (*places, *kept))
        return next((value for value in values if value not in (None, "")), None)

    kind = [str(v).upper() for v in (frame_type.get("FrameType") or dataset.get("ImageType") or [])]
    content = group("FrameContentSequence")
    # Some converters keep the times at the root of an enhanced object, where they stand in a classic one.
    tr = _number(said("RepetitionTime", timing, dataset))
    te = _number(echo.get("EffectiveEchoTime")) or _number(said("EchoTime", echo, dataset))
    ti = _number(modifier.get("InversionTimes")) or _number(said("InversionTime", modifier, dataset))
    options = _words(said("ScanOptions", dataset)) + _words(said("SequenceVariant", dataset))
    suppression = str(said("SpectrallySelectedSuppression", modifier, dataset) or "").upper()
    excitation = str(modifier.get("SpectrallySelectedExcitation") or "").upper()
    fat = (
        any(word in {"FS", "FATSAT", "SPIR", "SPAIR", "FSAT", "WE"} or "FAT_SAT" in word for word in options)
        or suppression in {"FAT", "FAT_AND_WATER", "SILICON_AND_FAT"}
        or excitation == "WATER"
        or not {"WATER", "W"}.isdisjoint(kind)
        or (ti is not None and tr is not None and tr > 1200 and 80 <= ti <= 300)
    )
    return {
        "tr_ms": tr,
        "te_ms": te,
        "ti_ms": ti,
        "fat_suppressed": fat,
        "contrast": _contrast(dataset, group("ContrastBolusUsageSequence"), kept),
        "three_d": str(said("MRAcquisitionType", dataset) or "").upper() == "3D",
        "kind": "+".join(sorted(set(kind) - {"ORIGINAL", "DERIVED", "PRIMARY", "SECONDARY"})),
        "derived": "DERIVED" in kind[:1],
        "time": _number(content.get("TemporalPositionIndex")) or _number(said("TemporalPositionIdentifier", dataset)),
        "acquisition": _number(said("AcquisitionNumber", dataset)),
        "trigger": _number(said("TriggerTime", dataset)),
        "stack": str(content.get("StackID") or ""),
        "b_value": _number(said("DiffusionBValue", group("MRDiffusionSequence"), dataset)),
    }


def _contrast(dataset: Dataset, usage: Dataset, kept: tuple[Dataset, Dataset]) -> bool | None:
    """An enhanced object lists its agents once, and says of each frame whether they were in: a dynamic series begins
    without. An empty agent at its root is the converter's, not the scanner's."""
    administered = str(usage.get("ContrastBolusAgentAdministered") or "").upper()
    if administered in ("YES", "NO"):
        return administered == "YES"
    places = (dataset, *kept)
    if any(place.get(name) not in (None, "") for place in places for name in ("ContrastBolusAgent", *_DOSE)):
        return True
    return None if "ContrastBolusAgent" in (dataset if usage is dataset else kept[1]) else False


def decode(frame: Frame) -> NDArray:
    """(rows, columns) of one frame; integers as stored, or float32 where a rescale is to be applied.

    Raises BadInput where the pixels cannot be decoded.
    """
    dataset = frame.dataset
    plane = _stored(dataset, frame.number)
    padding = dataset.get("PixelPaddingValue")
    if isinstance(padding, int) and padding != 0:
        outside = plane == padding
        if outside.any() and not outside.all():
            plane = np.where(outside, plane[~outside].min(), plane)
    if str(dataset.get("PhotometricInterpretation", "")) == "MONOCHROME1":
        ends = (1 << int(dataset.get("BitsStored") or 16)) - 1 if not dataset.get("PixelRepresentation") else -1
        plane = np.array(ends, plane.dtype) - plane  # the same for every slice
    if frame.slope != 1.0 or frame.intercept != 0.0:
        return plane.astype(np.float32) * np.float32(frame.slope) + np.float32(frame.intercept)
    return plane


def _stored(dataset: Dataset, number: int) -> NDArray:
    """The pixels of one frame as they are stored."""
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    syntax = str(dataset.file_meta.TransferSyntaxUID) if hasattr(dataset, "file_meta") else ""
    bits = int(dataset.get("BitsAllocated", 0) or 0)
    if (
        syntax in UNCOMPRESSED
        and bits == 16
        and dataset.get("BitsStored") in (12, 16)
        and dataset.get("HighBit") == dataset.BitsStored - 1
    ):
        size = rows * columns * 2
        data = dataset.PixelData[number * size : (number + 1) * size]
        if len(data) != size:
            raise BadInput("truncated_pixels", f"{len(data)} of {size} bytes")
        order = ">" if syntax == BIG_ENDIAN else "<"
        plane = np.frombuffer(data, f"{order}{'i' if dataset.PixelRepresentation else 'u'}2").reshape(rows, columns)
        plane = plane.astype(plane.dtype.newbyteorder("="), copy=False)
        return (plane << 4) >> 4 if dataset.BitsStored == 12 else plane  # overlay bits above the stored ones
    try:
        array = jpeg.decode(dataset) if syntax in jpeg.SYNTAXES else dataset.pixel_array
        plane = array if array.ndim == 2 else array[number]
    except Exception as error:  # noqa: BLE001 - decoders of several packages, each with errors of its own
        raise BadInput("undecodable_pixels", f"transfer syntax {syntax}: {type(error).__name__}") from None
    if plane.shape != (rows, columns):
        raise BadInput("undecodable_pixels", f"{plane.shape} pixels where {rows} x {columns} are announced")
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
