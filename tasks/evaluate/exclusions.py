"""Who is in and who is not: each hip-visit is counted once, at the first thing that keeps it out."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
import pandas as pd

from tasks.domain.hip import RESEARCH_ONLY
from tasks.evaluate.cohort import protect

Row = dict[str, Any]
COUNTS = ["hip_visits", "hips", "patients"]


def flow(hips: pd.DataFrame, frame: pd.DataFrame) -> list[Row]:
    """Rows {step, reason, kind: all | excluded | left, hip_visits, hips, patients} in the order of the diagram."""
    table: list[Row] = []
    everyone = hips.assign(hip=hips["subject"].astype(str) + "-" + hips["side"].astype(str))

    def add(kind: str, step: str, reason: str, rows: pd.DataFrame) -> None:
        counts = {
            "hip_visits": len(rows),
            "hips": int(rows["hip"].nunique()),
            "patients": int(rows["subject"].nunique()),
        }
        table.append({"step": step, "reason": reason, "kind": kind} | counts)

    def leave(step: str, rows: pd.DataFrame, reasons: pd.Series) -> pd.DataFrame:
        """Take out those with a reason; the rest goes on."""
        out = reasons.fillna("").astype(str)
        for reason in sorted(set(out) - {""}):
            add("excluded", step, reason, rows[out == reason])
        return rows[out == ""]

    add("all", "hip-visits that arrived", "", everyone)
    plain = everyone["reason"].fillna("").str.replace(r"\s*\([^)]*\)|[\d.]+ ?%?", " ", regex=True).str.split(";").str[0]
    status = np.where(everyone["status"] == "ok", "", everyone["status"].astype(str) + ": " + plain.str.strip())
    left = leave("images", everyone, pd.Series(status, index=everyone.index))
    rows = frame[frame["hip_visit"].isin(left["hip_visit"])]
    fold = rows["fold"].fillna("none").astype(str)
    rows = leave("consent", rows, pd.Series(np.where(fold == "none", "consent withdrawn or not dealt", ""), rows.index))
    rows = leave("eligibility", rows, _column(rows, "ineligible"))
    rows = leave("at risk", rows, _column(rows, "not_at_risk"))
    lost = np.where(rows["label"].isna(), "not followed over the horizon", "")
    rows = leave("outcome", rows, pd.Series(lost, rows.index))
    rows = leave("estimate", rows, pd.Series(np.where(np.isfinite(rows["risk"]), "", "no estimate"), rows.index))
    for name, words in (("test", "scored: frozen test"), ("external", "scored: external site")):
        if name == "test" or (rows["fold"] == name).any():
            add("left", words, "", rows[rows["fold"] == name])
    add("left", "scored: out of fold", "", rows[~rows["fold"].isin(["test", "external"])])
    return table


def _column(rows: pd.DataFrame, name: str) -> pd.Series:
    return rows[name] if name in rows else pd.Series("", index=rows.index)


def shown(table: list[Row], below: int) -> list[Row]:
    """The table as it may leave the house: what is left and what is excluded add up to what arrived."""
    whole = next((i for i, row in enumerate(table) if row["kind"] == "all"), -1)
    parts = [i for i, row in enumerate(table) if row["kind"] != "all"]
    return protect(table, COUNTS, below, [[(whole, c), *((i, c) for i in parts)] for c in COUNTS])


def diagram(table: list[Row], below: int) -> str:
    """The table as SVG: what stays down the middle, what leaves to the right. Small counts are not shown."""
    rows = shown(table, below)
    parts: list[str] = []
    y, last = 20, ""
    for row in rows:
        text = f"{row['hip_visits']} hip-visits, {row['hips']} hips, {row['patients']} patients"
        if row["kind"] == "excluded":
            words = f"{row['step']}: {row['reason']}" if row["step"] != last else str(row["reason"])
            parts += _box(400, y, 400, words, text, "#f6ece4", "#d55e00")
            parts.append(f'<path d="M200 {y + 20}H400" stroke="#888" fill="none"/>')
        else:
            parts += _box(20, y, 360, str(row["step"]), text, "#e8f0f7", "#0b4f8a")
        last = str(row["step"])
        y += 52
    line = f'<path d="M200 20V{y - 12}" stroke="#888"/>' if rows else ""
    note = f"Counts below {below} are written as &lt;{below}. {RESEARCH_ONLY}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 820 {y + 24}" width="820" height="{y + 24}" role="img" '
        f'aria-label="Flow of hip-visits" font-family="Helvetica, Arial, sans-serif" font-size="12">\n'
        f"<title>Flow of hip-visits</title>\n"
        f'<rect width="820" height="{y + 24}" fill="#ffffff"/>\n{line}\n' + "\n".join(parts)
        + f'\n<text x="20" y="{y + 12}" fill="#555">{note}</text>\n</svg>\n'
    )  # fmt: skip


def _box(x: int, y: int, width: int, title: str, text: str, fill: str, edge: str) -> list[str]:
    title = title.replace("_", " ")
    short = title if len(title) < 58 else title[:56] + "…"
    return [
        f'<rect x="{x}" y="{y}" width="{width}" height="40" fill="{fill}" stroke="{edge}"/>',
        f'<text x="{x + 8}" y="{y + 16}" font-weight="bold" fill="#222">{escape(short)}</text>',
        f'<text x="{x + 8}" y="{y + 32}" fill="#222">{escape(text)}</text>',
    ]
