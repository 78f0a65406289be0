"""Hip-visits as tensors: uint16 in memory as on disk, made float on the device only where a batch needs them."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional

from tasks.domain.disease import ARCO, JIC, MEASURED_LABELS
from tasks.domain.errors import Unavailable
from tasks.domain.hip import ROLES
from tasks.store import digests, hips, tables

HIPS, HIPS_TABLE = Path("data/hips"), Path("data/hips.parquet")
MASKS, ANNOTATIONS, SPLIT = Path("data/masks"), Path("data/annotations.parquet"), Path("data/split.parquet")
TEST = "test"
CONSENSUS = "consensus"
DISTANCE_MM = 30.0
"""A distance that networks are told counts as one at this length, about that of a femoral head and its neck."""
MEMORY_SHARE = 0.25
"""Of the memory that is free, images may take this much: a fold is often fitted beside another."""
_log = logging.getLogger("osteoflow.training")


def cohort(hips_table: Path = HIPS_TABLE, split: Path = SPLIT) -> pd.DataFrame:
    """Usable hip-visits in a fixed order: hip_visit, subject, side, days, fold, path, mask (path or "")."""
    rows = tables.read("hips", hips_table)
    rows = rows[rows["status"] == "ok"].merge(
        tables.read("split", split)[["subject", "fold"]], on="subject", how="left"
    )
    lost = rows["fold"].isna()
    if lost.any():
        _log.warning("%d hip-visits belong to no fold and are left out; run the split stage", int(lost.sum()))
    rows = rows[~lost].sort_values(["subject", "days", "hip_visit"], ignore_index=True)
    rows["path"] = [str(HIPS / file) for file in rows["file"]]
    masks = [MASKS / f"{key}.safetensors" for key in rows["hip_visit"]]
    rows["mask"] = [str(path) if path.exists() else "" for path in masks]
    return rows[["hip_visit", "subject", "side", "days", "fold", "path", "mask", "digest"]]


def folds(rows: pd.DataFrame) -> list[str]:
    """The training folds that have hip-visits, in order."""
    return sorted((fold for fold in rows["fold"].unique() if str(fold).isdigit()), key=lambda fold: (len(fold), fold))


def learnt_from(rows: pd.DataFrame) -> pd.Series:
    """Whether each row is of a training fold: not of the frozen test set, not of an external site."""
    return rows["fold"].isin(folds(rows))


def hold_back(rows: pd.DataFrame, share: float, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(rows to train on, rows for early stopping): patients whole, `share` of them by lot."""
    subjects = sorted(rows["subject"].unique())
    chosen = set(np.random.default_rng(seed).permutation(subjects)[: round(share * len(subjects))])
    inside = rows["subject"].isin(chosen)
    return rows[~inside], rows[inside]


def fingerprint(rows: pd.DataFrame) -> str:
    """One digest over what a network sees of `rows`: images, masks and folds."""
    parts = [f"{key}|{fold}|{digest}" for key, fold, digest in rows[["hip_visit", "fold", "digest"]].to_numpy()]
    parts += [digests.sha256_file(Path(path)) if path else "" for path in rows["mask"]]
    return digests.combine(*parts)


def labels(annotations: Path = ANNOTATIONS) -> pd.DataFrame:
    """Consensus labels, one row a hip-visit: lesion (0|1), stage and jic (level, 0 is no lesion), numbers in their
    unit. Where a reader saw no lesion, its stage, angles and collapse are 0. Missing is NaN."""
    rows = tables.read("annotations", annotations)
    rows = rows[(rows["kind"] == "label") & (rows["reader"] == CONSENSUS) & rows["hip_visit"].notna()]
    wide = rows.drop_duplicates(["hip_visit", "name"], keep="last").pivot(
        index="hip_visit", columns="name", values="value"
    )
    out = pd.DataFrame(index=wide.index)

    def column(name: str) -> pd.Series:
        return wide[name] if name in wide else pd.Series(None, index=wide.index, dtype=object)

    out["stage"] = column("arco").map({name: level for level, name in enumerate(ARCO, 1)}).astype(float)
    out["jic"] = column("jic").map({name: level for level, name in enumerate(JIC, 1)}).astype(float)
    for name in MEASURED_LABELS:
        out[name] = pd.to_numeric(column(name), errors="coerce").astype(float)
    lesion = pd.to_numeric(column("lesion"), errors="coerce").astype(float)
    staged = (out["stage"].notna() | out["jic"].notna()).map({True: 1.0, False: np.nan})
    out["lesion"] = lesion.fillna(staged)
    for name in ("stage", "jic", *MEASURED_LABELS):
        out[name] = out[name].where(out[name].notna() | (out["lesion"] != 0), 0.0)
    return out


