"""From a hip file and its predicted masks to one row of measurements."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks.domain.disease import JIC
from tasks.measure import change, shapes, signals
from tasks.measure.params import Params
from tasks.measure.shapes import Mask, Spacing, Sphere
from tasks.measure.vessels import measure_tree
from tasks.store import hips, items, tables
from tasks.store.digests import combine, sha256_bytes, sha256_file
from tasks.store.items import Item, Mapper, Rows

HIPS, HIP_TABLE = Path("data/hips"), Path("data/hips.parquet")
SEGMENTS, MEASURES = Path("data/segments"), Path("data/measures.parquet")

WITH_ERROR = (
    "lesion_fraction", "lesion_volume_mm3", "kerboul_deg", "kerboul_coronal_deg", "kerboul_sagittal_deg",
    "necrotic_index", "lateral_deg", "collapse_mm", "oedema_index", "effusion_index", "enhanced_fraction",
    "lesion_enhanced_fraction", "vessel_length_mm", "vessel_branches", "vessel_mean_radius_mm",
    "vessel_max_radius_mm", "vessel_density_mm_cm3", "vessel_in_lesion_mm",
)  # fmt: skip
"""Every measurement; each has `<name>_se` beside it."""

log = logging.getLogger("osteoflow.measure")


def run(params: Params, mapper: Mapper) -> None:
    work = pending(params)
    rows = items.run(
        "measure", work, process, params, previous=_previous(), out=MEASURES.parent, mapper=mapper
    )  # fmt: skip
    finish(rows, params)


def _previous() -> pd.DataFrame:
    return tables.read("measures", MEASURES) if MEASURES.exists() else tables.empty("measures")


def pending(params: Params) -> list[Item]:
    """One item for each usable hip-visit, in the order of the manifest."""
    table = tables.read("hips", HIP_TABLE)
    usable = {row["hip_visit"]: row for row in table[table["status"] == "ok"].to_dict("records")}

    def paths(row: Mapping[Any, Any]) -> tuple[Path, Path]:
        return HIPS / row["file"], SEGMENTS / f"{row['hip_visit']}.safetensors"

    found = []
    for row in usable.values():
        first = usable.get(row.get("first_visit"))
        found.append(item_of(*paths(row), row, None if first is None else paths(first)))
    return found


def item_of(hip_path: Path, segment_path: Path, row: Mapping[Any, Any], first: tuple[Path, Path] | None = None) -> Item:
    """The item of one hip-visit. `row` is its row of hips.parquet; the mask file may be missing. `first`: hip and mask
    file of the hip's first visit, from which change is measured."""
    columns = {name: row[name] for name in ("hip_visit", "subject", "study", "side", "days")}
    masks = sha256_file(segment_path) if segment_path.exists() else sha256_bytes(b"")
    payload: dict[str, Any] = {"hip": str(hip_path), "segment": str(segment_path)}
    digest = combine(sha256_file(hip_path), masks)
    pose, residual = row.get("to_first"), row.get("align_residual_mm")
    if first is not None:
        itself = first[0] == hip_path
        to_first = None if pose is None or np.ndim(pose) == 0 else [float(v) for v in pose]
        residual_mm = 0.0 if residual is None or np.isnan(residual) else float(residual)
        payload |= {"first": None if itself else [str(path) for path in first], "to_first": to_first}
        payload |= {"first_visit": None if itself else row.get("first_visit"), "residual_mm": residual_mm}
        before = [] if itself else [sha256_file(path) for path in first if path.exists()]
        digest = combine(digest, *before, sha256_bytes(repr((to_first, residual_mm)).encode()))
    return Item(key=str(row["hip_visit"]), digest=digest, payload=payload, columns=columns)


def finish(rows: Rows, params: Params) -> None:
    frame = change.with_errors(pd.DataFrame(rows)) if rows else tables.empty("measures")
    tables.write("measures", MEASURES, frame, sort_by=["hip_visit"])
    if rows:
        measured = int((frame["status"] == "ok").sum())
        vessels = int((frame["vessel_status"] == "ok").sum())
        log.info("%d hip-visits: masks measured in %d, vessels in %d", len(frame), measured, vessels)


