"""One small chart as SVG text: axes, lines, bands, points with intervals, a legend. Same input, same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from math import ceil, floor, log10

Points = Sequence[tuple[float, float]]

COLOURS = ("#0b4f8a", "#d55e00", "#009e73", "#aa5c9f", "#b8860b", "#4a9fd4", "#777777", "#8c564b")
"""The model first, then the baselines: told apart by the colour-blind too (after Okabe and Ito)."""
INK, GRID = "#222222", "#e4e4e4"
WIDTH, LEFT, TOP, PLOT = 420, 58, 40, 300


@dataclass
class Chart:
    title: str
    x: str
    y: str
    xlim: tuple[float, float] = (0.0, 1.0)
    ylim: tuple[float, float] = (0.0, 1.0)
    note: str = ""
    height: int = 260
    _shapes: list[str] = field(default_factory=list)
    _legend: list[tuple[str, str, str]] = field(default_factory=list)

    def line(self, points: Points, colour: str, label: str = "", width: float = 2.0, dash: str = "") -> Chart:
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        self._shapes.append(
            f'<polyline points="{self._path(points)}" fill="none" stroke="{colour}" stroke-width="{width}"{dashes}/>'
        )
        if label:
            self._legend.append((colour, label, dash))
        return self

    def band(self, lower: Points, upper: Points, colour: str) -> Chart:
        outline = [*lower, *reversed(list(upper))]
        self._shapes.append(f'<polygon points="{self._path(outline)}" fill="{colour}" fill-opacity="0.15"/>')
        return self

    def points(self, points: Points, colour: str, spans: Points = (), label: str = "") -> Chart:
        """Dots, and with `spans` (low, high) a vertical interval through each."""
        for (px, _), (low, high) in zip(points, spans, strict=False):
            x, y0, y1 = self._x(px), self._y(low), self._y(high)
            self._shapes.append(f'<path d="M{x:.1f} {y0:.1f}V{y1:.1f}" stroke="{colour}" stroke-width="1.2"/>')
        for px, py in points:
            self._shapes.append(f'<circle cx="{self._x(px):.1f}" cy="{self._y(py):.1f}" r="3.2" fill="{colour}"/>')
        if label:
            self._legend.append((colour, label, ""))
        return self

    def bars(self, edges: Sequence[float], heights: Sequence[float], colour: str, label: str = "") -> Chart:
        for low, high, top in zip(edges, edges[1:], heights, strict=False):
            x, width = self._x(low), self._x(high) - self._x(low)
            self._shapes.append(
                f'<rect x="{x:.1f}" y="{self._y(top):.1f}" width="{max(width - 1, 0.5):.1f}" '
                f'height="{self._y(self.ylim[0]) - self._y(top):.1f}" fill="{colour}" fill-opacity="0.55"/>'
            )
        if label:
            self._legend.append((colour, label, ""))
        return self

    def svg(self) -> str:
        rows = [*reversed(self._legend), *(("", line, "") for line in self.note.split("\n") if line)]
        bottom = TOP + self.height + 44
        total = bottom + 16 * len(rows) + 6
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {total}" width="{WIDTH}" height="{total}" '
            f'role="img" aria-label="{escape(self.title)}" font-family="Helvetica, Arial, sans-serif" font-size="11">',
            f"<title>{escape(self.title)}</title>",
            f'<rect width="{WIDTH}" height="{total}" fill="#ffffff"/>',
            f'<text x="{LEFT}" y="20" font-size="13" font-weight="bold" fill="{INK}">{escape(self.title)}</text>',
        ]
        parts += self._axes()
        parts += self._shapes
        for row, (colour, label, dash) in enumerate(rows):
            y = bottom + 14 + 16 * row
            if colour:
                dashes = f' stroke-dasharray="{dash}"' if dash else ""
                parts.append(
                    f'<path d="M{LEFT} {y - 4}h18" stroke="{colour}" stroke-width="3" fill="none"{dashes}/>'
                    f'<text x="{LEFT + 24}" y="{y}" fill="{INK}">{escape(label)}</text>'
                )
            else:
                parts.append(f'<text x="{LEFT}" y="{y}" fill="#555555">{escape(label)}</text>')
        return "\n".join([*parts, "</svg>", ""])

    def _axes(self) -> list[str]:
        base, right = TOP + self.height, LEFT + PLOT + 20
        parts = []
        for tick in _ticks(*self.ylim):
            y = self._y(tick)
            parts.append(f'<path d="M{LEFT} {y:.1f}H{right}" stroke="{GRID}"/>')
            parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" fill="{INK}">{tick:g}</text>')
        for tick in _ticks(*self.xlim):
            x = self._x(tick)
            parts.append(f'<path d="M{x:.1f} {base}v4" stroke="{INK}"/>')
            parts.append(f'<text x="{x:.1f}" y="{base + 16}" text-anchor="middle" fill="{INK}">{tick:g}</text>')
        middle = LEFT + (right - LEFT) / 2
        parts.append(f'<path d="M{LEFT} {TOP}V{base}H{right}" stroke="{INK}" fill="none"/>')
        parts.append(f'<text x="{middle}" y="{base + 34}" text-anchor="middle" fill="{INK}">{escape(self.x)}</text>')
        y = TOP + self.height / 2
        turned = f'x="14" y="{y}" text-anchor="middle" transform="rotate(-90 14 {y})"'
        parts.append(f'<text {turned} fill="{INK}">{escape(self.y)}</text>')
        return parts

    def _x(self, value: float) -> float:
        low, high = self.xlim
        return LEFT + (value - low) / (high - low) * (PLOT + 20)

    def _y(self, value: float) -> float:
        low, high = self.ylim
        inside = min(max(value, low), high)
        return TOP + self.height - (inside - low) / (high - low) * self.height

    def _path(self, points: Points) -> str:
        return " ".join(f"{self._x(x):.1f},{self._y(y):.1f}" for x, y in points)


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers from `low` to `high`."""
    scale = 10.0 ** floor(log10((high - low) / 5))
    step = next(s * scale for s in (1, 2, 2.5, 5, 10) if s * scale >= (high - low) / 5 * 0.999)
    first = ceil(low / step - 1e-9)
    return [round(i * step, 10) for i in range(first, floor(high / step + 1e-9) + 1)]
