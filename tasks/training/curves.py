"""Loss curves as a small self-contained SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from tasks.store.files import write_text

_COLOURS = (
    "#1b6ca8",
    "#d1495b",
    "#3a7d44",
    "#8d5a97",
    "#c98a1b",
    "#4f6d7a",
    "#7a3b2e",
    "#2e8b8b",
    "#b5651d",
    "#555555",
)
_WIDTH, _HEIGHT, _LEFT, _TOP = 640, 320, 56, 28


def write(path: Path, title: str, curves: Mapping[str, Sequence[float]]) -> None:
    """One line for each of `curves` (name -> value after each epoch), with a legend."""
    drawn = {name: list(values) for name, values in curves.items() if len(values)}
    top = max((value for values in drawn.values() for value in values), default=1.0) or 1.0
    longest = max((len(values) for values in drawn.values()), default=1)
    right, bottom = _WIDTH - 150, _HEIGHT - 40

    def x(epoch: int) -> float:
        return _LEFT + (right - _LEFT) * epoch / max(1, longest - 1)

    def y(value: float) -> float:
        return bottom - (bottom - _TOP) * value / top

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<text x="{_LEFT}" y="18" font-size="14">{escape(title)}</text>',
    ]
    for share in (0, 0.25, 0.5, 0.75, 1):
        parts.append(
            f'<line x1="{_LEFT}" x2="{right}" y1="{y(share * top):.1f}" y2="{y(share * top):.1f}" stroke="#ddd"/>'
        )
        parts.append(f'<text x="{_LEFT - 6}" y="{y(share * top) + 4:.1f}" text-anchor="end">{share * top:.2g}</text>')
    parts.append(
        f'<text x="{(_LEFT + right) / 2}" y="{_HEIGHT - 10}" text-anchor="middle">epoch (1 to {longest})</text>'
    )
    for i, (name, values) in enumerate(drawn.items()):
        colour = _COLOURS[i % len(_COLOURS)]
        points = " ".join(f"{x(epoch):.1f},{y(value):.1f}" for epoch, value in enumerate(values))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts.append(f'<text x="{right + 10}" y="{_TOP + 8 + 16 * i}" fill="{colour}">{escape(name)}</text>')
    write_text(path, "\n".join([*parts, "</svg>", ""]))
