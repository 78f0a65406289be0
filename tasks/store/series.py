"""Series of a study archive as volumes: frames, stacks, geometry. Needs pydicom, which GPU workers do not have.

A frame is one image plane: a classic DICOM object or one frame of an enhanced multi-frame object. A stack is the frames
of one series that are parallel and differ by position alone; a series with several orientations, echoes or time points
holds several. Slices are ordered by their position along the normal, never by InstanceNumber.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import config
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.tag import Tag

from tasks.domain.errors import BadInput
from tasks.domain.volume import Volume
from tasks.store.frames import PHYSICS, Frame, decode, frames_of
from tasks.store.parsed import UNREADABLE, parsed

PARALLEL = 0.01
"""Direction cosines of one stack agree to this (0.6 degrees)."""

SIDE_WORDS = {
    "L": {"LEFT", "LT", "LINKS", "GAUCHE", "IZQUIERDA", "SINISTRA"},
    "R": {"RIGHT", "RT", "RECHTS", "DROIT", "DROITE", "DERECHA", "DESTRA"},
}  # fmt: skip
"""Only to record that a description contradicts geometry."""

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

APART_MM, BLOCK_SLICES = 40.0, 5
"""A series whose slices leave a gap this wide, with as many on both sides of it, is two stacks: one for each hip."""

ALIKE = 0.02
"""Times of echo and inversion that differ by less than this share are the same."""

READ: list[str] = [
    *PHYSICS, "SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID",
    "PatientID", "PatientAge", "PatientSex", "Modality", "Manufacturer", "SeriesDescription", "BodyPartExamined",
    "FrameOfReferenceUID", "Laterality", "ImageLaterality", "InstanceNumber", "NumberOfFrames",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "RescaleSlope",
    "RescaleIntercept", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "PixelPaddingValue", "PixelData",
    "FloatPixelData", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
]  # fmt: skip
"""Attributes that anything here or in `standardize` looks at; the others are skipped, which saves a third."""

TAGS = frozenset(int(Tag(keyword)) for keyword in READ)
"""The same, looked up once."""


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
    with config.disable_value_validation():  # a third of the time, and its warnings quote values
        return _read(entries)


def _read(entries: Iterable[tuple[str, bytes]]) -> tuple[list[Stack], list[Unusable]]:
    stacks: list[Stack] = []
    unusable: list[Unusable] = []
    by_series: dict[str, list[Dataset]] = defaultdict(list)
    for _, data in entries:
        try:
            dataset: Dataset = parsed(data, TAGS)
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
            groups = [block for group in _parallel(frames) for block in _blocks(group)]
        except BadInput as error:
            unusable.append(Unusable(series, study, vendor, len(datasets), str(error)))
            continue
        except UNREADABLE as error:
            reason = f"malformed: a header with values that cannot be read ({type(error).__name__})"
            unusable.append(Unusable(series, study, vendor, len(datasets), reason))
            continue
        for group in groups:
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
                    laterality=_laterality(group),
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


def _laterality(frames: list[Frame]) -> str:
    """L or R where the header says so of all frames: of the series, of the frames, or in the description's words."""
    said = set()
    for frame in frames:
        one = frame.dataset
        said.add(str(one.get("Laterality") or one.get("ImageLaterality") or frame.laterality or ""))
    if said == {""}:
        words = set(re.split(r"[^A-Z]+", str(frames[0].dataset.get("SeriesDescription", "")).upper()))
        sides = {side for side, names in SIDE_WORDS.items() if words & names}
        return sides.pop() if len(sides) == 1 else ""
    return said.pop() if len(said) == 1 else ""


def _parallel(frames: list[Frame]) -> list[list[Frame]]:
    """Frames with one orientation, matrix, spacing, frame of reference, echo, time point and image type; and, where
    places are still shared, one repetition."""
    groups: list[tuple[tuple, NDArray[np.float64], tuple[Any, Any], list[Frame]]] = []
    for frame in sorted(frames, key=lambda f: (f.sop, f.number)):
        physics = dict(frame.physics)
        same = (
            int(frame.dataset.Rows),
            int(frame.dataset.Columns),
            tuple(np.round(frame.spacing, 3)),
            str(frame.dataset.get("FrameOfReferenceUID", "")),
            *(physics[name] for name in ("time", "b_value", "kind")),
        )
        times = (physics["te_ms"], physics["ti_ms"])
        for other, orientation, others, group in groups:
            if other == same and np.abs(orientation - frame.orientation).max() < PARALLEL and _alike(times, others):
                group.append(frame)
                break
        else:
            groups.append((same, frame.orientation, times, [frame]))
    return [one for *_, group in groups for stack in _stacks(group) for one in _repetitions(stack)]


def _stacks(group: list[Frame]) -> list[list[Frame]]:
    """The stacks that an enhanced object names, where each is one: some name every frame for itself."""
    named = defaultdict(list)
    for frame in group:
        named[dict(frame.physics)["stack"]].append(frame)
    whole = len(named) > 1 and min(len(stack) for stack in named.values()) >= BLOCK_SLICES
    return list(named.values()) if whole else [group]


def _alike(a: tuple[Any, ...], b: tuple[Any, ...]) -> bool:
    return all(
        x == y or (x is not None and y is not None and abs(x - y) <= ALIKE * max(abs(x), abs(y)))
        for x, y in zip(a, b, strict=True)
    )


def _repetitions(group: list[Frame]) -> list[list[Frame]]:
    """A stack that was taken several times over (the phases of a contrast series), one by one: by acquisition number,
    trigger time, or the order in which the images of each place were numbered."""
    places = np.array([f.position @ normal(f.orientation) for f in group])
    order = np.argsort(places, kind="stable")
    starts = np.flatnonzero(np.diff(places[order], prepend=-np.inf) >= DUPLICATE_MM)
    counts = np.diff([*starts, len(group)])
    if counts.max(initial=0) < 2:
        return [group]
    for name in ("acquisition", "trigger"):
        values = [dict(f.physics)[name] for f in group]
        if 1 < len(set(values)) <= len(group) // 3:
            ranked = sorted(set(values), key=lambda v: (v is None, v))
            return [[f for f, value in zip(group, values, strict=True) if value == wanted] for wanted in ranked]
    if len(set(counts)) > 1 or len(counts) < 3:
        return [group]
    numbers = [float(f.dataset.get("InstanceNumber") or 0) for f in group]
    if len(set(numbers)) < len(group):
        return [group]
    found: list[list[Frame]] = [[] for _ in range(int(counts[0]))]
    for start in starts:
        here = sorted(order[start : start + counts[0]], key=lambda i: numbers[i])
        for repetition, i in zip(found, here, strict=True):
            repetition.append(group[i])
    return found


def _blocks(group: list[Frame]) -> list[list[Frame]]:
    """The stack, or the two of a series that shows each hip for itself with nothing between them."""
    places = np.array([f.position @ normal(group[0].orientation) for f in group])
    order = np.argsort(places, kind="stable")
    gaps = np.diff(places[order])
    wide = np.flatnonzero(gaps > APART_MM)
    if len(wide) != 1 or not BLOCK_SLICES <= wide[0] + 1 <= len(group) - BLOCK_SLICES:
        return [group]
    cut = int(wide[0]) + 1
    return [[group[i] for i in sorted(part)] for part in (order[:cut], order[cut:])]


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
