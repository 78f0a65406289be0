"""One visit: its study archives in, its hips out. `process` never raises for bad data; rows say what and why."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tasks.domain.errors import BadInput
from tasks.domain.hip import ROLES, SIDES, Side, hip_visit
from tasks.domain.volume import Grid, Volume
from tasks.standardize import intensity, quality, sheet
from tasks.standardize.balls import block_mean
from tasks.standardize.locate import Head, Located, locate, opposite
from tasks.standardize.params import Params, Quality
from tasks.standardize.rim import ROUGH
from tasks.standardize.roles import Candidate, candidate, rank, told
from tasks.store import archives, hips
from tasks.store.files import replacing
from tasks.store.items import Item
from tasks.store.parsed import UNREADABLE
from tasks.store.resample import resample
from tasks.store.series import Stack, read_stacks, volume

SHOWN = 0.5
"""A series shows a head whose place is known where it holds this share of it."""

Row = dict[str, Any]
Name = Literal["t1", "fluid", "contrast"]


def process(item: Item, params: Params, out: Path) -> list[Row]:
    """Rows of both tables, told apart by the column `table` (hips | series); writes `<hip_visit>.safetensors`."""
    found, rows = read(item, params)
    groups, others = grouped(found, params)
    rows += others
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


def grouped(found: list[Candidate], params: Params) -> tuple[dict[str, list[dict[Name, Candidate]]], list[Row]]:
    """{frame of reference: fields of view, each with its roles}, best series first; and rows of those not needed. A
    frame has several fields where its series show each hip for itself."""
    groups: dict[str, list[dict[Name, Candidate]]] = {}
    rows = []
    for one in sorted((c for c in found if c.role), key=lambda c: rank(c, params)):
        # Without a frame of reference a series shares its place with its own study's series only by assumption.
        fields = groups.setdefault(one.stack.frame_of_reference or one.stack.study, [])
        same = [roles for roles in fields if one.role in roles and not one.beside(roles[one.role])]  # type: ignore[index]
        free = [roles for roles in fields if one.role not in roles]
        near = [roles for roles in free if not any(one.beside(other) for other in roles.values())]
        if same:
            rows.append(series_row(one, "unused", f"another series of this visit is a better {one.role}"))
        elif near:
            near[0][one.role] = one  # type: ignore[index]
        else:
            fields.append({one.role: one})  # type: ignore[dict-item]
    return groups, rows


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


@dataclass(frozen=True)
class Ready:
    """A series with its role: the image that is resampled, the intensity that becomes 1, and QC about the hips."""

    one: Candidate
    image: Volume
    unit: float
    quality: dict[str, float | None]


@dataclass(frozen=True)
class Place:
    """One frame of reference: its series, and the heads that the series of role `by` showed."""

    frame: str
    roles: dict[str, Ready]
    located: Located
    by: str


def place_of(frame: str, roles: dict[Name, Candidate], params: Params, before: list[Place]) -> Place:
    """A field of view whose frame has shown its head already (`before`) need not show it again; one that shows the
    other hip is looked at with that in mind."""
    located, by = known(frame, roles, before) or localize(roles, params)
    single = [place for place in before if place.frame == frame and len(place.located.heads) == 1]
    if single and not located.heads:
        (head,) = single[0].located.heads.values()
        beside = opposite(roles[by].volume, 1 if by == "t1" else 0, head, params.localizer)  # type: ignore[index]
        located = beside if beside.heads else located
    centres = [head.centre for head in located.heads.values()]
    ready: dict[str, Ready] = {}
    for role, one in roles.items():
        image = intensity.unbiased(one.volume, params.n4) if params.n4.enabled and centres else one.volume
        boxes = intensity.around(image, centres)
        if not boxes:
            ready[role] = Ready(one, image, 1.0, {})
            continue
        values, body = intensity.sample(boxes)
        found = quality.quality(image, boxes, values, body)
        ready[role] = Ready(one, image, intensity.unit(body, params.levels[role]), found)
    return Place(frame, ready, located, by)


def known(frame: str, roles: dict[Name, Candidate], before: list[Place]) -> tuple[Located, str] | None:
    role, one = next(iter(roles.items()))
    for place in before:
        heads = {s: head for s, head in place.located.heads.items() if coverage(one.volume, head) > SHOWN}
        if place.frame == frame and heads:
            return replace(place.located, heads=heads, missing={}), role
    return None


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


def localize(roles: dict[Name, Candidate], params: Params) -> tuple[Located, str]:
    """Heads in one frame of reference, by its T1, else by contrast or fluid; and the role that showed them."""
    best, by = Located(), ""
    order: tuple[Name, ...] = ("t1", "contrast", "fluid")
    for role in order:
        if role not in roles:
            continue
        located = locate(roles[role].volume, 1 if role == "t1" else 0, params.localizer)
        if not by or len(located.heads) > len(best.heads):
            best, by = located, role
        if best.heads:
            break
    return best, by


def hip_row(item: Item, side: Side, places: list[Place], params: Params, out: Path, used: set[str]) -> Row | None:
    """One hip: its row, and its file when it is ok. None where the visit does not show this side at all."""
    key = hip_visit(item.payload["study"], side)
    row: Row = {
        "table": "hips", "hip_visit": key, "subject": item.payload["subject"], "study": item.payload["study"],
        "side": side, "roles": "", "status": "not_measurable", "reason": "", "file": "", "digest": "", "owns": "",
    }  # fmt: skip
    there = [place for place in places if side in place.located.heads]
    if not there:
        reasons = [place.located.missing[side] for place in places if side in place.located.missing]
        if not reasons and any(place.located.heads for place in places):
            return None
        return row | {"reason": reasons[0] if reasons else "no series of the protocol's roles"}
    first = there[0]
    head = first.located.heads[side]
    x, y, z = (float(v) for v in head.centre)
    row |= {
        "center_x_mm": x, "center_y_mm": y, "center_z_mm": z, "radius_mm": head.radius,
        "confidence": head.confidence, "located_by": first.by, "side_from": first.located.side_from,
        "conflict": conflicts(first, side), "frame_of_reference": first.roles[first.by].one.stack.frame_of_reference,
    } | person(first)  # fmt: skip
    chosen: dict[str, tuple[Ready, Head]] = {}
    left_out: dict[str, str] = {}
    for place in there:
        for role, ready in place.roles.items():
            if role in chosen:
                continue
            seen = coverage(ready.image, place.located.heads[side])
            if seen < params.quality.coverage:
                left_out.setdefault(role, f"{role} shows {seen:.0%} of the head")
            elif why := poor(role, ready.quality, params.quality):
                left_out[role] = why
            else:
                chosen[role] = (ready, place.located.heads[side])
    row["roles"] = "+".join(role for role in ROLES if role in chosen)
    row["left_out"] = "; ".join(why for role, why in left_out.items() if role not in chosen)
    refused = refusal(row, chosen, first.by, params)
    if refused:
        return row | refused
    tensors: dict[str, NDArray] = {}
    tables = (
        "scale", "grids", "sources", "source_spacing_mm", "source_affine", "source_shape", "patient_affine",
        "frame_of_reference",
    )  # fmt: skip
    meta: Row = {name: {} for name in tables}
    meta |= {"center_lps": [x, y, z], "side": side, "mirrored": side == "R"}
    for role, (ready, where) in chosen.items():
        used.add(ready.one.stack.series)
        grids = {role: params.visit_grid.grid()}
        if role == "contrast":
            grids["contrast_fine"] = params.fine_grid.grid()
        for name, grid in grids.items():
            affine = grid.patient_affine(where.centre, side)
            values = on_grid(ready.image, affine, grid) * np.float32(1 / ready.unit)
            tensors[name], meta["scale"][name] = hips.quantize(np.clip(values, -params.ceiling, params.ceiling))
            meta["grids"][name] = {"shape": list(grid.shape), "spacing": list(grid.spacing)}
            meta["sources"][name] = ready.one.stack.series
            meta["source_spacing_mm"][name] = [float(mm) for mm in ready.one.volume.spacing]
            meta["source_affine"][name] = ready.one.volume.affine.tolist()
            meta["source_shape"][name] = [int(n) for n in ready.one.volume.array.shape]
            meta["patient_affine"][name] = affine.tolist()
            meta["frame_of_reference"][name] = ready.one.stack.frame_of_reference
    leading = first.by if first.by in chosen else next(iter(chosen))
    row |= {
        "coverage_fraction": float(np.mean([coverage(ready.image, where) for ready, where in chosen.values()])),
        "snr": chosen[leading][0].quality["snr"], "clipped": chosen[leading][0].quality["clipped"],
        "status": "ok", "digest": digest(tensors, meta), "file": f"{key}.safetensors", "owns": f"{key}.safetensors",
    }  # fmt: skip
    hips.write(out / row["file"], hips.HipFile(tensors, meta))
    return row | {f"at_{name}": values for name, values in hips.layout(out / row["file"]).items()}


def person(place: Place) -> Row:
    """Sex, age in years and maker of the scanner, as the released header of the leading series says; null when not."""
    stack = place.roles[place.by].one.stack
    header = stack.frames[0].dataset
    match = re.fullmatch(r"(\d{1,3})([DWMY])", str(header.get("PatientAge", "") or "").strip().upper())
    age = None if match is None else float(match[1]) / {"D": 365.25, "W": 52.18, "M": 12.0, "Y": 1.0}[match[2]]
    sex = str(header.get("PatientSex", "") or "").strip().upper()[:1]
    return {"sex": sex if sex in ("F", "M", "O") else None, "age_years": age, "vendor": stack.vendor or None}


def poor(role: str, found: dict[str, float | None], limits: Quality) -> str:
    """Why a series is too poor to be used, with the number; empty when it is not."""
    if (found["clipped"] or 0) > limits.clipped:
        return f"{role} is clipped in {found['clipped']:.0%} of its voxels"
    if limits.ghosting is not None and (found["ghosting"] or 0) > limits.ghosting:
        return f"{role} has ghosts of {found['ghosting']:.0%} of the body's signal"
    if (found["motion_mm"] or 0) > limits.motion_mm:
        return f"{role} has slices {found['motion_mm']:.1f} mm beside their neighbours"
    return ""


def refusal(row: Row, chosen: dict[str, tuple[Ready, Head]], by: str, params: Params) -> Row | None:
    """Status and reason of a hip that was found and yet is not used."""
    if not chosen:
        return {"status": "not_measurable", "reason": row["left_out"] or "no role shows the head"}
    for role, wanted in params.roles.items():
        if wanted.missing == "not_measurable" and role not in chosen:
            return {"status": "not_measurable", "reason": f"no {role}; {row['left_out']}".rstrip("; ")}
    snr = chosen[by if by in chosen else next(iter(chosen))][0].quality["snr"] or 0.0
    if snr < params.quality.snr:
        return {"status": "rejected", "reason": f"SNR {snr:.1f}, below {params.quality.snr:g}"}
    return None


def conflicts(place: Place, side: Side) -> str:
    """Where the header or a second look disagrees with the side that geometry gave. Geometry is kept."""
    notes = [place.located.conflict] if place.located.conflict else []
    said = {ready.one.stack.laterality for ready in place.roles.values()} & set(SIDES)
    if len(place.located.heads) == 1 and said and side not in said:
        notes.append(f"Laterality says {'+'.join(sorted(said))}")
    return "; ".join(notes)


def coverage(image: Volume, head: Head) -> float:
    """Share of the ball of the head (and its rim) that lies in the volume."""
    shells = np.concatenate([ROUGH.rays * (head.radius * share) for share in (0.4, 0.7, 0.9, 1.05)])
    index = image.to_index(head.centre + shells)
    return float(((index > -0.5) & (index < np.array(image.array.shape) - 0.5)).all(axis=1).mean())


def on_grid(image: Volume, affine: NDArray[np.float64], grid: Grid) -> NDArray[np.float32]:
    """Linear onto the grid; where the grid is coarser than the source, source voxels are averaged first."""
    directions = np.abs(image.affine[:3, :3] / image.spacing)
    wanted = directions.T @ np.abs(affine[:3, :3]).sum(axis=1)
    factors = np.maximum(np.floor(wanted / image.spacing + 0.25), 1).astype(int)
    if (factors > 1).any():
        image = block_mean(image, factors)
    return resample(image, affine, grid.shape)


def digest(tensors: dict[str, NDArray], meta: Row) -> str:
    """SHA-256 over the tensors' bytes and their grids: equal where the images are equal."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        total.update(json.dumps([name, meta["grids"][name], meta["scale"][name]], sort_keys=True).encode())
        total.update(np.ascontiguousarray(tensors[name]).tobytes())
    return total.hexdigest()


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
