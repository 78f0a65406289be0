"""One patient over time: estimated risk of each hip at each visit, treatments, events, and the slices behind them."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks.domain.hip import RESEARCH_ONLY
from tasks.publish.gather import table
from tasks.publish.images import slices

Row = dict[str, Any]
COLOURS = {"L": "#0b4f8a", "R": "#d55e00"}
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 860, 250, 60, 24, 60


def timeline(root: Path) -> Row | None:
    """Visits, drawing and images of the patient that shows most; None when there is nobody to show."""
    sequences, predictions, hips = (table(root, name) for name in ("sequences", "predictions", "hips"))
    if not len(sequences) or not len(predictions):
        return None
    rows = sequences.drop(columns="features", errors="ignore").merge(
        predictions[["hip_visit", "risk", "risk_low", "risk_high", "abstain"]], on="hip_visit", how="left"
    )
    subject = choose(rows)
    if subject is None:
        return None
    rows = rows[rows["subject"] == subject].sort_values(["days", "side"], ignore_index=True)
    notes = table(root, "annotations")
    notes = (
        notes[notes["subject"] == subject]
        if len(notes)
        else pd.DataFrame(columns=["hip_visit", "kind", "name", "value", "reader", "days", "side"])
    )
    files = dict(zip(hips["hip_visit"], hips["file"], strict=True)) if "file" in hips else {}
    side = focus(rows)
    visits = [_visit(dict(row), root, files, notes) for _, row in rows[rows["side"] == side].iterrows()]
    return {
        "subject": subject,
        "fold": "frozen test patient" if (rows["fold"] == "test").any() else "scored out of fold",
        "side": {"L": "left", "R": "right"}[side],
        "mirrored": side == "R",
        "svg": drawing(rows, notes),
        "visits": visits,
    }


def choose(rows: pd.DataFrame) -> str | None:
    """A test patient before others, one with an event before others, then the one with most visits; ties by name."""
    known = rows[np.isfinite(rows["risk"])]
    if not len(known):
        return None
    each = known.groupby("subject").agg(
        test=("fold", lambda fold: (fold == "test").any()), events=("label", "max"), visits=("days", "nunique")
    )
    each["events"] = each["events"].fillna(0)
    best = each.sort_values(["test", "events", "visits"], ascending=False, kind="stable")
    return str(best.index[0])


def focus(rows: pd.DataFrame) -> str:
    """The side whose images are shown: the one with an event, else the higher risk."""
    by_side = rows.groupby("side").agg(event=("label", "max"), risk=("risk", "max")).fillna(0)
    return str(by_side.sort_values(["event", "risk"], ascending=False, kind="stable").index[0])


def drawing(rows: pd.DataFrame, notes: pd.DataFrame) -> str:
    """Risk against days for both hips, as SVG, with treatments and events marked."""
    marks = notes[notes["kind"].isin(("treatment", "outcome")) & (notes["name"] != "last_follow_up")]
    last = max([1.0, *rows["days"].dropna(), *marks["days"].dropna()]) * 1.05
    wide, tall = WIDTH - LEFT - 20, HEIGHT - TOP - BOTTOM

    def x(days: float) -> float:
        return LEFT + days / last * wide

    def y(risk: float) -> float:
        return TOP + (1 - risk) * tall

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT + 18}" width="{WIDTH}" '
        'role="img" aria-label="Estimated risk over time" font-family="Helvetica, Arial, sans-serif" font-size="11">',
        f'<rect width="{WIDTH}" height="{HEIGHT + 18}" fill="#ffffff"/>',
    ]
    for risk in (0, 0.25, 0.5, 0.75, 1):
        parts.append(f'<path d="M{LEFT} {y(risk):.1f}H{LEFT + wide}" stroke="#e4e4e4"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(risk) + 4:.1f}" text-anchor="end">{risk:.0%}</text>')
    for tick in np.linspace(0, last / 1.05, 5):
        parts.append(f'<text x="{x(tick):.1f}" y="{TOP + tall + 16}" text-anchor="middle">{tick:.0f}</text>')
    parts.append(
        f'<text x="{LEFT + wide / 2}" y="{TOP + tall + 32}" text-anchor="middle">days since first visit</text>'
    )
    parts.append(f'<text x="{LEFT}" y="14">estimated risk of progression within the horizon, with its interval</text>')
    for side, one in rows.groupby("side"):
        known = one[np.isfinite(one["risk"])]
        colour = COLOURS[str(side)]
        points = " ".join(f"{x(row.days):.1f},{y(row.risk):.1f}" for row in known.itertuples())
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        for row in known.to_dict("records"):
            shift = -3 if side == "L" else 3
            if np.isfinite(row["risk_low"]):
                parts.append(
                    f'<path d="M{x(row["days"]) + shift:.1f} {y(row["risk_low"]):.1f}V{y(row["risk_high"]):.1f}" '
                    f'stroke="{colour}" stroke-opacity="0.5"/>'
                )
            fill = "#ffffff" if row.get("abstain") else colour
            parts.append(
                f'<circle cx="{x(row["days"]):.1f}" cy="{y(row["risk"]):.1f}" r="4" fill="{fill}" stroke="{colour}"/>'
            )
    # An arthroplasty is told as treatment and as event: one mark, the event's.
    seen = marks.sort_values(["days", "side", "kind"]).drop_duplicates(["side", "name", "days"])
    for index, row in enumerate(seen.dropna(subset="days").to_dict("records")):
        colour = COLOURS.get(str(row["side"]), "#555555")
        dash = "" if row["kind"] == "outcome" else ' stroke-dasharray="3 3"'
        words = f"{str(row['name']).replace('_', ' ')} ({row['side']})"
        at = x(float(row["days"]))
        anchor = "end" if at > LEFT + 0.7 * wide else "start"
        parts.append(f'<path d="M{at:.1f} {TOP}V{TOP + tall}" stroke="{colour}" stroke-width="1.2"{dash}/>')
        place = TOP + 12 + 13 * (index % 5)
        offset = at - 4 if anchor == "end" else at + 4
        parts.append(
            f'<text x="{offset:.1f}" y="{place}" text-anchor="{anchor}" fill="{colour}">{escape(words)}</text>'
        )
    legend = TOP + tall + 52
    for index, (side, words) in enumerate((("L", "left hip"), ("R", "right hip"))):
        parts.append(
            f'<circle cx="{LEFT + 5 + 90 * index}" cy="{legend - 4}" r="4" fill="{COLOURS[side]}"/>'
            f'<text x="{LEFT + 14 + 90 * index}" y="{legend}">{words}</text>'
        )
    parts.append(
        f'<text x="{LEFT + 190}" y="{legend}" fill="#555555">hollow: the model abstains. dashed: treatment, '
        f"solid: event. {RESEARCH_ONLY}</text>"
    )
    return "\n".join([*parts, "</svg>"])


def _said(name: str, value: str) -> str:
    """'ARCO 3B', 'Kerboul coronal 117°', 'collapse 3.25 mm'."""
    known = {"arco": "ARCO", "ficat": "Ficat", "steinberg": "Steinberg", "jic": "JIC"}
    if name == "lesion":
        return "lesion" if value == "1" else "no lesion"
    words = known.get(
        name, name.removesuffix("_deg").removesuffix("_mm").replace("_", " ").replace("kerboul", "Kerboul")
    )
    return f"{words} {value}{'°' if name.endswith('_deg') else ' mm' if name.endswith('_mm') else ''}"


def _visit(row: Row, root: Path, files: dict[str, str], notes: pd.DataFrame) -> Row:
    key = row["hip_visit"]
    images: list[tuple[str, str]] = []
    outline = ""
    volume = root / "data/hips" / str(files.get(key) or "")
    if volume.is_file():
        predicted, drawn = root / "data/segments" / f"{key}.safetensors", root / "data/masks" / f"{key}.safetensors"
        masks, prefix = (predicted, "") if predicted.exists() else (drawn, "consensus/")
        outline = "predicted" if predicted.exists() else "drawn by readers" if drawn.exists() else ""
        images = slices(volume, masks, prefix)
    labels = notes[(notes["kind"] == "label") & (notes["reader"] == "consensus") & (notes["hip_visit"] == key)]
    return {
        "days": row["days"],
        "risk": row["risk"],
        "low": row["risk_low"],
        "high": row["risk_high"],
        "abstain": row.get("abstain") or "",
        "label": {1.0: "progressed within the horizon", 0.0: "did not progress within the horizon"}.get(
            row["label"], "outcome within the horizon not known"
        ),
        "labels": [_said(str(name), str(value)) for name, value in zip(labels["name"], labels["value"], strict=True)],
        "images": images,
        "outline": outline,
    }
