"""One visit: its study archives in, its hips out. `process` never raises for bad data; rows say what and why."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.domain.errors import BadInput
from tasks.domain.hip import ROLES, SIDES, Side, hip_visit
from tasks.domain.volume import Grid, Volume
from tasks.standardize import intensity
from tasks.standardize.locate import RAYS, Head, Located, block_mean, locate
from tasks.standardize.params import Params
from tasks.standardize.roles import Candidate, candidate, rank
from tasks.store import archives, hips
from tasks.store.items import Item
from tasks.store.resample import resample
from tasks.store.series import read_stacks, volume

Row = dict[str, Any]


def process(item: Item, params: Params, out: Path) -> list[Row]:
    """Rows of both tables, told apart by the column `table` (hips | series); writes `<hip_visit>.safetensors`."""
    found, rows = read(item, params)
    groups: dict[str, dict[str, Candidate]] = {}
    for one in sorted((c for c in found if c.role), key=lambda c: rank(c, params)):
        # Without a frame of reference a series shares its place with its own study's series only by assumption.
        frame = one.stack.frame_of_reference or one.stack.study
        roles = groups.setdefault(frame, {})
        if one.role in roles:
            rows.append(series_row(one, "unused", f"another series of this visit is a better {one.role}"))
        else:
            roles[one.role] = one
    for one in found:
        if not one.role:
            rows.append(series_row(one, "unused", one.why))
    placed = {frame: (roles, *localize(roles, params)) for frame, roles in groups.items()}
    # The frame of reference with T1 and most heads leads; another adds the roles that it lacks.
    order = sorted(placed, key=lambda f: (-len(placed[f][1].heads), "t1" not in placed[f][0], f))
    used: set[str] = set()
    answer: list[Row] = []
    for side in SIDES:
        row = hip_row(item, side, [placed[frame] for frame in order], params, out, used)
        if row is not None:
            answer.append(row)
    for roles, located, _ in placed.values():
        for one in roles.values():
            key = one.stack.series + one.role
            if key in used:
                rows.append(series_row(one, "used", ""))
            else:
                reason = "no hip could be measured in it" if located.heads else "no femoral head was found in it"
                rows.append(series_row(one, "unused", reason))
    rows.sort(key=lambda row: (row["series"], row["role"], row["reason"]))
    return answer + rows


def read(item: Item, params: Params) -> tuple[list[Candidate], list[Row]]:
    """The visit's stacks that are volumes, and rows for what is none."""
    found: list[Candidate] = []
    rows: list[Row] = []
    for archive in item.payload["archives"]:
        try:
            stacks, unusable = read_stacks(archives.read(Path(archive)))
        except (OSError, ValueError) as error:
            reason = f"archive cannot be read ({type(error).__name__})"
            rows.append(row_of("", item.payload["study"], "", "", None, 0, "rejected", reason))
            continue
        for none in unusable:
            rows.append(row_of(none.series, none.study, "", none.vendor, None, none.frames, "rejected", none.reason))
        for stack in stacks:
            try:
                array, measured, _ = volume(stack)
            except BadInput as error:
                count = len(stack.frames)
                rows.append(
                    row_of(stack.series, stack.study, "", stack.vendor, None, count, "rejected", str(error))
                )  # fmt: skip
                continue
            found.append(candidate(stack, array, measured, params))
    return found, rows


def localize(roles: dict[str, Candidate], params: Params) -> tuple[Located, str]:
    """Heads in one frame of reference, by its T1, else by contrast or fluid; and the role that showed them."""
    best, by = Located(), ""
    for role in ("t1", "contrast", "fluid"):
        if role not in roles:
            continue
        located = locate(roles[role].volume, 1 if role == "t1" else 0, params.localizer)
        if not by or len(located.heads) > len(best.heads):
            best, by = located, role
        if best.heads:
            break
    return best, by


