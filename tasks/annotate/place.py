"""All masks of one hip-visit onto its grids: the item-wise part of the stage."""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_closing, binary_dilation

from tasks.annotate import derived, drawn, fit, readers
from tasks.annotate.join import ADJUDICATOR, CONSENSUS
from tasks.annotate.keyed import UNNAMED
from tasks.annotate.params import Params
from tasks.domain.errors import BadInput
from tasks.store import hips
from tasks.store.items import Item, Rows

ON_SERIES = {"nifti": False, "nrrd": False, "seg.nrrd": True}
"""Kinds that name a series and no frame of reference: their grid must be the series', or a box of its voxels (True: as
3D Slicer crops them; False: as dcmqi and others do, where no mirror image of the box would fit as well)."""

HELD = 0.5
"""Of a lesion that lies in its head; of one beside its head, in a label map, hardly anything does."""

SAME = 0.5
"""Of the smaller of two masks, if the larger has it too: they are two readings and not two parts of one."""

TWICE = "drawn_twice: one import has another mask of this reader over it; name the readers, or leave one out"

REPLACED = "replaced: a later import has another mask, and neither names its reader; name both to keep both"

PLANES = ("label_studio", "scoord")
"""Kinds that are drawn on single slices; they have no place of their own."""


def process(item: Item, params: Params, out: Path) -> Rows:
    """Rows of data/masks.parquet for one hip-visit, and its mask file below `out`.

    payload: hip (row of hips.parquet as a dict), path of its file, other (centre of the other hip or None), masks
    (rows of the imports with `path`, `number` and `source`), series {UID: {study, stacks [geometry]}}, lesion_free
    [readers].
    """
    payload = item.payload
    hip = payload["hip"]
    base = {"hip_visit": hip["hip_visit"], "subject": hip["subject"], "side": hip["side"], "owns": None}
    try:
        meta = hips.read(Path(payload["path"]), []).meta
    except (OSError, ValueError) as error:
        reason = f"unreadable_hip: {type(error).__name__}"
        return [base | _row(mask, "rejected", reason) for mask in payload["masks"]]
    other = payload["other"]
    target = fit.Target(
        hip["side"],
        np.array([hip[f"center_{axis}_mm"] for axis in "xyz"], dtype=np.float64),
        None if other is None else np.array(other, dtype=np.float64),
        meta,
        float(hip.get("radius_mm") or fit.LEAST_RADIUS_MM),
    )
    rows: Rows = []
    astray: set[tuple[Any, ...]] = set()
    taken: dict[tuple[str, str], dict[str, Any]] = {}
    for masks in _gathered(payload["masks"], payload["series"]):
        mask = masks[0]
        if mask["refused"]:
            rows.append(base | _row(mask, "rejected", mask["refused"]))
            continue
        try:
            values, tensor, mm = _on_hip(masks, target, payload["series"], params)
        except fit.Elsewhere:
            continue
        except BadInput as error:
            row = _row(mask, "rejected", str(error)) | {"difference_mm": getattr(error, "mm", None)}
            rows.append(base | row)
            if getattr(error, "astray", False):
                astray.add((mask["number"], mask["kind"], mask["reader"]))
            continue
        key = (mask["reader"], mask["label"])
        earlier = taken.get(key)
        if earlier is not None and earlier["number"] == mask["number"]:  # e.g. one structure for each part of a lesion
            if _document(mask) not in earlier["documents"] and _same_twice(earlier["values"], values):
                rows.append(base | _row(mask, "rejected", TWICE))
                continue
            earlier["values"] |= values
            earlier["documents"].add(_document(mask))
            continue
        if earlier is not None and mask["reader"] == UNNAMED:
            rows.append(base | _row(earlier["mask"], "rejected", REPLACED))
        taken[key] = {  # a later import corrects the earlier
            "values": values, "number": mask["number"], "mask": mask, "tensor": tensor, "mm": mm,
            "documents": {_document(mask)},
        }  # fmt: skip
    for key, reason in [*_astray(taken, astray), *_beside_heads(taken)]:
        rows.append(base | _row(taken.pop(key)["mask"], "rejected", reason))
    _add_lesion_free(taken, payload["lesion_free"], target)
    return _finish(base, rows, taken, target, params, out)


