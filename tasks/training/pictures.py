"""Figures of the training rooms as small self-contained SVGs: counts, calibration, sheets of example images."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.store.files import write_text

Rgb = NDArray[np.uint8]
"""(H, W, 3)."""


def png(image: Rgb) -> bytes:
    """The image as a PNG."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, _ = image.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), image.reshape(height, -1)], 1).tobytes()
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def grey(image: NDArray[np.floating], white: float = 1.2) -> Rgb:
    """Normalized intensity 0 to `white` as grey."""
    level = (np.clip(image / white, 0, 1) * 255).astype(np.uint8)
    return np.repeat(level[..., None], 3, axis=-1)


def outline(image: Rgb, mask: NDArray[np.bool_], colour: tuple[int, int, int]) -> Rgb:
    """The border of `mask` drawn into `image`."""
    wide = np.pad(mask, 1)
    inner = wide[:-2, 1:-1] & wide[2:, 1:-1] & wide[1:-1, :-2] & wide[1:-1, 2:]
    out = image.copy()
    out[mask & ~inner] = colour
    return out


def heat(image: Rgb, share: NDArray[np.floating]) -> Rgb:
    """`share` 0 to 1 laid over `image` in orange."""
    weight = 0.6 * np.clip(share, 0, 1)[..., None]
    return (image * (1 - weight) + np.array([255, 120, 0]) * weight).astype(np.uint8)


def sheet(path: Path, title: str, pictures: Sequence[tuple[str, Rgb]], columns: int = 4, side: int = 180) -> None:
    """Captioned images in rows."""
    rows = -(-len(pictures) // columns) or 1
    width, height = columns * (side + 10) + 10, rows * (side + 30) + 40
    parts = [_head(width, height), f'<text x="10" y="20" font-size="14">{escape(title)}</text>']
    for i, (caption, image) in enumerate(pictures):
        x, y = 10 + i % columns * (side + 10), 32 + i // columns * (side + 30)
        data = base64.b64encode(png(image)).decode()
        parts.append(f'<image x="{x}" y="{y}" width="{side}" height="{side}" href="data:image/png;base64,{data}"/>')
        parts.append(f'<text x="{x}" y="{y + side + 14}" font-size="10">{escape(caption)}</text>')
    _write(path, parts)


def confusion(path: Path, title: str, levels: Sequence[str], counts: Sequence[Sequence[int]], unit: str) -> None:
    """Counts: rows as the readers said, columns as the networks did."""
    cell, left, top = 46, 90, 70
    size = cell * len(levels)
    most = max((n for row in counts for n in row), default=0) or 1
    total = sum(n for row in counts for n in row)
    parts = [_head(left + size + 30, top + size + 40), f'<text x="10" y="20" font-size="14">{escape(title)}</text>']
    parts.append(f'<text x="10" y="38">n = {total} {escape(unit)}; rows: readers, columns: networks</text>')
    for i, level in enumerate(levels):
        middle = i * cell + cell / 2
        parts.append(f'<text x="{left - 6}" y="{top + middle + 4}" text-anchor="end">{escape(level)}</text>')
        parts.append(f'<text x="{left + middle}" y="{top - 6}" text-anchor="middle">{escape(level)}</text>')
    for i, row in enumerate(counts):
        for j, n in enumerate(row):
            x, y, share = left + j * cell, top + i * cell, n / most
            ink = "white" if share > 0.55 else "black"
            parts.append(f'<rect x="{x}" y="{y}" width="{cell}" height="{cell}" fill="rgba(27,108,168,{share:.3f})" '
                         'stroke="#ddd"/>')  # fmt: skip
            parts.append(
                f'<text x="{x + cell / 2}" y="{y + cell / 2 + 4}" text-anchor="middle" fill="{ink}">{n}</text>'
            )
    _write(path, parts)


def calibration(path: Path, title: str, bins: Sequence[Mapping[str, float]], note: str) -> None:
    """bins: {"risk", "rate", "n"} each: what was said against what was found; the area of a dot is its n."""
    side, left, top = 280, 60, 50
    parts = [_head(left + side + 30, top + side + 50), f'<text x="10" y="20" font-size="14">{escape(title)}</text>']
    parts.append(f'<text x="10" y="38">{escape(note)}</text>')
    parts.append(f'<rect x="{left}" y="{top}" width="{side}" height="{side}" fill="none" stroke="#aaa"/>')
    parts.append(f'<line x1="{left}" y1="{top + side}" x2="{left + side}" y2="{top}" stroke="#ccc"/>')
    most = max((one["n"] for one in bins), default=1)
    for one in bins:
        x, y = left + side * one["risk"], top + side * (1 - one["rate"])
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{3 + 9 * (one["n"] / most) ** 0.5:.1f}" fill="#1b6ca8"/>')
    parts.append(f'<text x="{left + side / 2}" y="{top + side + 30}" text-anchor="middle">probability said</text>')
    parts.append(f'<text x="{left}" y="{top - 4}" font-size="11">share found, 0 to 1</text>')
    _write(path, parts)


def _head(width: float, height: float) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" font-family="sans-serif" '
        f'font-size="12"><rect width="{width:.0f}" height="{height:.0f}" fill="white"/>'
    )


def _write(path: Path, parts: list[str]) -> None:
    write_text(path, "\n".join([*parts, "</svg>", ""]))
