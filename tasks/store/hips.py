"""Hip files: one hip-visit, one safetensors file, memory-mapped on read.

Tensors are uint16 (D, H, W) in hip space (tasks.domain.volume.Grid): `t1`, `fluid`, `contrast` on the visit grid, and
`contrast_fine` on the fine grid where vessels are measured. A missing role has no tensor. The file's metadata holds,
as JSON: `scale` {tensor: [scale, offset]} with value = stored * scale + offset in normalized intensity,
`grids` {tensor: {"shape", "spacing"}}, `center_lps` [x, y, z] mm, `side`, `mirrored`, `sources` {tensor: series UID},
`source_spacing_mm` {tensor: [mm, mm, mm]} as acquired, with `source_affine` {tensor: 4x4} and `source_shape` {tensor:
[D, H, W]} of the acquired volume, `patient_affine` {tensor: 4x4}, index -> LPS of the source's frame of reference, and
`frame_of_reference` {tensor: UID}.

Mask files hold uint8 tensors named `<reader>/<label>` (head and lesion on the visit grid, vessel on the fine grid)
and, as metadata, `sources` {tensor: text}.
"""

from __future__ import annotations

import json
import mmap
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from tasks.domain.errors import WrongUse
from tasks.store.files import replacing


@dataclass(frozen=True)
class HipFile:
    """tensors: name -> (D, H, W) as stored; meta: the decoded JSON metadata."""

    tensors: dict[str, NDArray]
    meta: dict[str, Any] = field(default_factory=dict)

    def values(self, name: str) -> NDArray[np.float32]:
        """(D, H, W) float32, normalized intensity."""
        scale, offset = self.meta["scale"][name]
        return self.tensors[name].astype(np.float32) * np.float32(scale) + np.float32(offset)

    def middle(self, name: str) -> NDArray[np.float32]:
        """The slice through the head's centre, as `values`."""
        scale, offset = self.meta["scale"][name]
        plane = self.tensors[name][len(self.tensors[name]) // 2]
        return plane.astype(np.float32) * np.float32(scale) + np.float32(offset)


def write(path: Path, hip: HipFile) -> None:
    tensors = {name: np.ascontiguousarray(hip.tensors[name]) for name in sorted(hip.tensors)}
    meta = {"osteoflow": json.dumps(hip.meta, sort_keys=True, separators=(",", ":"), allow_nan=False)}
    with replacing(path) as partial:
        save_file(tensors, partial, metadata=meta)


def read(path: Path, names: list[str] | None = None) -> HipFile:
    """Read `names` (all by default) of a hip or mask file; names that are not there are left out."""
    with safe_open(path, framework="np") as handle:
        present = set(handle.keys())
        wanted = sorted(present) if names is None else [name for name in names if name in present]
        meta = json.loads((handle.metadata() or {}).get("osteoflow", "{}"))
        return HipFile({name: handle.get_tensor(name) for name in wanted}, meta)


def layout(path: Path) -> dict[str, list[float]]:
    """Where a hip file's tensors lie: name -> [byte offset, D, H, W, scale, offset of brightness]. hips.parquet keeps
    it as `at_<name>`, and is so the index by which `Slices` finds any slice without opening a header."""
    with open(path, "rb") as handle:
        (size,) = struct.unpack("<Q", handle.read(8))
        header = json.loads(handle.read(size))
    scales = json.loads(header.pop("__metadata__", {}).get("osteoflow", "{}")).get("scale", {})
    return {
        name: [float(v) for v in (8 + size + entry["data_offsets"][0], *entry["shape"], *scales.get(name, (1.0, 0.0)))]
        for name, entry in sorted(header.items())
    }


class Slices:
    """Slices of many hip-visits as uint16, straight from the mapped files: (C, H, W) with C the roles `names`.

    `rows`: of hips.parquet. A hip-visit without a role has zeros there. Files stay mapped, `most` at a time."""

    def __init__(self, rows: pd.DataFrame, root: Path, names: Sequence[str], most: int = 4096) -> None:
        self.paths = [root / str(file) for file in rows["file"]]
        found = [[_place(rows, f"at_{name}", i) for name in names] for i in range(len(rows))]
        shapes = {place[1:4] for visit in found for place in visit if place is not None}
        if len(shapes) != 1:
            raise WrongUse(f"roles {', '.join(names)} lie on {len(shapes)} grids; slices are of one")
        self.depth, self.height, self.width = (int(n) for n in shapes.pop())
        self.starts = [[-1 if place is None else int(place[0]) for place in visit] for visit in found]
        self.scale = np.array([[(0.0, 0.0) if p is None else p[4:6] for p in visit] for visit in found], np.float32)
        self.pixels, self.most = self.height * self.width, most
        self._maps: dict[int, NDArray[np.uint16]] = {}

    def take(self, visits: Sequence[int], slices: Sequence[int], out: NDArray[np.uint16] | None = None) -> NDArray:
        """(B, C, H, W) uint16, into `out` when given; brightness is stored * scale[visit, c, 0] + its [visit, c, 1]."""
        if out is None:
            out = np.empty((len(visits), len(self.starts[0]), self.height, self.width), np.uint16)
        flat = out.reshape(len(visits), -1, self.pixels)
        for b, (visit, k) in enumerate(zip(visits, slices, strict=True)):
            if not 0 <= k < self.depth:
                raise IndexError(f"slice {k} of {self.depth}")
            mapped = self._maps.get(visit)
            if mapped is None:
                mapped = self._map(visit)
            for c, start in enumerate(self.starts[visit]):
                if start < 0:
                    flat[b, c] = 0
                else:
                    at = start // 2 + k * self.pixels
                    flat[b, c] = mapped[at : at + self.pixels]
        return out

    def _map(self, visit: int) -> NDArray[np.uint16]:
        while len(self._maps) >= self.most:
            del self._maps[next(iter(self._maps))]
        with open(self.paths[visit], "rb") as handle:
            data = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
        self._maps[visit] = np.frombuffer(data, np.uint16, len(data) // 2)
        return self._maps[visit]


def _place(rows: pd.DataFrame, column: str, i: int) -> tuple[float, ...] | None:
    value = rows[column].iloc[i] if column in rows else None
    return None if value is None or np.ndim(value) == 0 else tuple(float(v) for v in value)


def quantize(values: NDArray[np.floating]) -> tuple[NDArray[np.uint16], tuple[float, float]]:
    """float array -> uint16 array and (scale, offset) with value = stored * scale + offset."""
    low, high = float(values.min()), float(values.max())
    scale = (high - low) / 65535 or 1.0
    return np.round((values - low) / scale).astype(np.uint16), (scale, low)
