"""One hip of a visit: its series onto its grids, or why not."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.domain.hip import ROLES, SIDES, Side, hip_visit
from tasks.domain.volume import Grid, Volume
from tasks.standardize.balls import block_mean
from tasks.standardize.locate import Head
from tasks.standardize.params import Params, Quality
from tasks.standardize.place import ELSEWHERE, Place, Ready, body_part, coverage
from tasks.store import hips
from tasks.store.items import Item
from tasks.store.resample import resample

Row = dict[str, Any]


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
    """Where the header disagrees with the side that geometry gave. Geometry is kept."""
    said = {ready.one.stack.laterality for ready in place.roles.values()} & set(SIDES)
    parts = {body_part(ready.one) for ready in place.roles.values()} & ELSEWHERE
    notes = [f"its header says {'+'.join(sorted(parts))}"] if parts else []
    if len(place.located.heads) == 1 and said and side not in said:
        notes.append(f"Laterality says {'+'.join(sorted(said))}")
    return "; ".join(notes)


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
