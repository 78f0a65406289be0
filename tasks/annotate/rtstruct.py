"""DICOM RT Structure Set: closed contours to LPS volumes, holes and keyhole contours included."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from scipy.ndimage import distance_transform_edt
from skimage.draw import polygon2mask

from tasks.annotate import traced
from tasks.annotate.drawn import Drawn, check_affine, check_size, label_of, side_of, stack
from tasks.domain.errors import BadInput

SOP_CLASS = "1.2.840.10008.5.1.4.1.1.481.3"

PIXEL_MM = 0.5
"""Contours are filled on their own planes in pixels of this size, finer than any hip grid: no image is needed."""

CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
FLAT_MM = 0.3
"""Points of one plane may lie this far beside it: some systems round to tenths of a mm, or place by the couch."""

GAP = 1.6
"""Between two contours further apart than this many of the usual steps nothing was drawn."""


def read(dataset: Dataset) -> tuple[list[Drawn], list[str]]:
    """The head, lesion and vessel structures of one RTSTRUCT, and notes on the structures that are none of these."""
    structures = {int(item.ROINumber): item for item in dataset.get("StructureSetROISequence", [])}
    observed = {int(o.ReferencedROINumber): o for o in dataset.get("RTROIObservationsSequence", [])}
    owner = _owner(dataset)
    drawn: list[Drawn] = []
    notes: list[str] = []
    for item in dataset.get("ROIContourSequence", []):
        number = int(item.ReferencedROINumber)
        roi, observation = structures.get(number, Dataset()), observed.get(number, Dataset())
        names = roi.get("ROIName"), roi.get("ROIDescription"), observation.get("ROIObservationLabel")
        label = label_of(*names)
        contours = [c for c in item.get("ContourSequence", []) if c.get("ContourGeometricType") in CLOSED]
        if label is None or not contours:
            reason = "is neither head, lesion nor vessel" if label is None else f"({label}) has no closed contour"
            notes.append(f"structure {number} {reason} and was left out")
            continue
        array, affine, thick = fill(contours)
        frame = str(roi.get("ReferencedFrameOfReferenceUID") or dataset.get("FrameOfReferenceUID") or "")
        reader = str(observation.get("ROIInterpreter") or owner["reader"])
        place = owner | {"frame": frame, "reader": reader, "side": side_of(names[0], names[2], described=(names[1],))}
        drawn.append(Drawn(label, array, affine, "rtstruct", **place, thick=thick))
    if not drawn:
        raise BadInput("no_known_structure", "names no closed structure as femoral head, lesion or vessel")
    return drawn, notes


def _owner(dataset: Dataset) -> dict[str, Any]:
    studies = [
        study
        for frame in dataset.get("ReferencedFrameOfReferenceSequence", [])
        for study in frame.get("RTReferencedStudySequence", [])
    ]
    series = {str(s.SeriesInstanceUID) for study in studies for s in study.get("RTReferencedSeriesSequence", [])}
    if len(series) > 1:
        raise BadInput("several_series", f"refers to {len(series)} series; one structure set belongs to one")
    study = next((str(study.ReferencedSOPInstanceUID) for study in studies if "ReferencedSOPInstanceUID" in study), "")
    reader = dataset.get("ReviewerName") or dataset.get("OperatorsName") or dataset.get("StructureSetLabel")
    return {
        "study": study or str(dataset.StudyInstanceUID),
        "series": next(iter(series), ""),
        "reader": str(reader or "not named"),
        "patient_id": str(dataset.get("PatientID") or "").strip() or None,
    }


def fill(contours: list[Dataset]) -> tuple[NDArray[np.bool_], NDArray[np.float64], bool]:
    """(array, affine, whether the slice thickness is known) of one structure's closed contours.

    Contours of one plane are combined by exclusive or, so that an inner contour is a hole and an island in it is none;
    the even-odd rule inside one contour does the same for keyholes. Contours through the centres of pixels enclose
    these pixels as a whole (`traced`).
    """
    points = [np.array(c.ContourData, dtype=np.float64).reshape(-1, 3) for c in contours]
    points = [p for p in points if len(p) >= 3]
    if not points:
        raise BadInput("malformed", "its contours have fewer than three points")
    normal = _normal(max(points, key=len))
    right = np.eye(3)[int(np.argmin(np.abs(normal)))]  # in-plane axes as near to the patient's as they go
    right = right - normal * (right @ normal)
    right /= np.linalg.norm(right)
    down = np.cross(normal, right)
    axes = np.stack([normal, down, right], axis=1)
    flat = [p @ axes for p in points]
    tilt = max(float(np.ptp(p[:, 0])) for p in flat)
    if tilt > FLAT_MM:
        raise BadInput("not_a_volume", f"its contours are not in parallel planes ({tilt:.1f} mm)")
    grid = traced.pixels([p[:, 1:] for p in flat])
    margin = 2 * PIXEL_MM if grid is None else PIXEL_MM + np.abs(grid).sum(axis=0)
    low = np.min([p[:, 1:].min(0) for p in flat], axis=0) - margin
    high = np.max([p[:, 1:].max(0) for p in flat], axis=0) + margin
    height, width = (int(n) for n in np.ceil((high - low) / PIXEL_MM).astype(int) + 1)
    check_size(len(points), height, width)
    together: dict[float, list[NDArray[np.float64]]] = {}
    for p in flat:
        offset = next((known for known in together if abs(known - p[:, 0].mean()) < FLAT_MM), float(p[:, 0].mean()))
        together.setdefault(offset, []).append(p[:, 1:])
    planes = {
        offset: _filled(those, low, (height, width))
        if grid is None
        else traced.filled(those, grid, low, PIXEL_MM, (height, width))
        for offset, those in together.items()
    }
    slabs = [float(c.ContourSlabThickness) for c in contours if c.get("ContourSlabThickness")]
    thick = len(planes) > 1 or bool(slabs)
    planes, pitch = _even(planes)
    array, step = stack(planes, pitch or (slabs[0] if slabs else 1.0))
    affine = np.eye(4)
    affine[:3, :3] = axes * np.array([step, PIXEL_MM, PIXEL_MM])
    affine[:3, 3] = axes @ np.array([min(planes), *low])
    check_affine(affine)
    return array, affine, thick


def _filled(contours: list[NDArray[np.float64]], low: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.bool_]:
    plane = np.zeros(shape, dtype=bool)
    for points in contours:
        inside = (points - low) / PIXEL_MM
        first, last = np.floor(inside.min(0)).astype(int), np.ceil(inside.max(0)).astype(int) + 1
        plane[first[0] : last[0], first[1] : last[1]] ^= polygon2mask(tuple(last - first), inside - first)
    return plane


def _even(planes: dict[float, NDArray[np.bool_]]) -> tuple[dict[float, NDArray[np.bool_]], float | None]:
    """(planes at even steps, mm between them): contours drawn between slices, or each in a plane of its own, give
    those by shape (Raya and Udupa); where nothing was drawn nothing is."""
    offsets = np.array(sorted(planes))
    steps = np.diff(offsets)
    if not len(steps):
        return planes, None
    usual = float(np.median(steps))
    near = steps[steps <= GAP * usual]
    mean = float(near.mean())
    if float(np.ptp(near)) <= FLAT_MM and float(np.abs(steps - np.round(steps / mean) * mean).max()) <= FLAT_MM / 2:
        return planes, mean
    pitch = usual / 3
    count = int(np.ceil((offsets[-1] - offsets[0]) / pitch - 1e-6)) + 1
    check_size(count + 2, *planes[float(offsets[0])].shape)
    depth = {o: distance_transform_edt(plane) - distance_transform_edt(~plane) for o, plane in planes.items()}
    made: dict[float, NDArray[np.bool_]] = {}
    for at in offsets[0] + pitch * np.arange(-1, count + 1):
        above = int(np.searchsorted(offsets, at))
        low, high = float(offsets[max(above - 1, 0)]), float(offsets[min(above, len(offsets) - 1)])
        if low < high <= low + GAP * usual:
            share = (at - low) / (high - low)
            made[float(at)] = (1 - share) * depth[low] + share * depth[high] > 0
        else:  # at an end, or in a gap
            nearest = low if at - low < high - at else high
            made[float(at)] = planes[nearest] & (abs(at - nearest) <= usual / 2)
    return made, pitch


def _normal(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of the plane through a closed contour: Newell's sum, turned so that its largest part is positive."""
    centred = points - points.mean(0)
    total = np.cross(centred, np.roll(centred, -1, axis=0)).sum(0)
    length = float(np.linalg.norm(total))
    if length < 1e-6:
        total = np.linalg.svd(centred)[2][2]  # a keyhole that goes back on itself: its area cancels, its plane stays
        length = float(np.linalg.norm(total))
    total = total / length
    return total * np.sign(total[int(np.argmax(np.abs(total)))])
