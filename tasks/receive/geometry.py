"""Slice positions: what is kept of each file, and whether slices are missing between them.

The tail of a series that never came cannot be seen from positions; the declared count sees it, and a late slice makes a
new version of the study in any case.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from tasks.store.dicom import NUMBER_OF_FRAMES, Header

INSTANCE_NUMBER = 0x00200013
POSITION = 0x00200032
ORIENTATION = 0x00200037
ECHO = 0x00180086
TEMPORAL_POSITION = 0x00200100
FILES_IN_STUDY = 0x00201208
FILES_IN_SERIES = 0x00201209

SAME_PLACE_MM = 0.05
SAME_NORMAL = 0.999
"""Cosine between normals of slices that belong to one stack (2.6 degrees)."""


def geometry_of(header: Header) -> str:
    """JSON: n slice normal, z position along it (mm), i instance number, s echo and temporal position, f frames,
    d files that the series is said to have. Left out where the header has nothing."""
    found: dict[str, Any] = {}
    cosines, position = header.floats(ORIENTATION), header.floats(POSITION)
    if len(cosines) == 6 and len(position) == 3:
        (a, b, c), (d, e, f) = cosines[:3], cosines[3:]
        normal = (b * f - c * e, c * d - a * f, a * e - b * d)
        length = sum(part * part for part in normal) ** 0.5
        if length > 0.5 and all(map(math.isfinite, (length, *position))):
            normal = tuple(part / length for part in normal)
            found["n"] = [round(part, 5) for part in normal]
            found["z"] = round(sum(p * q for p, q in zip(normal, position, strict=True)), 3)
    number = header.floats(INSTANCE_NUMBER)
    if number:
        found["i"] = int(number[0])
    stack = header.text(ECHO), header.text(TEMPORAL_POSITION)
    if any(stack):
        found["s"] = "|".join(stack)
    frames = header.floats(NUMBER_OF_FRAMES)
    if frames and frames[0] > 1:
        found["f"] = int(frames[0])
    declared = header.floats(FILES_IN_SERIES)
    if declared and declared[0] >= 1:
        found["d"] = int(declared[0])
    return json.dumps(found, separators=(",", ":"))


def declared_files(header: Header) -> int | None:
    """Files that the sender says the study has (0020,1208), or None."""
    found = header.floats(FILES_IN_STUDY)
    return int(found[0]) if found and 1 <= found[0] < 1e6 else None


def series_with_gaps(members: Iterable[tuple[str, str]], tolerance: float) -> tuple[int, int]:
    """(series that lack files, all series) of (series UID, geometry) of a study's files."""
    series: dict[str, list[dict[str, Any]]] = {}
    for uid, text in members:
        series.setdefault(uid, []).append(json.loads(text))
    lacking = sum(_lacks(files, tolerance) for files in series.values())
    return lacking, len(series)


def _lacks(files: list[dict[str, Any]], tolerance: float) -> bool:
    if len(files) < max(file.get("d", 0) for file in files):
        return True
    if any("f" in file for file in files):
        return False  # an enhanced multi-frame object holds its slices itself
    return any(has_gap(stack, tolerance) for stack in _stacks(files))


def _stacks(files: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Slices of one orientation, echo and temporal position: a localizer has three stacks, a dynamic series many."""
    stacks: list[tuple[str, np.ndarray, list[dict[str, Any]]]] = []
    for file in files:
        if "z" not in file:
            continue
        normal, kind = np.array(file["n"]), file.get("s", "")
        for other, mean, members in stacks:
            if kind == other and float(mean @ normal) > SAME_NORMAL:
                members.append(file)
                break
        else:
            stacks.append((kind, normal, [file]))
    return [members for _, _, members in stacks]


def has_gap(stack: list[dict[str, Any]], tolerance: float) -> bool:
    """Is there a step between neighbouring positions that is larger than the stack's own, where instance numbers are
    missing as well? Repeated positions (dynamic series, several echoes) count once. Two slabs in one series, one for
    each hip, have a large step and numbers without a hole: no gap."""
    positions = np.unique(np.array([file["z"] for file in stack]))
    positions = positions[np.insert(np.diff(positions) > SAME_PLACE_MM, 0, True)]
    if len(positions) < 3:
        return False
    steps = np.diff(positions)
    usual = float(np.quantile(steps, 0.25, method="lower"))
    if steps.max() <= usual * (1 + tolerance):
        return False
    if not all("i" in file for file in stack):
        return True
    numbers = np.unique(np.array([file["i"] for file in stack]))
    strides = np.diff(numbers)
    return len(strides) == 0 or bool(strides.max() > np.quantile(strides, 0.25, method="lower"))
