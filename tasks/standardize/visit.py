"""One visit: its study archives in, its hips out. `process` never raises for bad data; rows say what and why."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from tasks.domain.errors import BadInput
from tasks.domain.hip import ROLES, SIDES
from tasks.domain.volume import Volume
from tasks.standardize import sheet
from tasks.standardize.hip import hip_row
from tasks.standardize.params import Params
from tasks.standardize.place import Place, grouped, place_of
from tasks.standardize.roles import Candidate, candidate, told
from tasks.store import archives, hips
from tasks.store.files import replacing
from tasks.store.items import Item
from tasks.store.parsed import UNREADABLE
from tasks.store.series import Stack, read_stacks, volume

Row = dict[str, Any]


def process(item: Item, params: Params, out: Path) -> list[Row]:
    """Rows of both tables, told apart by the column `table` (hips | series); writes `<hip_visit>.safetensors`."""
    found, rows = read(item, params)
    groups, others = grouped(found, params)
    rows += [series_row(one, "unused", why) for one, why in others]
    for one in found:
        if not one.role:
            rows.append(series_row(one, "unused", one.why))
    places: list[Place] = []
    for frame, fields in sorted(groups.items()):
        for roles in fields:
            places.append(place_of(frame, roles, params, places))
        # The first of two may have shown a head that is sure enough only beside the other.
        if len(fields) > 1 and not places[-len(fields)].located.heads:
            places[-len(fields)] = place_of(frame, fields[0], params, places)
    # The frame of reference with most heads and T1 leads; another, or another field of view, adds what it lacks.
    places.sort(key=lambda place: (-len(place.located.heads), "t1" not in place.roles, place.frame))
    used: set[str] = set()
    answer: list[Row] = []
    for side in SIDES:
        row = hip_row(item, side, places, params, out, used)
        if row is not None:
            answer.append(row)
    for place in places:
        for ready in place.roles.values():
            series = ready.one.stack.series
            why = "no hip could be measured in it" if place.located.heads else "no femoral head was found in it"
            status, reason = ("used", "") if series in used else ("unused", why)
            rows.append(series_row(ready.one, status, reason) | ready.quality)
    rows.sort(key=lambda row: (row["series"], row["role"], row["reason"]))
    if params.sheets and rows:
        name = f"{item.payload['study']}.png"
        with replacing(out / name) as partial:
            partial.write_bytes(picture(answer, rows, places, out))
        rows[0]["owns"] = name
    return answer + rows


def read(item: Item, params: Params) -> tuple[list[Candidate], list[Row]]:
    """The visit's stacks that are volumes, and rows for what is none."""
    found: list[Candidate] = []
    rows: list[Row] = []
    for archive in item.payload["archives"]:
        try:
            stacks, unusable = read_stacks(archives.read(Path(archive)))
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            reason = f"archive cannot be read ({type(error).__name__})"
            rows.append(row_of("", item.payload["study"], "", "", None, 0, "rejected", reason))
            continue
        for none in unusable:
            rows.append(row_of(none.series, none.study, "", none.vendor, None, none.frames, "rejected", none.reason))
        for stack in told(stacks):
            try:
                array, measured, frames = volume(stack)
                found.append(candidate(stack, array, measured, frames, params))
            except BadInput as error:
                rows.append(unfit(stack, str(error)))
            except UNREADABLE as error:
                rows.append(unfit(stack, f"malformed: pixels that cannot be read ({type(error).__name__})"))
    return found, rows


def unfit(stack: Stack, reason: str) -> Row:
    return row_of(stack.series, stack.study, "", stack.vendor, None, len(stack.frames), "rejected", reason)


def picture(answer: list[Row], rows: list[Row], places: list[Place], out: Path) -> bytes:
    """The visit's QC sheet."""
    slices: dict[str, dict[str, NDArray]] = {}
    for row in answer:
        if row["file"]:
            hip = hips.read(out / row["file"], list(ROLES))
            slices[row["side"]] = {role: hip.middle(role) for role in hip.tensors}
    leading = next((place for place in places if place.located.heads), None)
    if leading is None:
        return sheet.sheet(answer, rows, None, slices)
    shown = leading.roles[leading.by].image, list(leading.located.heads.values())
    return sheet.sheet(answer, rows, shown, slices)


def series_row(one: Candidate, status: str, reason: str) -> Row:
    physics = one.stack.physics
    return row_of(
        one.stack.series, one.stack.study, one.role, one.stack.vendor, one.volume, one.volume.array.shape[0],
        status, reason,
    ) | {
        "frame_of_reference": one.stack.frame_of_reference, "plane": one.plane,
        "affine": [float(v) for v in one.volume.affine.ravel()], "shape": [float(n) for n in one.volume.array.shape],
        "sops": "+".join(one.sops), "frames": "+".join(str(n) for n in one.numbers),
        "tr_ms": physics["tr_ms"], "te_ms": physics["te_ms"], "ti_ms": physics["ti_ms"],
        "gap_mm": one.measured.gap_mm, "uneven_mm": one.measured.uneven_mm, "tilt_deg": one.measured.tilt_deg,
        "missing_slices": float(one.measured.missing), "duplicate_slices": float(one.measured.duplicates),
    }  # fmt: skip


def row_of(
    series: str, study: str, role: str, vendor: str, image: Volume | None, slices: int, status: str, reason: str
) -> Row:
    spacing = None if image is None else [float(v) for v in image.spacing]
    return {
        "table": "series", "study": study, "series": series, "role": role, "vendor": vendor, "spacing_mm": spacing,
        "slices": float(slices), "status": status, "reason": reason, "owns": "",
    }  # fmt: skip
