"""Labels, treatments, outcomes, merges and consent of all imports, joined to hip-visits; later imports correct."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from statistics import fmean, median
from typing import Any

from tasks.annotate import imports
from tasks.annotate.events import Correction, Histories
from tasks.annotate.params import Consensus
from tasks.annotate.visits import Visits
from tasks.domain.disease import LABELS

ADJUDICATOR = "adjudicator"
CONSENSUS = "consensus"
DERIVED = (CONSENSUS, "computed", "converted")


@dataclass
class Joined:
    rows: list[dict[str, Any]] = field(default_factory=list)
    """Rows of annotations.parquet."""
    waiting: Counter[str] = field(default_factory=Counter)
    """Why annotations wait for images: how many."""
    refused: list[dict[str, str]] = field(default_factory=list)
    """{source, reason} of annotations that contradict the images."""
    corrections: list[Correction] = field(default_factory=list)
    """What a later import replaced."""


def merges(folders: list[Path]) -> list[dict[str, Any]]:
    return [row for folder in folders for row in imports.rows(folder, "merges")]


def join(folders: list[Path], visits: Visits, how: Consensus) -> Joined:
    joined = Joined()
    labels: dict[tuple[str, str, str], dict[str, Any]] = {}
    events: dict[tuple[str, ...], dict[str, Any]] = {}
    histories = {kind: Histories(visits.window, kind == "treatment") for kind in ("treatment", "outcome")}
    for folder in folders:
        number = int(folder.name[:4])
        for row in imports.rows(folder, "labels"):
            _label(row, folder.name, visits, labels, joined)
        for kind, name in (("treatment", "treatment"), ("outcome", "event")):
            rows = [_first_identity(row, visits) for row in imports.rows(folder, f"{kind}s")]
            histories[kind].add(number, [(row, row[name], _source(folder.name, f"{kind}s", row)) for row in rows])
        for row in imports.rows(folder, "consent"):
            _event(row, "consent", row["status"], _source(folder.name, "consent", row), visits, events, joined)
        for row in imports.rows(folder, "merges"):
            pair = sorted([row["subject"], row["same_as"]])
            source = _source(folder.name, "merges", row)
            events["merge", *pair] = _row(pair[0], None, "merge", "same_as", pair[1], source, None)
    for kind, history in histories.items():
        for (subject, side), standing in history.standing.items():
            for one in standing:
                row = {"subject": subject, "side": side, "date": one.day.isoformat()}
                _event(row, kind, one.name, one.source, visits, events, joined)
        joined.corrections += history.corrections
    by_label = sorted(labels.values(), key=_order)
    joined.rows = by_label + consensus(by_label, how) + sorted(events.values(), key=_order)
    return joined


def _first_identity(row: dict[str, Any], visits: Visits) -> dict[str, Any]:
    """The row under the first of the identities that are one person, its dates on that one's calendar."""
    subject, shift = min(visits.identities(row["subject"]).items())
    dates = {
        name: (date.fromisoformat(row[name]) + timedelta(days=shift)).isoformat()
        for name in ("date", "replaces")
        if row.get(name)
    }
    return row | {"subject": subject} | dates


def _label(
    row: dict[str, Any], name: str, visits: Visits, labels: dict[tuple[str, str, str], dict[str, Any]], joined: Joined
) -> None:
    table = "labels.csv" if not row.get("kind") else row["kind"]
    source = f"{name}/{table}:{int(row['row'])}"
    place = visits.find(row["subject"], row["study"], _day(row["date"]), row["side"])
    if place.hip is None:
        if place.waits:
            joined.waiting[place.reason] += 1
        else:
            joined.refused.append({"source": source, "reason": place.reason})
        return
    hip = place.hip
    key = (hip["hip_visit"], row["reader"], row["name"])
    if key in labels and labels[key]["value"] != row["value"]:
        if labels[key]["source"].split("/")[0] == name:
            reason = f"this reader gave {row['name']} twice for this visit; the later row was taken"
            joined.refused.append({"source": labels[key]["source"], "reason": reason})
        else:
            old = labels[key]
            words = (hip["hip_visit"], row["name"], old["value"], row["value"], old["source"], source)
            joined.corrections.append(Correction(*words))
    labels[key] = _row(hip["subject"], hip["side"], "label", row["name"], row["value"], source, hip["days"]) | {
        "hip_visit": hip["hip_visit"],
        "reader": row["reader"],
    }


