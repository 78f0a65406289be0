"""What each hip-visit should teach: labels of readers, and what their masks measure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks.nets.encoder import NUMBERS, ORDINAL
from tasks.store import hips
from tasks.training.data import CONSENSUS

Floats = NDArray[np.float64]


def of_visits(rows: pd.DataFrame, labels: pd.DataFrame, min_lesion_mm2: float) -> tuple[pd.DataFrame, list[Floats]]:
    """(one row a hip-visit of `rows`: lesion, stage, jic and the numbers of the encoder, NaN where nobody said;
    for each the label of each slice, (D,) of 0, 1 and NaN, empty where there is no mask)."""
    known = labels.reindex(rows["hip_visit"])
    columns = {
        name: known[name].to_numpy(dtype=float).copy() if name in known else np.full(len(rows), np.nan)
        for name in ("lesion", *ORDINAL, *NUMBERS)
    }
    slices: list[Floats] = []
    for i, (path, mask) in enumerate(rows[["path", "mask"]].to_numpy()):
        measured, label = _from_masks(path, mask, columns["lesion"][i], min_lesion_mm2)
        slices.append(label)
        for name, value in measured.items():
            if not np.isfinite(columns[name][i]):
                columns[name][i] = value
    return pd.DataFrame(columns), slices


def usable(table: pd.DataFrame, slices: Sequence[Floats]) -> NDArray[np.bool_]:
    """Which hip-visits teach anything at all."""
    drawn = np.array([bool(np.isfinite(label).any()) for label in slices], dtype=bool)
    return table.notna().any(axis=1).to_numpy() | drawn


def _from_masks(path: str, mask: str, lesion_label: float, min_lesion_mm2: float) -> tuple[dict[str, float], Floats]:
    nothing: tuple[dict[str, float], Floats] = ({}, np.zeros(0))
    if not mask:
        return nothing
    found = hips.read(Path(mask), [f"{CONSENSUS}/head", f"{CONSENSUS}/lesion"]).tensors
    head = found.get(f"{CONSENSUS}/head")
    lesion = found.get(f"{CONSENSUS}/lesion")
    if head is None or not head.any() or (lesion is None and lesion_label == 1):
        return nothing
    head, lesion = head > 0, np.zeros_like(head, dtype=bool) if lesion is None else lesion > 0
    file = hips.read(Path(path), ["fluid", "t1", "contrast"])
    grids = [grid for name, grid in file.meta["grids"].items() if name in file.tensors]
    if not grids or tuple(grids[0]["shape"]) != head.shape:
        return nothing
    spacing = np.array(grids[0]["spacing"], dtype=float)
    area = lesion.sum((1, 2)) * spacing[1] * spacing[2]
    label = np.where(area >= min_lesion_mm2, 1.0, np.where(area > 0, np.nan, 0.0))
    label[~head.any((1, 2)) & (area == 0)] = np.nan
    measured = {"lesion": float(lesion.any()), "lesion_fraction": float((lesion & head).sum() / head.sum())}
    if lesion.any():
        measured["lateral_deg"] = _lateral(head, lesion, spacing)
    bone = head & ~lesion
    if "fluid" in file.tensors and bone.any():
        measured["oedema"] = float(file.values("fluid")[bone].mean())
    return measured, label


def _lateral(head: NDArray[np.bool_], lesion: NDArray[np.bool_], spacing: Floats) -> float:
    """Degrees from straight up to where the lesion ends laterally (its 95th percentile), seen from the head's centre.

    Arrays run superior to inferior along rows and medial to lateral along columns.
    """
    centre = np.argwhere(head).mean(0)
    offset = (np.argwhere(lesion) - centre) * spacing
    outer = np.linalg.norm(offset, axis=1) > 0.5 * np.linalg.norm((np.argwhere(head) - centre) * spacing, axis=1).max()
    points = offset[outer] if outer.any() else offset
    return float(np.percentile(np.degrees(np.arctan2(points[:, 2], -points[:, 1])), 95))