def process(item: Item, params: Params, out: Path) -> Rows:
    """The row of one hip-visit. Never raises for bad data: what cannot be measured says why."""
    row: dict[str, Any] = dict.fromkeys(WITH_ERROR, np.nan) | {f"{name}_se": np.nan for name in WITH_ERROR}
    row |= {
        "status": "not_measurable",
        "reason": None,
        "jic": None,
        "jic_rank": np.nan,
        "radius_mm": np.nan,
        "owns": "",
    }
    row["vessel_status"] = "not_measurable:no_masks"
    row |= change.NONE | {"change_status": "not_measurable:no_masks"}
    hip = hips.read(Path(item.payload["hip"]))
    if not Path(item.payload["segment"]).exists():
        return [row | {"reason": "no predicted masks for this hip-visit"}]
    masks = hips.read(Path(item.payload["segment"]))
    rng = np.random.default_rng([params.seed, int(sha256_bytes(item.key.encode())[:12], 16)])
    if "head" not in masks.tensors or not masks.tensors["head"].any():
        row["reason"] = "no head mask"
        head_sphere = None
    else:
        spacing = _spacing(hip, masks, "head")
        head = masks.tensors["head"] > 0
        lesion = masks.tensors.get("lesion", np.zeros_like(head)) > 0
        head_sphere = shapes.fit_sphere(head, spacing)
        if head_sphere is None or head.sum() * spacing.prod() < params.min_head_mm3:
            row["reason"] = "the head mask is not a femoral head: too small, or no sphere fits it"
            head_sphere = None
        else:
            row |= _shape_row(hip, head, lesion, spacing, params, rng)
            row |= {"status": "ok", "reason": None, "radius_mm": head_sphere.radius}
    row["vessel_status"] = _vessel_status(hip, masks, params)
    if row["vessel_status"] == "ok":
        row |= _vessel_row(hip, masks, head_sphere, params, rng)
    return [row | _change(item, row, hip, masks, params)]


def _change(
    item: Item, row: Mapping[str, Any], hip: hips.HipFile, masks: hips.HipFile, params: Params
) -> dict[str, Any]:
    """Change since the first visit, where both visits show the hip; or why there is none."""
    if "first" not in item.payload:  # standardize.align is off, or the visit was scored on arrival
        return change.NONE | {"change_status": "not_measurable:not_registered"}
    if item.payload["first"] is None:
        return change.first_of(row)
    if item.payload["to_first"] is None:
        return change.NONE | {"change_status": "not_measurable:not_registered"}
    hip_path, segment_path = (Path(path) for path in item.payload["first"])
    if not segment_path.exists():
        return change.NONE | {"change_status": "not_measurable:first_visit_not_at_hand"}

    def visit(hip: hips.HipFile, masks: hips.HipFile) -> change.Visit:
        usable = _vessel_status(hip, masks, params) == "ok"
        spacing = {name: _spacing(hip, masks, "vessel" if name == "vessel" else "head") for name in masks.tensors}
        return change.Visit(hip, masks, spacing, usable)

    known: dict[str, tuple[float, int]] = {}

    def tree(mask: Mask, spacing: Spacing) -> tuple[float, int]:
        key = sha256_bytes(np.packbits(mask).tobytes())  # where the pictures' ends cut nothing, repeats are the same
        if key not in known:
            found = measure_tree(mask, tuple(spacing), params.spur_mm, params.junction_mm, params.smooth_mm)
            known[key] = found.length_mm, found.branches
        return known[key]

    to_first = np.array(item.payload["to_first"]).reshape(4, 4)
    now, first = visit(hip, masks), visit(hips.read(hip_path), hips.read(segment_path))
    found = change.change(now, first, to_first, params, tree)
    rng = np.random.default_rng([params.seed, 1, int(sha256_bytes(item.key.encode())[:12], 16)])
    error = change.of_registration(now, first, to_first, item.payload["residual_mm"], params, tree, rng)
    return found | error | {"first_visit": item.payload["first_visit"]}


def _spacing(hip: hips.HipFile, masks: hips.HipFile, name: str) -> Spacing:
    """Of a mask's grid, in mm: named in its own file, else that of the volume it was drawn on."""
    grids = masks.meta.get("grids", {}) | {
        "head" if tensor != "contrast_fine" else "vessel": grid for tensor, grid in hip.meta.get("grids", {}).items()
    }
    return np.asarray((masks.meta.get("grids", {}).get(name) or grids[name])["spacing"], dtype=np.float64)


def _shape_row(
    hip: hips.HipFile, head: Mask, lesion: Mask, spacing: Spacing, params: Params, rng: np.random.Generator
) -> dict[str, Any]:
    values: dict[str, signals.Image] = {n: hip.values(n) for n in ("fluid", "contrast") if n in hip.tensors}
    found = _shape(values, head, lesion, spacing, params)
    outer, inner = shapes.Border.of(head, spacing), shapes.Border.of(lesion, spacing)
    repeats = []
    for _ in range(params.repeats):
        again, dead = outer.moved(params.border_mm, rng), inner.moved(params.border_mm, rng)
        gain, off_mm = 1 + params.gain * rng.normal(), params.centre_slices * float(spacing[0]) * rng.normal()
        seen = {name: np.float32(gain) * image for name, image in values.items()}
        repeats.append(_shape(seen, again, dead, spacing, params, off_mm))
    kind = shapes.jic(found["lateral_deg"], params.weight_bearing_deg)
    return found | _errors(repeats) | {"jic": kind, "jic_rank": np.nan if kind is None else float(JIC.index(kind))}