def hip_row(
    item: Item,
    side: Side,
    placed: list[tuple[dict[str, Candidate], Located, str]],
    params: Params,
    out: Path,
    used: set[str],
) -> Row | None:
    """One hip: its row, and its file when it is ok. None where the visit does not show this side at all."""
    key = hip_visit(item.payload["study"], side)
    row: Row = {
        "table": "hips", "hip_visit": key, "subject": item.payload["subject"], "study": item.payload["study"],
        "side": side, "roles": "", "status": "not_measurable", "reason": "", "file": "", "digest": "", "owns": "",
    }  # fmt: skip
    there = [(roles, located, by) for roles, located, by in placed if side in located.heads]
    if not there:
        reasons = [located.missing[side] for _, located, _ in placed if side in located.missing]
        one_hip = any(located.heads for _, located, _ in placed) and not reasons
        if one_hip:
            return None
        return row | {"reason": reasons[0] if reasons else "no series of the protocol's roles"}
    roles, located, by = there[0]
    head = located.heads[side]
    x, y, z = (float(v) for v in head.centre)
    row |= {
        "center_x_mm": x, "center_y_mm": y, "center_z_mm": z, "radius_mm": head.radius,
        "confidence": head.confidence, "located_by": by, "side_from": located.side_from,
        "conflict": conflicts(located, roles, side), "frame_of_reference": roles[by].stack.frame_of_reference,
    }  # fmt: skip
    chosen: dict[str, tuple[Candidate, Head, list[NDArray]]] = {}
    left_out: list[str] = []
    for roles, located, _ in there:
        for role in ROLES:
            if role not in roles or role in chosen:
                continue
            shown = coverage(roles[role].volume, located.heads[side])
            if shown < params.quality.coverage:
                left_out.append(f"{role} shows {shown:.0%} of the head")
                continue
            centres = [h.centre for h in located.heads.values()]
            chosen[role] = (roles[role], located.heads[side], centres)
    tensors: dict[str, NDArray] = {}
    per_tensor = ("scale", "grids", "sources", "source_spacing_mm", "patient_affine", "frame_of_reference")
    meta: Row = {name: {} for name in per_tensor}
    for role in list(chosen):
        one, place, centres = chosen[role]
        image = intensity.unbiased(one.volume, params.n4) if params.n4.enabled else one.volume
        boxes = intensity.around(image, centres)
        level = intensity.levels(boxes, params.percentiles)
        found = intensity.quality(boxes, level, float(image.array.max()))
        row |= {f"{name}_{role}": value for name, value in found.items()}
        if found["clipped"] > params.quality.clipped:
            left_out.append(f"{role} is clipped in {found['clipped']:.0%} of its voxels")
            del chosen[role]
            continue
        grids = {role: params.visit_grid.grid()}
        if role == "contrast":
            grids["contrast_fine"] = params.fine_grid.grid()
        for name, grid in grids.items():
            affine = grid.patient_affine(place.centre, side)
            values = (on_grid(image, affine, grid) - level[0]) / (level[1] - level[0])
            tensors[name], meta["scale"][name] = hips.quantize(np.clip(values, -params.ceiling, params.ceiling))
            meta["grids"][name] = {"shape": list(grid.shape), "spacing": list(grid.spacing)}
            meta["sources"][name] = one.stack.series
            meta["source_spacing_mm"][name] = [round(float(mm), 4) for mm in image.spacing]
            meta["patient_affine"][name] = affine.tolist()
            meta["frame_of_reference"][name] = one.stack.frame_of_reference
    row["roles"] = "+".join(role for role in ROLES if role in chosen)
    row["left_out"] = "; ".join(left_out)
    refused = refusal(row, chosen, by, params)
    if refused:
        return row | refused
    for one, _, _ in chosen.values():
        used.add(one.stack.series + one.role)
    meta |= {"center_lps": [x, y, z], "side": side, "mirrored": side == "R"}
    row |= {
        "coverage_fraction": float(np.mean([coverage(one.volume, place) for one, place, _ in chosen.values()])),
        "snr": row[f"snr_{by}"] if by in chosen else row[f"snr_{next(iter(chosen))}"],
        "status": "ok", "digest": digest(tensors, meta), "file": f"{key}.safetensors", "owns": f"{key}.safetensors",
    }  # fmt: skip
    hips.write(out / row["file"], hips.HipFile(tensors, meta))
    return row


def refusal(row: Row, chosen: dict[str, Any], by: str, params: Params) -> Row | None:
    """Status and reason of a hip that was found and yet is not used."""
    if not chosen:
        return {"status": "not_measurable", "reason": row["left_out"] or "no role shows the head"}
    for role, wanted in params.roles.items():
        if wanted.missing == "not_measurable" and role not in chosen:
            return {"status": "not_measurable", "reason": f"no {role}; {row['left_out']}".rstrip("; ")}
    snr = row[f"snr_{by}"] if by in chosen else row[f"snr_{next(iter(chosen))}"]
    if snr < params.quality.snr:
        return {"status": "rejected", "reason": f"SNR {snr:.1f}, below {params.quality.snr:g}"}
    return None


def conflicts(located: Located, roles: dict[str, Candidate], side: Side) -> str:
    """Where the header or a second look disagrees with the side that geometry gave. Geometry is kept."""
    notes = [located.conflict] if located.conflict else []
    said = {one.stack.laterality for one in roles.values() if one.stack.laterality in SIDES}
    if len(located.heads) == 1 and said and side not in said:
        notes.append(f"Laterality says {'+'.join(sorted(said))}")
    return "; ".join(notes)


def coverage(image: Volume, head: Head) -> float:
    """Share of the ball of the head (and its rim) that lies in the volume."""
    shells = np.concatenate([RAYS * (head.radius * share) for share in (0.4, 0.7, 0.9, 1.05)])
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