@dataclass
class Stack:
    """Volumes of many hip-visits on one grid. bits: (N, C, D, H, W) int16 holding uint16 as stored; value = stored *
    scale + offset with scale, offset (N, C). present: (N, C). spacing: mm of the grid as stored here (D, H, W)."""

    bits: Tensor
    scale: Tensor
    offset: Tensor
    present: Tensor
    spacing: tuple[float, float, float]

    def to(self, device: torch.device) -> Stack:
        """On the device; images that would fill it stay where they are, and `take` brings what a batch needs."""
        scale, offset, present = (x.to(device) for x in (self.scale, self.offset, self.present))
        return Stack(_resident(self.bits, device), scale, offset, present, self.spacing)

    def take(self, visit: Tensor, slices: Tensor) -> Tensor:
        """visit (B,), slices (B, S) -> (B, S, C, H, W) float32; a missing channel is zero."""
        chosen = _taken(self.bits, visit, slices)
        scale = (self.scale * self.present)[visit][:, None, :, None, None]
        offset = (self.offset * self.present)[visit][:, None, :, None, None]
        return chosen.view(torch.uint16).to(scale.dtype).mul_(scale).add_(offset)

    def distance(self, slices: Tensor) -> Tensor:
        """(...) slices -> (..., H, W): how far each pixel lies from the centre of the femoral head, in DISTANCE_MM."""
        depth, rows, columns = self.bits.shape[2:]
        along = ((slices - (depth - 1) / 2) * self.spacing[0])[..., None, None]
        down = (torch.arange(rows, device=slices.device) - (rows - 1) / 2)[:, None] * self.spacing[1]
        across = (torch.arange(columns, device=slices.device) - (columns - 1) / 2) * self.spacing[2]
        return (along**2 + down**2 + across**2).sqrt() / DISTANCE_MM

    def places(self) -> Tensor:
        """(D,) mm of each slice from the centre of the head, posterior positive."""
        depth = self.bits.shape[2]
        return (torch.arange(depth, dtype=torch.float32) - (depth - 1) / 2) * self.spacing[0]


def stack(paths: Sequence[Path | str], names: Sequence[str] = ROLES, size_px: int = 0) -> Stack:
    """Read tensors `names` of hip files, resized in plane to `size_px` (0: as stored). All share one grid."""
    grid = _grid(paths, names)
    depth, rows, columns = (int(n) for n in grid["shape"])
    size = size_px or rows
    bits = room_for((len(paths), len(names), depth, size, size if size_px else columns), torch.int16)
    scale, offset = torch.zeros(len(paths), len(names)), torch.zeros(len(paths), len(names))
    present = torch.zeros(len(paths), len(names))
    for i, path in enumerate(paths):
        file = hips.read(Path(path), list(names))
        for c, name in enumerate(names):
            if name not in file.tensors or not file.tensors[name].size:
                continue
            volume = file.tensors[name]
            if size_px and (rows, columns) != (size, size):
                volume = _resized(volume, size)
            bits[i, c] = torch.from_numpy(np.ascontiguousarray(volume).view(np.int16))
            scale[i, c], offset[i, c] = (float(number) for number in file.meta["scale"][name])
            present[i, c] = 1.0
    spacing = grid["spacing"]
    return Stack(bits, scale, offset, present, (spacing[0], spacing[1] * rows / size, spacing[2] * rows / size))


def _grid(paths: Sequence[Path | str], names: Sequence[str]) -> dict[str, Any]:
    """That of the first file which has one of `names`."""
    for path in paths:
        grids: dict[str, dict[str, Any]] = hips.read(Path(path), []).meta.get("grids", {})
        found = [grid for name, grid in grids.items() if name in names]
        if found:
            return found[0]
    return {"shape": [1, 8, 8], "spacing": [1.0, 1.0, 1.0]}


