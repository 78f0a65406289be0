"""Change since a hip's first visit, measured at the same place.

A visit's grid lies about the head's centre as it was found that day, and its series end somewhere: what leaves the
picture would pass for a vessel that is gone or a lesion that healed. So a voxel counts here only where the images of
the other visit show its place too, by the rigid `to_first` of hips.parquet. Masks stay on their own grids, unresampled.
The first visit lies in the past of all others: nothing here looks ahead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks.domain.hip import ROLES
from tasks.domain.volume import Grid
from tasks.measure.params import Params
from tasks.measure.shapes import Mask, Spacing
from tasks.store import hips

CHANGES = ("lesion_volume_mm3", "lesion_fraction", "vessel_length_mm", "vessel_branches")
"""What is told as `<name>_change`: here less at the first visit, where both show the hip."""

LEAST_SHARE = 0.5
"""Of the heads: where the visits show less than this together, nothing is said about change."""

REGISTRATION = "_change_registration_se"
"""Suffix of what the registration alone adds to the error of a change: what its residual lets in or out of the part
that both visits show."""

NONE: dict[str, Any] = {f"{name}_change": np.nan for name in CHANGES}
NONE |= {f"{name}{REGISTRATION}": np.nan for name in CHANGES} | {"change_share": np.nan, "first_visit": None}
"""No change is known; `change_status` stands beside it and says why."""


def first_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Columns of the first visit itself: 0 where something was measured."""
    zero = {f"{name}_change": 0.0 if np.isfinite(row[name]) else np.nan for name in CHANGES}
    certain = {f"{name}{REGISTRATION}": zero[f"{name}_change"] for name in CHANGES}
    return NONE | zero | certain | {"change_status": "first", "change_share": 1.0}


@dataclass(frozen=True)
class Seen:
    """A mask, and the box of places (index of a volume's voxel centres) that its series shows."""

    mask: Mask
    grid: Grid
    to_source: NDArray[np.float64] | None
    """4x4, grid index -> index of the acquired series; None: the series fills the grid, as far as is known."""
    source_shape: NDArray[np.float64]

    @property
    def mm3(self) -> float:
        return float(self.mask.sum() * np.prod(self.grid.spacing))

    def shows(self, points: NDArray[np.float64]) -> NDArray[np.bool_]:
        """(n,) of (n, 3) places in this visit's hip space, mm. A voxel reaches half a voxel beyond its centre."""
        inverse = np.linalg.inv(self.grid.hip_affine())
        index = points @ inverse[:3, :3].T + inverse[:3, 3]
        inside = _within(index, np.array(self.grid.shape))
        if self.to_source is not None:
            there = index[inside] @ self.to_source[:3, :3].T + self.to_source[:3, 3]
            inside[inside] = _within(there, self.source_shape)
        return inside

    def where(self, other: Seen, to_other: NDArray[np.float64]) -> Mask:
        """This mask where this visit and `other` both show its place; `to_other` takes hip space to hip space."""
        index = np.argwhere(self.mask)
        affine = self.grid.hip_affine()
        points = index @ affine[:3, :3].T + affine[:3, 3]
        kept = self.shows(points) & other.shows(points @ to_other[:3, :3].T + to_other[:3, 3])
        result = np.zeros_like(self.mask)
        result[tuple(index[kept].T)] = True
        return result


def _within(index: NDArray[np.float64], shape: NDArray) -> NDArray[np.bool_]:
    return np.asarray(np.all((index > -0.5 - 1e-6) & (index < shape - 0.5 + 1e-6), axis=1), np.bool_)


def seen(hip: hips.HipFile, mask: Mask, spacing: Spacing, tensor: str) -> Seen:
    """`mask` of a hip-visit with what the series behind `tensor` shows (hip files of old say nothing of it)."""
    depth, height, width = (float(mm) for mm in spacing)
    meta = hip.meta
    grid = Grid((mask.shape[0], mask.shape[1], mask.shape[2]), (depth, height, width))
    if tensor not in meta.get("source_affine", {}):
        return Seen(mask, grid, None, np.zeros(3))
    to_source = np.linalg.inv(np.array(meta["source_affine"][tensor])) @ np.array(meta["patient_affine"][tensor])
    return Seen(mask, grid, to_source, np.array(meta["source_shape"][tensor], dtype=np.float64))


