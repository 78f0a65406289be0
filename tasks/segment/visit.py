"""One hip-visit: its masks, unless they are there already, and how they compare with what the readers drew."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError

from tasks.segment import agreement
from tasks.segment.predict import LABELS, predict
from tasks.store import hips
from tasks.training.data import CONSENSUS


@dataclass(frozen=True)
class Visit:
    """Picklable. made_from: digest of the images, the networks and the code; skeleton_steps: for clDice."""

    hip_visit: str
    subject: str
    fold: str
    path: str
    mask: str
    made_from: str
    models: str
    out: str
    skeleton_steps: int


def segment(visit: Visit) -> dict[str, Any]:
    """{"hip_visit", "subject", "fold", "file", "made": whether anew, "scores": [...]}."""
    torch.set_num_threads(1)
    out, path = Path(visit.out), Path(visit.path)
    target = out / f"{visit.hip_visit}.safetensors"
    made = not _is_current(target, visit.made_from)
    if made:
        target.unlink(missing_ok=True)
        predict(path, Path(visit.models), visit.fold, out, visit.made_from)
    row = {"hip_visit": visit.hip_visit, "subject": visit.subject, "fold": visit.fold, "made": made}
    row["file"] = target.name if target.exists() else ""
    # Test and external patients are segmented, never scored: what is tuned here must not be tuned on them.
    return row | {"scores": _scores(visit, target) if visit.mask and visit.fold.isdigit() else []}


def _is_current(target: Path, made_from: str) -> bool:
    if not target.exists():
        return False
    try:
        return hips.read(target, []).meta.get("made_from") == made_from
    except (SafetensorError, ValueError):
        return False


def _scores(visit: Visit, target: Path) -> list[dict[str, Any]]:
    """One row a label and pair: network with consensus, and each two readers."""
    drawn = hips.read(Path(visit.mask)).tensors
    found = hips.read(target) if target.exists() else hips.HipFile({}, {"grids": {}})
    readers = sorted({name.split("/")[0] for name in drawn} - {CONSENSUS})
    rows = []
    for label in (label for labels in LABELS.values() for label in labels):
        pairs = [("readers", drawn.get(f"{a}/{label}"), drawn.get(f"{b}/{label}")) for a, b in combinations(readers, 2)]
        pairs.append(("network", found.tensors.get(label), drawn.get(f"{CONSENSUS}/{label}")))
        for who, first, second in pairs:
            if first is None or second is None or first.shape != second.shape:
                continue
            a, b = first > 0, second > 0
            row: dict[str, Any] = {"subject": visit.subject, "who": who, "label": label, "dice": agreement.dice(a, b)}
            if label == "vessel":
                row["cldice"] = agreement.cldice(a, b, visit.skeleton_steps)
            if label in found.meta["grids"]:
                spacing = found.meta["grids"][label]["spacing"]
                row["surface_mm"], row["hd95_mm"] = agreement.surface_mm(a, b, spacing)
            row["false_alarm"] = float(a.any() and not b.any()) if who == "network" else float("nan")
            rows.append({key: _plain(value) for key, value in row.items()})
    return rows


def _plain(value: Any) -> Any:
    return float(value) if isinstance(value, np.floating) else value