def _shape(
    values: Mapping[str, signals.Image], head: Mask, lesion: Mask, spacing: Spacing, params: Params, off_mm: float = 0.0
) -> dict[str, float]:
    """`off_mm`: by how much the middle of the head is taken to lie further along the slices."""
    voxel = float(spacing.prod())
    sphere = shapes.fit_sphere(head, spacing)
    if sphere is None:
        return {}
    lesion = lesion & head
    if lesion.sum() * voxel < params.min_lesion_mm3:
        lesion = np.zeros_like(lesion)
    middle = shapes.Sphere(sphere.centre + np.array([off_mm, 0.0, 0.0]), sphere.radius)
    arcs = shapes.arcs(lesion, middle, spacing, largest=False)
    widest = shapes.arcs(lesion, sphere, spacing, largest=True)
    row = {
        "lesion_fraction": float(lesion.sum() / max(int(head.sum()), 1)),
        "lesion_volume_mm3": float(lesion.sum()) * voxel,
        "kerboul_deg": arcs.coronal + arcs.sagittal,
        "kerboul_coronal_deg": arcs.coronal,
        "kerboul_sagittal_deg": arcs.sagittal,
        "necrotic_index": shapes.necrotic_index(widest),
        "lateral_deg": arcs.lateral,
        "collapse_mm": shapes.collapse_depth(head, sphere, spacing, params.collapse_sector_deg),
    }
    if "fluid" in values:
        row["oedema_index"] = signals.oedema(values["fluid"], lesion, sphere, spacing, params.oedema_level)
        row["effusion_index"] = signals.effusion(values["fluid"], sphere, spacing, params.effusion_level)
    if "contrast" in values:
        row["enhanced_fraction"] = signals.enhancement(values["contrast"], head, params.enhanced_level)
        row["lesion_enhanced_fraction"] = signals.enhancement(values["contrast"], lesion, params.enhanced_level)
    return row


def _vessel_status(hip: hips.HipFile, masks: hips.HipFile, params: Params) -> str:
    if "contrast_fine" not in hip.tensors:
        return "not_measurable:no_contrast_series"
    if "vessel" not in masks.tensors:
        return "not_measurable:no_vessel_mask"
    acquired = hip.meta.get("source_spacing_mm", {}).get("contrast_fine")
    if acquired is None:
        return "not_measurable:contrast_spacing_unknown"
    if max(acquired) > params.vessel_max_spacing_mm + 0.01:
        return "not_measurable:contrast_too_coarse"
    return "ok"


def _vessel_row(
    hip: hips.HipFile, masks: hips.HipFile, sphere: Sphere | None, params: Params, rng: np.random.Generator
) -> dict[str, float]:
    spacing = _spacing(hip, masks, "vessel")
    vessel = masks.tensors["vessel"] > 0
    lesion = (masks.tensors["lesion"] > 0, _spacing(hip, masks, "head")) if "lesion" in masks.tensors else None
    found = _vessels(vessel, lesion, spacing, sphere, params)
    border = params.border_voxels * float(spacing.mean())
    wall = shapes.Border.of(vessel, spacing)
    # A vessel is three voxels wide: how they fall on it changes more than where its wall is seen.
    again = [wall.elsewhere(rng).moved(border, rng) for _ in range(params.repeats)]
    return found | _errors([_vessels(one, lesion, spacing, sphere, params) for one in again])


def _vessels(
    vessel: Mask, lesion: tuple[Mask, Spacing] | None, spacing: Spacing, sphere: Sphere | None, params: Params
) -> dict[str, float]:
    tree = measure_tree(vessel, tuple(spacing), params.spur_mm, params.junction_mm, params.smooth_mm)
    row = {
        "vessel_length_mm": tree.length_mm,
        "vessel_branches": float(tree.branches),
        "vessel_mean_radius_mm": tree.mean_radius_mm if tree.length_mm else np.nan,
        "vessel_max_radius_mm": tree.max_radius_mm if tree.length_mm else np.nan,
    }
    if sphere is not None:
        row["vessel_density_mm_cm3"] = tree.length_mm / (4 / 3 * np.pi * sphere.radius**3 / 1000)
    if lesion is not None:
        mask, visit_spacing = lesion
        # Both grids have the centre of the head at their middle.
        from_middle = tree.points_mm - (np.array(vessel.shape) - 1) / 2 * spacing
        index = np.round(from_middle / visit_spacing + (np.array(mask.shape) - 1) / 2).astype(int)
        index = index[((index >= 0) & (index < mask.shape)).all(axis=1)]
        share = mask[tuple(index.T)].sum() / max(len(tree.points_mm), 1)
        row["vessel_in_lesion_mm"] = float(share) * tree.length_mm
    return row


def _errors(repeats: list[dict[str, float]]) -> dict[str, float]:
    """SD over the repeats: what the same hip would measure if it were imaged and drawn again."""
    table = pd.DataFrame(repeats)
    return {f"{name}_se": float(table[name].std(ddof=1)) for name in table if table[name].notna().sum() > 1}
