"""The QC sheet of a visit: what was located, what the hips look like, and the numbers, as one grey PNG."""

from __future__ import annotations

import io
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from tasks.domain.hip import RESEARCH_ONLY, ROLES
from tasks.domain.volume import Volume
from tasks.standardize.locate import Head

TILE, LINE = 168, 14
"""Pixels: edge of a picture, height of a line of text."""
WIDTH = 5 * TILE


def sheet(
    hips: list[dict[str, Any]], series: list[dict[str, Any]], overview: tuple[Volume, list[Head]] | None,
    slices: dict[str, dict[str, NDArray]],
) -> bytes:  # fmt: skip
    """PNG. hips, series: rows of the visit. overview: the series that located, and its heads. slices: side -> role ->
    the slice of the hip grid through the head's centre, normalized."""
    lines = [text for row in hips for text in _of_hip(row)] + [_of_series(row) for row in series]
    height = TILE * (2 if slices else 1) + LINE * (len(lines) + 2)
    page = Image.new("L", (WIDTH, height), 12)
    draw, font = ImageDraw.Draw(page), _font()
    if overview is not None:
        for k, head in enumerate(overview[1][:2]):
            page.paste(_located(overview[0], head), (k * TILE, 0))
    for row, side in enumerate(sorted(slices)):
        for column, role in enumerate(name for name in ROLES if name in slices[side]):
            grey = np.clip(slices[side][role] / 1.2, 0, 1) * 255
            at = ((2 + column) * TILE, row * TILE)
            page.paste(Image.fromarray(grey.astype(np.uint8)).resize((TILE, TILE), Image.Resampling.BILINEAR), at)
            draw.text((at[0] + 4, at[1] + 2), f"{side} {role}", fill=255, font=font)
    top = TILE * (2 if slices else 1) + LINE // 2
    for k, text in enumerate([*lines, RESEARCH_ONLY]):
        draw.text((6, top + LINE * k), text[:150], fill=220, font=font)
    buffer = io.BytesIO()
    page.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(10)


def _located(volume: Volume, head: Head) -> Image.Image:
    """The slice through the head's centre with its circle."""
    index = volume.to_index(head.centre)
    k = int(np.clip(round(float(index[0])), 0, len(volume.array) - 1))
    plane = volume.array[k].astype(np.float32)
    grey = np.clip(plane / max(float(np.percentile(plane, 99)), 1e-6), 0, 1) * 255
    picture = Image.fromarray(grey.astype(np.uint8))
    scale = TILE / max(picture.size)
    picture = picture.resize((int(picture.width * scale), int(picture.height * scale)), Image.Resampling.BILINEAR)
    ry, rx = head.radius / volume.spacing[1] * scale, head.radius / volume.spacing[2] * scale
    y, x = (index[1] + 0.5) * scale, (index[2] + 0.5) * scale
    ImageDraw.Draw(picture).ellipse((x - rx, y - ry, x + rx, y + ry), outline=255)
    return picture


def _of_hip(row: dict[str, Any]) -> list[str]:
    text = f"hip {row['side']}: {row['status']}  {row['roles']}  {row['reason']}"
    if "center_x_mm" in row:
        place = ", ".join(f"{row[f'center_{axis}_mm']:.1f}" for axis in "xyz")
        text += f"  centre {place} mm, radius {row['radius_mm']:.1f} mm, confidence {row['confidence']:.2f}"
    more = "; ".join(str(row.get(name) or "") for name in ("left_out", "conflict") if row.get(name))
    return [text, f"    {more}"] if more else [text]


def _of_series(row: dict[str, Any]) -> str:
    numbers = ", ".join(
        f"{name} {row[name]:.2f}" for name in ("snr", "clipped", "ghosting", "motion_mm") if row.get(name) is not None
    )
    what = f"{row['role'] or 'no role'}, {row['slices']:.0f} slices: {row['status']}"
    return "  ".join(part for part in (what, str(row["reason"]), numbers) if part)