def _gathered(masks: list[dict[str, Any]], series: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """The earliest import first; planes of one stack, reader and label together: only as a volume do they fit."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for mask in sorted(masks, key=lambda m: (m["number"], m["source"], m["file"])):
        key: tuple[Any, ...] = (mask["source"], mask["file"])
        if mask["kind"] in PLANES:
            number = _number(mask, _stacks(mask, series))
            key = (mask["reader"], mask["label"], mask["side"] or "", mask["series"], number)
        groups[mask["number"], *key].append(mask)
    return list(groups.values())


def _on_hip(
    masks: list[dict[str, Any]], target: fit.Target, series: dict[str, Any], params: Params
) -> tuple[NDArray[np.uint8], str, float]:
    """(the mask on the hip's grid, the tensor whose grid that is, mm from its middle to the head's centre)."""
    mask = masks[0]
    if mask["side"] and mask["side"] != target.side:
        raise fit.Elsewhere
    array, affine, meta = drawn.from_file(hips.read(Path(mask["path"])))
    own = _own(mask, _stacks(mask, series), meta, params)
    if affine is None:
        array, affine = _stacked(masks, own)
    elif mask["thick"] == "no" and own and own.get("slice_mm"):
        wider = affine[:3, 0] * (own["slice_mm"] / np.linalg.norm(affine[:3, 0]) - 1)
        affine = affine.copy()
        affine[:3, 0] += wider
        affine[:3, 3] -= wider  # its plane, behind the empty one that `from_file` adds, stays where it was drawn
    frame = mask["frame"] or (own or {}).get("frame")
    tensor, proven = fit.tensor_for(target, mask["label"], frame, mask["series"])
    if not array.any():
        if not mask["side"]:
            raise BadInput("empty", "holds no voxel and claims no side")
        return np.zeros(target.grid(tensor)[1], dtype=np.uint8), tensor, 0.0
    if not proven:
        mm = float(np.linalg.norm(fit.middle_of(array, affine) - target.centre))
        if frame:
            raise fit.Unfit("other_frame", f"drawn in another frame of reference; read here, {mm:.0f} mm away", mm)
        raise fit.Unfit("unproven", f"its series is none of this visit's; read here, {mm:.0f} mm away", mm)
    part = fit.of_this_hip(array, affine, target, mask["side"] or "")
    mm = fit.check_place(mask["label"], part, affine, target, params.field_mm, params.head_offset_mm)
    fit.check_size(mask["label"], part, affine, target)
    values = fit.on_grid(mask["label"], part, affine, *target.grid(tensor))
    if not values.any():
        raise BadInput("lost", "nothing of it is left on the hip's grid")
    return values, tensor, mm


def _document(mask: dict[str, Any]) -> object:
    """What tells masks of one file from those of another."""
    return mask["file"] if mask.get("document") is None else mask["document"]


def _same_twice(one: NDArray[np.uint8], two: NDArray[np.uint8]) -> bool:
    return int((one & two).sum()) > SAME * min(int(one.sum()), int(two.sum()))


def _stacks(mask: dict[str, Any], series: dict[str, Any]) -> list[dict[str, Any]]:
    return list(series.get(mask["series"], {}).get("stacks", []))


def _number(mask: dict[str, Any], stacks: list[dict[str, Any]]) -> int:
    """Of the stack whose images a plane names; the first where it names none of any."""
    return next((n for n, one in enumerate(stacks) if mask["sop"] and mask["sop"] in (one["sops"] or [])), 0)


def _own(
    mask: dict[str, Any], stacks: list[dict[str, Any]], meta: dict[str, Any], params: Params
) -> dict[str, Any] | None:
    """The stack of its series (a series that shows each hip for itself has two) that the mask was drawn on. Raises
    Unfit when it was saved on the grid of none of them."""
    if mask["kind"] not in ON_SERIES:
        if meta["full"]["affine"] is None and len(stacks) > 1 and not mask["sop"]:
            raise BadInput("no_slice", "its series is several volumes; only the image's UID says which one it is on")
        return stacks[_number(mask, stacks)] if stacks else None
    unfit = None
    for one in stacks:
        try:
            fit.on_series(meta, one, params.grid_tolerance_mm, ON_SERIES[mask["kind"]])
            return one
        except fit.Unfit as error:
            unfit = error if unfit is None or error.mm < unfit.mm else unfit
    if unfit is not None:
        raise unfit
    return None


def _stacked(
    masks: list[dict[str, Any]], series: dict[str, Any] | None
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """(array, affine) on the grid of `series` of planes that were drawn on single slices."""
    if series is None or series.get("affine") is None or series.get("shape") is None:
        raise BadInput("no_geometry", "the geometry of the series it was drawn on is not known")
    depth, height, width = (int(n) for n in series["shape"])
    array = np.zeros((depth + 2, height + 2, width + 2), dtype=bool)  # with the margin that `from_file` adds
    for mask in masks:
        plane, _, meta = drawn.from_file(hips.read(Path(mask["path"])))
        low = meta["low"]
        rows, columns = (slice(n, n + size) for n, size in zip(low[1:], plane.shape[1:], strict=True))
        beyond = rows.stop > height + 2 or columns.stop > width + 2
        if beyond or (mask["kind"] == "label_studio" and meta["full"]["shape"][1:] != [height, width]):
            raise BadInput("other_grid", "it was drawn on an image of another size than its series has")
        array[_slice(mask, series, depth) + 1, rows, columns] |= plane.any(0)
    affine = np.array(series["affine"], dtype=np.float64).reshape(4, 4)
    affine[:3, 3] -= affine[:3, :3] @ np.ones(3)
    return array, affine


def _slice(mask: dict[str, Any], series: dict[str, Any], depth: int) -> int:
    """The slice of `series` that a plane was drawn on: by its image's UID, a frame's number, or its index."""
    index, sops, frames = mask["index"], series.get("sops"), series.get("frames")
    if mask["sop"] and sops:
        if mask["sop"] not in sops:
            raise BadInput("no_slice", "the image it was drawn on is not in its series")
        if len(sops) == depth:  # else one object that holds them all
            return int(sops.index(mask["sop"]))
    if mask["kind"] == "scoord":
        known = len(frames or []) == depth and index in (frames or [])
        index = frames.index(index) if frames and known else None  # frames lie in any order
    if index is None or not 0 <= index < depth:
        raise BadInput("no_slice", "the slice it was drawn on is not known")
    return int(index)


def _astray(taken: dict[tuple[str, str], dict[str, Any]], heads: set[tuple[Any, ...]]) -> list[tuple[Any, str]]:
    """What was drawn together with a head that is nowhere near the head."""
    reason = "out_of_place: the femoral head that came with it does not lie where the images have it"
    return [
        (key, reason)
        for key, one in taken.items()
        if tuple(one["mask"][name] for name in ("number", "kind", "reader")) in heads
    ]


def _beside_heads(taken: dict[tuple[str, str], dict[str, Any]]) -> list[tuple[Any, str]]:
    """A label map cannot say that a voxel is lesion and head: there a head is drawn around its lesion, which is part of
    it. A lesion apart from the head of the same reader is none."""
    apart = []
    for reader, label in sorted(taken):
        head = taken.get((reader, "head"))
        if label != "lesion" or head is None or not head["values"].any():
            continue
        whole, lesion = head["values"].astype(bool), taken[reader, label]["values"].astype(bool)
        if not lesion.any() or (whole & lesion).sum() >= HELD * lesion.sum():
            continue
        if not (binary_dilation(whole, iterations=2) & lesion).any():
            apart.append(((reader, label), "outside_head: it does not touch the femoral head that its reader drew"))
            continue
        joined = np.pad(whole | lesion, 1)
        head["values"] = binary_closing(joined)[1:-1, 1:-1, 1:-1].astype(np.uint8)
        head["mask"] = head["mask"] | {"source": f"{head['mask']['source']} and its lesion"}
    return apart


def _add_lesion_free(taken: dict[tuple[str, str], dict[str, Any]], names: list[str], target: fit.Target) -> None:
    """A reader who drew this head and called the hip free of lesions has drawn an empty lesion."""
    for name in names:
        head = taken.get((name, "head"))
        if head and (name, "lesion") not in taken:
            mask = head["mask"] | {"label": "lesion", "source": f"{head['mask']['source']} and label lesion 0"}
            taken[name, "lesion"] = head | {"values": np.zeros_like(head["values"]), "mask": mask}


def _finish(
    base: dict[str, Any],
    rows: Rows,
    taken: dict[tuple[str, str], dict[str, Any]],
    target: fit.Target,
    params: Params,
    out: Path,
) -> Rows:
    """Pairs of readers, the consensus, the file. Its path stands in `owns` of the first accepted row."""
    if not taken:
        return rows
    tensors: dict[str, NDArray] = {}
    sources: dict[str, str] = {}
    by_label: dict[str, dict[str, NDArray]] = defaultdict(dict)
    spacing = {}
    for (reader, label), one in sorted(taken.items()):
        spacing[label] = tuple(float(mm) for mm in target.meta["grids"][one["tensor"]]["spacing"])
        by_label[label][reader] = one["values"].astype(bool)
        tensors[f"{reader}/{label}"] = one["values"]
        sources[f"{reader}/{label}"] = one["mask"]["source"]
        row = _row(one["mask"], "accepted", "") | {"reader": reader, "difference_mm": one["mm"]}
        rows.append(base | row | _size(one["values"], spacing[label]))
    for label, masks in sorted(by_label.items()):
        for reader, other in combinations(sorted(masks), 2):
            pair: dict[str, Any] = {"name": label, "status": "pair", "reader": reader, "other": other}
            pair["dice"] = readers.dice(masks[reader], masks[other])
            if label != "vessel":  # thin trees: a surface distance says little and costs much
                pair["surface_mm"] = readers.surface_distance(masks[reader], masks[other], spacing[label])
            rows.append(base | pair)
        final = [masks[ADJUDICATOR]] if ADJUDICATOR in masks else [masks[name] for name in sorted(masks)]
        method = getattr(params.consensus, label)
        if method == "adjudicator" and len(final) > 1 and any((mask != final[0]).any() for mask in final):
            continue  # not agreed on until somebody decides
        agreed = readers.combine(final, method, spacing[label]).astype(np.uint8)
        tensors[f"{CONSENSUS}/{label}"] = agreed
        sources[f"{CONSENSUS}/{label}"] = f"{len(final)} readers" if len(final) > 1 else "one reader"
        row = {"name": label, "status": "consensus", "reader": CONSENSUS, "source": sources[f"{CONSENSUS}/{label}"]}
        rows.append(base | row | _size(agreed, spacing[label]))
        if label == "lesion" and f"{CONSENSUS}/head" in tensors:
            rows[-1] |= derived.of_masks(tensors[f"{CONSENSUS}/head"], agreed, spacing[label])
    name = f"{base['hip_visit']}.safetensors"
    hips.write(out / name, hips.HipFile(tensors, {"sources": sources}))
    owner = next(n for n, row in enumerate(rows) if row["status"] == "accepted")
    rows[owner] = rows[owner] | {"owns": name}
    return rows


def _row(mask: dict[str, Any], status: str, reason: str) -> dict[str, Any]:
    return {
        "name": mask["label"], "status": status, "reason": reason or None, "reader": mask["reader"],
        "source": mask["source"], "format": mask["kind"],
    }  # fmt: skip


def _size(values: NDArray, spacing: tuple[float, ...]) -> dict[str, float]:
    voxels = float(values.sum())
    return {"voxels": voxels, "volume_mm3": voxels * float(np.prod(spacing))}
