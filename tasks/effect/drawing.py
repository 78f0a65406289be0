"""Two figures as SVG, written by hand: importing a plotting library would take longer than the whole stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

_WIDTH, _LEFT, _RIGHT, _LINE = 900, 380, 860, 22


def forest(rows: Sequence[Mapping[str, Any]], paper: Sequence[Mapping[str, Any]]) -> str:
    """Change with its interval for each treatment, one panel an outcome; the paper's figures in grey."""
    parts: list[str] = []
    y = 30.0
    wanted = [*(str(row["outcome"]) for row in rows), *(str(one["outcome"]) for one in paper)]
    for outcome in dict.fromkeys(wanted):
        own = [r for r in rows if r["outcome"] == outcome and _finite(r["change"])]
        entries = [(_name(r), r, "#1f5fa8" if r["adjusted"] else "#222") for r in own]
        entries += [(f"{p['treatment']} (the paper, n = 30)", p, "#888") for p in paper if p["outcome"] == outcome]
        drawn = [e for e in entries if _finite(e[1]["change"])]
        values = [float(e[1][k]) for e in drawn for k in ("change", "low", "high") if _finite(e[1][k])] + [0.0]
        low, high = min(values), max(values)
        pad = 0.06 * (high - low or 1.0)
        low, high = low - pad, high + pad

        def at(value: float, low: float = low, high: float = high) -> float:
            return _LEFT + (value - low) / (high - low) * (_RIGHT - _LEFT)

        known = {str(r["outcome"]): str(r["unit"]) for r in rows}
        unit = known.get(outcome) or ("mm" if outcome.endswith("_mm") else "count")
        parts.append(f'<text x="10" y="{y:.0f}" font-weight="bold">{escape(outcome)}: change, {escape(unit)}</text>')
        top = y + 6
        for name, row, colour in drawn:
            y += _LINE
            parts.append(f'<text x="10" y="{y + 4:.0f}">{escape(name)}</text>')
            if _finite(row["low"]) and _finite(row["high"]):
                parts.append(
                    f'<line x1="{at(row["low"]):.1f}" x2="{at(row["high"]):.1f}" y1="{y:.0f}" y2="{y:.0f}" '
                    f'stroke="{colour}" stroke-width="2"/>'
                )
            parts.append(f'<circle cx="{at(row["change"]):.1f}" cy="{y:.0f}" r="4" fill="{colour}"/>')
        zero = at(0.0)
        parts.append(f'<line x1="{zero:.1f}" x2="{zero:.1f}" y1="{top:.0f}" y2="{y + 8:.0f}" stroke="#bbb"/>')
        y += 14
        for value in np.linspace(low + pad, high - pad, 3):
            parts.append(
                f'<text x="{at(value):.1f}" y="{y + 6:.0f}" text-anchor="middle" fill="#555">{value:.3g}</text>'
            )
        y += 34
    parts.append(
        f'<text x="10" y="{y:.0f}" fill="#555">Changes associated with treatment, hips not randomized; 95 % intervals, '
        "patients resampled. Research use only, not for diagnosis.</text>"
    )
    return _svg(parts, y + 16)


def overlap(propensities: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Propensity to be treated among treated (blue, up) and observed (grey, down) hips."""
    parts: list[str] = []
    y = 30.0
    for arm, found in propensities.items():
        n = len(found["treated"]), len(found["observed"])
        parts.append(
            f'<text x="10" y="{y:.0f}" font-weight="bold">{escape(arm)}: {n[0]} treated, {n[1]} observed hips</text>'
        )
        middle = y + 60
        for which, colour, sign in (("treated", "#1f5fa8", -1), ("observed", "#999", 1)):
            counts, _ = np.histogram(found[which], bins=20, range=(0, 1))
            for place, share in enumerate(counts / max(counts.max(), 1)):
                height = 45 * float(share)
                top = middle - height if sign < 0 else middle
                parts.append(
                    f'<rect x="{60 + place * 40}" y="{top:.1f}" width="36" height="{height:.1f}" fill="{colour}"/>'
                )
        y = middle + 75
    if not parts:
        parts.append('<text x="10" y="30">No arm was large enough to adjust.</text>')
        y = 40.0
    parts.append(f'<text x="10" y="{y:.0f}" fill="#555">Propensity 0 to 1 from left to right.</text>')
    return _svg(parts, y + 16)


def _name(row: Mapping[str, Any]) -> str:
    adjusted = ", adjusted" if row["adjusted"] else ""
    return f"{row['treatment']} ({row['n_hips']:.0f} hips, {row['n_patients']:.0f} patients{adjusted})"


def _finite(value: Any) -> bool:
    return value is not None and bool(np.isfinite(value))


def _svg(parts: list[str], height: float) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}" font-family="sans-serif" '
        f'font-size="13" role="img">\n<rect width="{_WIDTH}" height="{height:.0f}" fill="#fff"/>\n'
        + "\n".join(parts) + "\n</svg>\n"
    )  # fmt: skip