@dataclass(frozen=True)
class Visit:
    """Hip file, its predicted masks, and the spacing of each mask's grid."""

    hip: hips.HipFile
    masks: hips.HipFile
    spacing: Mapping[str, Spacing]
    vessels: bool
    """Vessels can be measured in it."""

    def seen(self, name: str) -> Seen | None:
        if name not in self.masks.tensors:
            return None
        shown = "contrast_fine" if name == "vessel" else next((r for r in ROLES if r in self.hip.tensors), "")
        return seen(self.hip, self.masks.tensors[name] > 0, self.spacing[name], shown)


Tree = Callable[[Mask, Spacing], tuple[float, int]]
"""Length in mm and branches of the vessels in a mask."""


def change(now: Visit, first: Visit, to_first: NDArray[np.float64], params: Params, tree: Tree) -> dict[str, Any]:
    """Columns of one hip-visit. change_share: how much of the two heads both visits show."""
    row: dict[str, Any] = dict(NONE) | {"change_status": "ok"}
    from_first = np.asarray(np.linalg.inv(to_first), np.float64)
    head, old_head = now.seen("head"), first.seen("head")
    if head is None or old_head is None or min(head.mm3, old_head.mm3) < params.min_head_mm3:
        return row | {"change_status": "not_measurable:no_head_mask"}
    heads = head.where(old_head, to_first), old_head.where(head, from_first)
    row["change_share"] = float(sum(h.sum() for h in heads) / (head.mask.sum() + old_head.mask.sum()))
    if row["change_share"] < LEAST_SHARE:
        return row | {"change_status": "not_measurable:too_little_in_common"}
    lesion, old_lesion = now.seen("lesion"), first.seen("lesion")
    if lesion is not None and old_lesion is not None:
        volumes = []
        for part, drawn in zip(heads, (lesion, old_lesion), strict=True):
            volume = float((drawn.mask & part).sum() * np.prod(drawn.grid.spacing))
            volumes.append(volume if volume >= params.min_lesion_mm3 else 0.0)
        row["lesion_volume_mm3_change"] = volumes[0] - volumes[1]
        sizes = [float(h.sum() * np.prod(d.grid.spacing)) for h, d in zip(heads, (head, old_head), strict=True)]
        row["lesion_fraction_change"] = volumes[0] / sizes[0] - volumes[1] / sizes[1]
    vessel, old_vessel = now.seen("vessel"), first.seen("vessel")
    if now.vessels and first.vessels and vessel is not None and old_vessel is not None:
        here = tree(vessel.where(old_vessel, to_first), now.spacing["vessel"])
        there = tree(old_vessel.where(vessel, from_first), first.spacing["vessel"])
        row["vessel_length_mm_change"] = here[0] - there[0]
        row["vessel_branches_change"] = float(here[1] - there[1])
    return row


def of_registration(
    now: Visit, first: Visit, to_first: NDArray[np.float64], residual_mm: float, params: Params, tree: Tree,
    rng: np.random.Generator,
) -> dict[str, float]:  # fmt: skip
    """SD of each change when the visits are laid onto each other up to `residual_mm` (root mean square) apart."""
    repeats = []
    for _ in range(max(params.repeats, 2)):
        apart = np.eye(4)
        apart[:3, 3] = rng.normal(0, residual_mm / np.sqrt(3), 3)
        repeats.append(change(now, first, apart @ to_first, params, tree))
    found = {name: np.array([one[f"{name}_change"] for one in repeats], dtype=float) for name in CHANGES}
    known = {name: values[np.isfinite(values)] for name, values in found.items()}
    return {f"{name}{REGISTRATION}": float(v.std(ddof=1)) if len(v) > 1 else np.nan for name, v in known.items()}


def with_errors(frame: pd.DataFrame) -> pd.DataFrame:
    """`<name>_change_se`: the errors of both visits' measurements and that of the registration, together."""
    rows = frame.drop_duplicates("hip_visit").set_index("hip_visit")
    before = frame["first_visit"] if "first_visit" in frame else pd.Series(None, frame.index, dtype=object)
    for name in CHANGES:
        if not {f"{name}_se", f"{name}{REGISTRATION}"} <= set(frame):
            continue
        of_first = before.map(rows[f"{name}_se"]).astype(float)
        total = (frame[f"{name}_se"] ** 2 + of_first**2 + frame[f"{name}{REGISTRATION}"] ** 2) ** 0.5
        frame[f"{name}_change_se"] = total.where(frame["change_status"] != "first", frame[f"{name}{REGISTRATION}"])
    return frame
