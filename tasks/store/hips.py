"""Hip files: one hip-visit, one safetensors file, memory-mapped on read.

Tensors are uint16 (D, H, W) in hip space (tasks.domain.volume.Grid): `t1`, `fluid`, `contrast` on the visit grid, and
`contrast_fine` on the fine grid where vessels are measured. A missing role has no tensor. The file's metadata holds,
as JSON: `scale` {tensor: [scale, offset]} with value = stored * scale + offset in normalized intensity,
`grids` {tensor: {"shape", "spacing"}}, `center_lps` [x, y, z] mm, `side`, `mirrored`, `sources` {tensor: series UID},
`source_spacing_mm` {tensor: [mm, mm, mm]} as acquired, `patient_affine` {tensor: 4x4}, index -> LPS of the source's
frame of reference, and `frame_of_reference` {tensor: UID}.

Mask files hold uint8 tensors named `<reader>/<label>` (head and lesion on the visit grid, vessel on the fine grid)
and, as metadata, `sources` {tensor: text}.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

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


def quantize(values: NDArray[np.floating]) -> tuple[NDArray[np.uint16], tuple[float, float]]:
    """float array -> uint16 array and (scale, offset) with value = stored * scale + offset."""
    low, high = float(values.min()), float(values.max())
    scale = (high - low) / 65535 or 1.0
    return np.round((values - low) / scale).astype(np.uint16), (scale, low)