def _event(
    row: dict[str, Any],
    kind: str,
    name: str,
    source: str,
    visits: Visits,
    events: dict[tuple[str, ...], dict[str, Any]],
    joined: Joined,
) -> None:
    present = visits.present(row["subject"], _day(row["date"]))
    if not present:
        joined.waiting["its patient has not arrived"] += 1
    for subject, days in present:
        side = row.get("side")
        events[kind, subject, side or "", name, str(days)] = _row(subject, side, kind, name, name, source, days)


def consensus(rows: list[dict[str, Any]], how: Consensus) -> list[dict[str, Any]]:
    """One row for each hip-visit and label: the adjudicator's word, else by `how`; none where readers differ and
    only an adjudicator may decide."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["hip_visit"], row["name"]].append(row)
    agreed = []
    for (_, name), given in sorted(groups.items()):
        final = [row["value"] for row in given if row["reader"] == ADJUDICATOR]
        values = final or [row["value"] for row in given]
        method = how.stage if name in LABELS else how.measurement
        if method == "adjudicator" and len(set(values)) > 1:
            continue
        if name in LABELS:
            count = Counter(values)
            value = max(count, key=lambda v: (count[v], LABELS[name].index(v)))
        else:
            numbers = [float(v) for v in values]
            value = f"{(fmean if method == 'mean' else median)(numbers):g}"
        source = "adjudicator" if final else f"{len(given)} readers" if len(given) > 1 else "one reader"
        agreed.append(given[0] | {"reader": CONSENSUS, "value": value, "source": source})
    return agreed


def disagreements(
    rows: list[dict[str, Any]], masks: list[dict[str, Any]], differ: dict[str, float]
) -> list[dict[str, str]]:
    """What readers differ on and no adjudicator has decided: stages, measurements further apart than `differ` says, and
    masks of a lower Dice than it says."""
    groups: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for row in rows:
        if row["kind"] == "label" and row["reader"] not in DERIVED:
            groups[row["hip_visit"], row["name"]][row["reader"]] = row["value"]
    found = [
        {"hip_visit": hip_visit, "name": name, "values": "+".join(f"{r}={v}" for r, v in sorted(given.items()))}
        for (hip_visit, name), given in sorted(groups.items())
        if ADJUDICATOR not in given and _apart(name, list(given.values()), differ)
    ]
    decided = {(row["hip_visit"], row["name"]) for row in masks if row["reader"] == ADJUDICATOR}
    for row in masks:
        key = row["hip_visit"], row["name"]
        if row["status"] == "pair" and row["dice"] < differ.get(row["name"], 0.0) and key not in decided:
            said = f"{row['reader']}+{row['other']}: Dice {row['dice']:.2f}"
            found.append({"hip_visit": row["hip_visit"], "name": row["name"], "values": said})
    return found


def _apart(name: str, values: list[str], differ: dict[str, float]) -> bool:
    if name in LABELS:
        return len(set(values)) > 1
    numbers = [float(value) for value in values]
    return max(numbers) - min(numbers) > differ.get(name, float("inf"))


def _row(
    subject: str, side: str | None, kind: str, name: str, value: str, source: str, days: float | None
) -> dict[str, Any]:
    return {
        "hip_visit": None, "subject": subject, "side": side, "reader": None, "kind": kind, "name": name,
        "value": value, "source": source, "days": days,
    }  # fmt: skip


def _source(folder: str, table: str, row: dict[str, Any]) -> str:
    return f"{folder}/{table}.csv:{int(row['row'])}"


def _order(row: dict[str, Any]) -> tuple[str, ...]:
    days = row["days"]
    return tuple(
        str(part or "") for part in (row["subject"], row["side"], row["hip_visit"], row["name"], row["reader"])
    ) + (f"{days or 0:012.1f}", row["source"])


def _day(value: str | None) -> date | None:
    return date.fromisoformat(value) if value else None
