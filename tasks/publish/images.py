"""Slices of a hip as PNG data, with the lesion's outline; by hand, so that a report needs no imaging library."""

from __future__ import annotations

import base64
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.store import hips

ROLES = {"t1": "T1", "fluid": "fluid-sensitive", "contrast": "contrast-enhanced"}
OUTLINE = {"lesion": (255, 120, 0), "head": (90, 200, 250)}


def slices(volume: Path, masks: Path | None, prefix: str) -> list[tuple[str, str]]:
    """(name of the sequence, data URI) for each sequence of a hip-visit, through the middle of its lesion.

    `masks` holds tensors `<prefix>head` and `<prefix>lesion` on the visit grid; without them there is no outline and
    the slice is the middle one.
    """
    hip = hips.read(volume, list(ROLES))
    found = hips.read(masks, [f"{prefix}{name}" for name in OUTLINE]).tensors if masks and masks.exists() else {}
    outlines = {name: found[f"{prefix}{name}"] > 0 for name in OUTLINE if f"{prefix}{name}" in found}
    out = []
    for role, words in ROLES.items():
        if role not in hip.tensors:
            continue
        values = hip.values(role)
        fitting = {name: mask for name, mask in outlines.items() if mask.shape == values.shape}
        out.append((words, png(_coloured(values, fitting))))
    return out


def middle(outlines: dict[str, NDArray[np.bool_]], depth: int) -> int:
    """The slice with most lesion, else most head, else the middle one."""
    for name in ("lesion", "head"):
        if name in outlines and outlines[name].any():
            return int(outlines[name].sum(axis=(1, 2)).argmax())
    return depth // 2


def png(image: NDArray[np.uint8]) -> str:
    """(H, W, 3) uint8 -> a data URI."""
    height, width, _ = image.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), image.reshape(height, -1)], axis=1)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows.tobytes(), 9))
    return "data:image/png;base64," + base64.b64encode(data + chunk(b"IEND", b"")).decode()


def _coloured(values: NDArray[np.float32], outlines: dict[str, NDArray[np.bool_]]) -> NDArray[np.uint8]:
    at = middle(outlines, len(values))
    plane = values[at]
    low, high = np.percentile(plane, [1, 99.5])
    grey = np.clip((plane - low) / max(float(high - low), 1e-6), 0, 1)
    image = np.repeat((grey * 255).astype(np.uint8)[:, :, None], 3, axis=2)
    for name in ("head", "lesion"):
        if name in outlines:
            image[_edge(outlines[name][at])] = OUTLINE[name]
    return image


def _edge(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of the mask that touch what is not."""
    padded = np.pad(mask, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inside
