"""What nobody wrote down but follows: angles and fractions from masks, stages from other staging systems.

A derived label fills a gap and never replaces what a reader gave. It stands under the reader 'computed' (from masks) or
'converted' (from another system), and as the consensus of that hip-visit with a source that says so.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.annotate.params import Derived
from tasks.domain.disease import LABELS
from tasks.domain.staging import convert
from tasks.store.femoral_head import arcs, fit_sphere, necrotic_index

COMPUTED, CONVERTED, CONSENSUS = "computed", "converted", "consensus"

SYSTEMS = ("arco", "steinberg", "ficat")
"""What is converted from, the finest first."""


def of_masks(head: NDArray, lesion: NDArray, spacing: tuple[float, ...]) -> dict[str, float]:
    """Angles in degrees, index of 100, fraction of 1; nothing when the head is no ball that a sphere fits."""
    mm = np.asarray(spacing, dtype=np.float64)
    head, lesion = head.astype(bool), lesion.astype(bool)
    sphere = fit_sphere(head, mm)
    if sphere is None:
        return {}
    inside = lesion & head
    middle, widest = (arcs(inside, sphere, mm, largest) for largest in (False, True))
    return {
        "kerboul_coronal_deg": middle.coronal,
        "kerboul_sagittal_deg": middle.sagittal,
        "necrotic_index": necrotic_index(widest),
        "lesion_fraction": float(inside.sum() / head.sum()),
    }


def rows(labels: list[dict[str, Any]], masks: list[dict[str, Any]], params: Derived) -> list[dict[str, Any]]:
    """Rows of annotations.parquet: `labels` are those of readers and consensus, `masks` the rows of masks.parquet."""
    given: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for row in labels:
        if row["kind"] == "label" and row["reader"] == CONSENSUS:
            given[row["hip_visit"]][row["name"]] = row
    found = []
    for mask in masks:
        if mask["status"] != CONSENSUS or mask["name"] != "lesion":
            continue
        for name in params.from_masks:
            value = mask.get(name)
            if name not in given[mask["hip_visit"]] and isinstance(value, float) and value == value:
                source = f"{COMPUTED} from masks of {mask['source']}"
                made = _row(mask, name, f"{value:.4g}", source)
                given[mask["hip_visit"]][name] = made
                found += [made | {"reader": COMPUTED}, made]
    for hip_visit in sorted(given):
        for to in params.convert_to:
            other = None if to in given[hip_visit] else _converted(given[hip_visit], to)
            if other is not None:
                given[hip_visit][to] = other
                found += [other | {"reader": CONVERTED}, other]
    return found


def _converted(known: dict[str, dict[str, Any]], to: str) -> dict[str, Any] | None:
    """From the first system in which this hip-visit was read by somebody and that says how."""

    def number(name: str) -> float | None:
        return float(known[name]["value"]) if name in known else None

    for system in SYSTEMS:
        row = known.get(system)
        if row is None or row["source"].startswith(CONVERTED):
            continue
        value = convert(row["value"], system, to, number("collapse_mm"), number("lesion_fraction"))
        if value is not None and value in LABELS[to]:
            return _row(row, to, value, f"{CONVERTED} from {system}")
    return None


def _row(like: dict[str, Any], name: str, value: str, source: str) -> dict[str, Any]:
    return {
        "hip_visit": like["hip_visit"], "subject": like["subject"], "side": like["side"], "reader": CONSENSUS,
        "kind": "label", "name": name, "value": value, "source": source, "days": like.get("days"),
    }  # fmt: skip
