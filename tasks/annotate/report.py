"""reports/annotate: agreement (JSON, CSV, SVG), what is to be adjudicated, corrected, rejected, what waits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from tasks.annotate.join import Joined, disagreements
from tasks.domain.hip import RESEARCH_ONLY
from tasks.store.files import write_json, write_text


def write(
    folder: Path,
    joined: Joined,
    masks: list[dict[str, Any]],
    entries: list[dict[str, Any]],
    differ: dict[str, float],
) -> None:
    rejected = [
        {"source": row["source"], "what": row["name"], "hip_visit": row["hip_visit"], "reason": row["reason"],
         "difference_mm": row.get("difference_mm")}
        for row in masks if row["status"] == "rejected"
    ]  # fmt: skip
    rejected += [row | {"what": "label"} for row in joined.refused]
    open_cases = disagreements(joined.rows, masks, differ)
    summary = {
        "agreement": entries,
        "unit": "hip-visit; intervals are 95%, resampling patients",
        "disagreements": len(open_cases),
        "rejected": len(rejected),
        "corrected_by_later_imports": len(joined.corrections),
        "waiting": dict(sorted(joined.waiting.items())),
        "note": RESEARCH_ONLY,
    }
    write_json(folder / "agreement.json", summary)
    write_text(folder / "agreement.svg", _svg(entries))
    _csv(folder / "disagreements.csv", open_cases, ["hip_visit", "name", "values"])
    corrections = [vars(one) for one in joined.corrections]
    _csv(folder / "corrections.csv", corrections, ["hip", "name", "was", "now", "source", "by"])
    columns = ["source", "what", "hip_visit", "reason", "difference_mm"]
    _csv(folder / "rejected.csv", sorted(rejected, key=lambda row: [str(row.get(c)) for c in columns]), columns)


def _csv(path: Path, rows: list[dict[str, Any]], columns: list[str]) -> None:
    write_text(path, pd.DataFrame(rows, columns=columns).to_csv(index=False, float_format="%.3f"))


def _svg(entries: list[dict[str, Any]]) -> str:
    """Agreement with its interval, one line a label; drawn by hand, so that equal numbers are equal bytes."""
    left, width, line = 190, 360, 26
    height = 56 + line * max(len(entries), 1)

    def x(value: float) -> float:
        return left + width * min(max(value, 0.0), 1.0)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 170} {height}" '
        'font-family="sans-serif" font-size="12">',
        '<text x="8" y="18" font-weight="bold">Agreement between readers</text>',
    ]
    for tick in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        parts.append(f'<line x1="{x(tick):.1f}" y1="28" x2="{x(tick):.1f}" y2="{height - 22}" stroke="#ddd"/>')
        parts.append(f'<text x="{x(tick):.1f}" y="{height - 8}" text-anchor="middle">{tick:g}</text>')
    if not entries:
        parts.append(f'<text x="{left}" y="46">no hip-visit was judged by two readers</text>')
    for n, entry in enumerate(entries):
        y = 44 + n * line
        parts.append(f'<text x="8" y="{y + 4}">{entry["name"]} ({entry["measure"]})</text>')
        if entry["low"] is not None:
            ends = f'x1="{x(entry["low"]):.1f}" x2="{x(entry["high"]):.1f}"'
            parts.append(f'<line {ends} y1="{y}" y2="{y}" stroke="#1b6e8c" stroke-width="3"/>')
        if entry["value"] is not None:
            parts.append(f'<circle cx="{x(entry["value"]):.1f}" cy="{y}" r="4.5" fill="#0b3c4c"/>')
            said = f"{entry['value']:.2f}"
            if entry["low"] is not None:
                said += f" ({entry['low']:.2f} to {entry['high']:.2f})"
            parts.append(f'<text x="{left + width + 12}" y="{y + 4}">{said}, n={entry["n_hips"]}</text>')
    return "\n".join([*parts, "</svg>", ""])
