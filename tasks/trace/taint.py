"""What a model should not have learned from, seen from today: test patients, withdrawn ones, corrected annotations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from tasks.store.digests import combine


def trained_on(split: pd.DataFrame | None) -> dict[str, str]:
    """{subject: fold} of those whom a model of this split was trained on."""
    if split is None:
        return {}
    folds = split[split["fold"].notna()].astype({"fold": str})
    folds = folds[folds["fold"].str.isdigit()]
    return dict(zip(folds["subject"], folds["fold"], strict=True))


def left_training(then: pd.DataFrame | None, now: pd.DataFrame | None) -> dict[str, str]:
    """{subject: where it stands now} of those whom a model of the split `then` learned from and who are not for
    training any more: in the test set since two identities became one person, external, or withdrawn."""
    if then is None or now is None:
        return {}
    places = {str(s): "withdrawn" if pd.isna(f) else str(f) for s, f in zip(now["subject"], now["fold"], strict=True)}
    return {s: places[s] for s in sorted(trained_on(then)) if s in places and not places[s].isdigit()}


def places(annotations: pd.DataFrame) -> pd.Series:
    """The hip-visit of each row, else its hip."""
    hip = annotations["subject"].astype(str) + "-" + annotations["side"].astype(str)
    return annotations["hip_visit"].where(annotations["hip_visit"].notna(), hip)


def readings(annotations: pd.DataFrame | None) -> dict[tuple[str, str], str]:
    """{(hip-visit or hip, reader or 'none'): digest of what was said} of an annotations table."""
    if annotations is None or not len(annotations):
        return {}
    found = {}
    for (where, reader), rows in annotations.groupby([places(annotations), annotations["reader"].fillna("none")]):
        own = [rows[name].fillna("") for name in ("kind", "name", "value")]
        if "days" in rows:  # the date of an event is a part of what was said
            own.append(rows["days"].where(rows["hip_visit"].isna()).fillna(""))
        if "source" in rows:  # a mask is its import: the file that it stands in keeps its name
            own.append(rows["source"].where(rows["kind"] == "mask").fillna(""))
        lines = sorted("\t".join(str(part) for part in line) for line in zip(*own, strict=True))
        found[str(where), str(reader)] = combine(*lines)
    return found


def corrected(then: pd.DataFrame | None, now: pd.DataFrame | None) -> list[tuple[str, str]]:
    """What was said when a model was made and is said otherwise, or not at all, now: (hip-visit or hip, reader)."""
    today = readings(now)
    return [key for key, digest in readings(then).items() if today.get(key) != digest]


def reason(left: Mapping[str, str]) -> str:
    """In words, without a name: how many patients, and where they stand now."""
    counts: dict[str, int] = {}
    for place in left.values():
        counts[place] = counts.get(place, 0) + 1
    said = ", ".join(f"{count} now {place}" for place, count in sorted(counts.items()))
    return f"trained on patients who are not for training any more: {said}"


def facts_of(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """What `trace` tells of a model beyond what it is made of."""
    left = left_training(then.get("split"), now.get("split"))
    wrong = corrected(then.get("annotations"), now.get("annotations"))
    return {"tainted": reason(left) if left else None, "corrected": len(wrong) or None}