def room_for(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Zeros: in memory where there is plenty, else mapped from a file without a name below OSTEOFLOW_HOME, whose pages
    the system may put away while nobody looks at them."""
    size = math.prod(shape) * dtype.itemsize
    if not size or size <= MEMORY_SHARE * available_memory():
        return torch.zeros(shape, dtype=dtype)
    folder = Path(os.environ.get("OSTEOFLOW_HOME", ".osteoflow")) / "scratch"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)  # a full disk says so here, not by SIGBUS in a fit
        except OSError as error:
            raise Unavailable(
                f"{folder} has no room for {size / 1e9:.1f} GB of images that memory does not hold: {error.strerror}; "
                "make room there, or point OSTEOFLOW_HOME at a larger disk"
            ) from error
        mapped = np.memmap(file, mode="r+", shape=(size,), dtype=np.uint8)
    _log.info("%.1f GB of images are mapped from disk", size / 1e9)
    return torch.from_numpy(mapped).view(dtype).view(shape)


def available_memory() -> int:
    """Bytes that the system could still give out: what files hold in memory is given back where it is needed."""
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


def _resident(images: Tensor, device: torch.device) -> Tensor:
    if device.type == "cuda" and images.nbytes > MEMORY_SHARE * torch.cuda.mem_get_info(device)[0]:
        return images
    return images.to(device)


def _taken(images: Tensor, visit: Tensor, slices: Tensor) -> Tensor:
    """images (N, C, D, ...), visit (B,), slices (B, S) -> (B, S, C, ...) on the device of `visit`."""
    if images.device == visit.device:
        return images[visit[:, None], :, slices]
    return images[visit.to(images.device)[:, None], :, slices.to(images.device)].to(visit.device, non_blocking=True)


def _resized(volume: np.ndarray, size: int) -> np.ndarray:
    values = torch.from_numpy(volume.astype(np.float32))[:, None]
    small = functional.interpolate(values, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    return small[:, 0].round().clamp(0, 65535).numpy().astype(np.uint16)


@dataclass
class Masks:
    """masks: (N, L, D, H, W) uint8 0|1; known: (N, L), whether somebody drew (or ruled out) that label there."""

    masks: Tensor
    known: Tensor

    def to(self, device: torch.device) -> Masks:
        return Masks(_resident(self.masks, device), self.known.to(device))

    def take(self, visit: Tensor, slices: Tensor) -> Tensor:
        """visit (B,), slices (B, S) -> (B, S, L, H, W) float32."""
        return _taken(self.masks, visit, slices).float()


def masks(
    paths: Sequence[str],
    names: Sequence[str],
    shape: Sequence[int],
    lesion: Sequence[float] | None = None,
    size_px: int = 0,
) -> Masks:
    """Consensus masks `names` of mask files ("" is none) on the grid `shape` (D, H, W), or in plane on `size_px`.

    `lesion` is each hip-visit's label (0 | 1 | NaN). A head drawn without a lesion means that there is none, unless the
    label says that there is one: then the lesion is unknown here.
    """
    depth, rows, columns = shape
    size = (size_px, size_px) if size_px else (rows, columns)
    out = room_for((len(paths), len(names), depth, *size), torch.uint8)
    known = torch.zeros(len(paths), len(names))
    for i, path in enumerate(paths):
        if not path:
            continue
        wanted = [f"{CONSENSUS}/{name}" for name in names]
        found = hips.read(Path(path), wanted).tensors
        for c, name in enumerate(wanted):
            if name in found and found[name].shape == tuple(shape):
                drawn = torch.from_numpy(np.ascontiguousarray(found[name] > 0))
                if drawn.shape[1:] != size:
                    drawn = functional.interpolate(drawn[None].float(), size=size, mode="area")[0] >= 0.5
                out[i, c], known[i, c] = drawn, 1.0
            elif names[c] == "lesion" and f"{CONSENSUS}/head" in found and not (lesion is not None and lesion[i] == 1):
                known[i, c] = 1.0
    return Masks(out, known)
