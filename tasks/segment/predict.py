"""Hip files and trained networks to masks: in the stage, and on arrival with a registered package's networks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tasks.domain.errors import WrongUse
from tasks.nets.folding import folded
from tasks.nets.segmenters import HipSegmenter, VesselNet
from tasks.store import hips
from tasks.store.files import read_json
from tasks.training import data, loop, models

LABELS = {"hip": ("head", "lesion"), "vessel": ("vessel",)}
FINE = ("contrast_fine",)
_KEPT = ("center_lps", "side", "mirrored")


def predict(hip_path: Path, models_folder: Path, fold: str | None, out: Path, made_from: str = "") -> dict[str, Any]:
    """Segment one hip file into `out`/<hip_visit>.safetensors; {"hip_visit", "file", "labels"}, labels '+'-joined.

    `fold` k: the networks that did not see fold k; None, "test" or an unknown fold: the mean over all networks. What
    has no network, or no image to read, has no tensor; with nothing at all no file is written and `file` is "".
    `made_from` is kept in the file's metadata: the digest of what it was made from.
    """
    hip_visit = hip_path.stem
    networks = of_fold(models_folder, fold)
    tensors: dict[str, np.ndarray] = {}
    file = hips.read(hip_path)
    for kind, labels in LABELS.items():
        nets = [load(str(models_folder), name, _weights(models_folder, name)) for name in networks[kind]]
        names: list[str] = list(nets[0][1]["architecture"].get("roles", FINE)) if nets else []
        if not any(name in file.tensors for name in names):
            continue
        shares = torch.stack([probability(net, about, hip_path) for net, about in nets]).mean(0)
        if reach := max(about["reading"].get("reach_mm", 0.0) for _, about in nets):
            shares = shares * _within(reach, file, names[0])
        for channel, label in enumerate(labels):
            tensors[label] = (shares[channel] >= nets[0][1]["reading"]["threshold"]).numpy().astype(np.uint8)
    if "lesion" in tensors:
        tensors["lesion"] &= tensors["head"]
    if not tensors:
        return {"hip_visit": hip_visit, "file": "", "labels": ""}
    hips.write(out / f"{hip_visit}.safetensors", hips.HipFile(tensors, _meta(file, tensors, fold, made_from)))
    return {"hip_visit": hip_visit, "file": f"{hip_visit}.safetensors", "labels": "+".join(tensors)}


def of_fold(folder: Path, fold: str | None) -> dict[str, list[str]]:
    """Names of the networks that read a hip of `fold`, by kind."""
    about = read_json(folder / "segment.json")
    out = {}
    for kind in LABELS:
        names = about["networks"].get(kind, [])
        own = f"{kind}-fold{fold}"
        out[kind] = [own] if own in names else list(names)
    return out


@lru_cache(maxsize=16)
def load(folder: str, name: str, weights: str) -> tuple[nn.Module, dict[str, Any]]:
    """A network ready to read, and its record; kept by a warm process while `weights` (its digest) stays the same."""
    about = models.record(Path(folder), name) or {}
    net = build(about["architecture"])
    models.load(Path(folder), name, net)
    return loop.prepare(folded(net), loop.device()), about


def build(architecture: Mapping[str, Any]) -> nn.Module:
    how = architecture
    if how["kind"] == "hip":
        return HipSegmenter(how["network"], len(how["roles"]) + 1, len(LABELS["hip"]), how["deepest"], how["width"])
    return VesselNet(how["network"], how["slab"] + 2 * how["context"] + 1, how["slab"], how["deepest"], how["width"])


@torch.inference_mode()
def probability(net: nn.Module, about: Mapping[str, Any], path: Path, batch: int = 16) -> Tensor:
    """(labels, D, H, W) float32 on the grid of the file, on the CPU."""
    how, where = about["architecture"], next(net.parameters()).device
    if how["kind"] == "hip":
        shape = data.stack([path], how["roles"]).bits.shape[3:]
        stack = data.stack([path], how["roles"], about["reading"]["size_px"])
        every = torch.arange(stack.bits.shape[2])
        images = torch.cat([stack.take(torch.tensor([0]), every[None])[0], stack.distance(every)[:, None]], 1)
        logits = _through(net, images, where, batch)
        logits = functional.interpolate(logits, size=shape, mode="bilinear", align_corners=False)
        return torch.sigmoid(logits).transpose(0, 1)
    stack = data.stack([path], FINE)
    depth, slab, context = stack.bits.shape[2], how["slab"], how["context"]
    first = torch.arange(0, depth, slab).clamp_max(max(0, depth - slab))
    seen = (first[:, None] + torch.arange(-context, slab + context)).clamp(0, depth - 1)
    images = stack.take(torch.zeros(len(first), dtype=torch.long), seen)[:, :, 0]
    images = torch.cat([images, stack.distance(first + (slab - 1) / 2)[:, None]], 1)
    shares = torch.sigmoid(_through(net, images, where, batch))
    out = torch.zeros(1, depth, *shares.shape[2:])
    for start, share in zip(first.tolist(), shares, strict=True):
        out[0, start : start + slab] = share[: depth - start]
    return out


def _through(net: nn.Module, images: Tensor, where: torch.device, batch: int) -> Tensor:
    parts = []
    for part in images.split(batch):
        with loop.autocast("auto", where):
            parts.append(net(part.to(where).contiguous(memory_format=torch.channels_last)).float().cpu())
    return torch.cat(parts)


def _within(reach_mm: float, file: hips.HipFile, name: str) -> Tensor:
    """(D, H, W) of 0 and 1: which voxels of the grid of `name` are this near the centre of the head."""
    grid = file.meta["grids"][name]
    axes = [
        (torch.arange(n) - (n - 1) / 2) * spacing for n, spacing in zip(grid["shape"], grid["spacing"], strict=True)
    ]
    away = torch.stack(torch.meshgrid(*axes, indexing="ij")).square().sum(0)
    return (away <= reach_mm**2).float()


def _weights(folder: Path, name: str) -> str:
    about = models.record(folder, name)
    if about is None:
        raise WrongUse(f"{folder / name}.safetensors or its .json is not there; run the segment stage")
    return str(about["weights"])


def _meta(file: hips.HipFile, labels: Iterable[str], fold: str | None, made_from: str) -> dict[str, Any]:
    """Where each mask lies, as in the hip file."""
    on_visit = next((name for name in file.tensors if name not in FINE), FINE[0])
    source = {label: FINE[0] if label == "vessel" else on_visit for label in labels}
    meta: dict[str, Any] = {key: file.meta[key] for key in _KEPT if key in file.meta}
    for key in ("grids", "patient_affine", "frame_of_reference"):
        known = file.meta.get(key, {})
        meta[key] = {label: known[name] for label, name in source.items() if name in known}
    return meta | {"fold": fold, "made_from": made_from}
