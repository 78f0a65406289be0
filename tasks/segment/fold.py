"""One network (of hips or of vessels) with one fold left out: fitted, unless it is there already."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from torch import Generator, Tensor, nn

from tasks.domain.hip import ROLES
from tasks.segment.params import Params
from tasks.segment.predict import FINE, LABELS, build
from tasks.store.digests import combine
from tasks.training import augment, checkpoint, data, distribution, loop, losses, models, speed

_log = logging.getLogger("osteoflow.segment")


@dataclass(frozen=True)
class Job:
    """Picklable. kind: hip | vessel. rows: the training cohort; lesion: label of each; identity: params and code."""

    params: Params
    kind: str
    fold: str
    rows: pd.DataFrame
    lesion: tuple[float, ...]
    identity: str
    models: str

    @property
    def name(self) -> str:
        return f"{self.kind}-fold{self.fold}"


@distribution.collective
def fit_fold(job: Job) -> dict[str, Any] | None:
    """The record of the network; None when nobody drew what it should learn."""
    torch.set_num_threads(1)
    folder, where, params = Path(job.models), loop.device(), job.params
    inside = (job.rows["fold"] != job.fold).to_numpy() & (job.rows["mask"] != "").to_numpy()
    train = job.rows[inside].reset_index(drop=True)
    lesion = [label for label, one in zip(job.lesion, inside, strict=True) if one]
    inputs = combine(job.identity, job.kind, data.fingerprint(train), str(lesion))
    kept = models.record(folder, job.name)
    if kept is not None and kept["inputs"] == inputs:
        _log.info("%s: unchanged, kept", job.name)
        return kept
    lesson: _Lesson = _Hips(params, train, lesion, where) if job.kind == "hip" else _Vessels(params, train, where)
    teaches = torch.nonzero(lesson.usable)[:, 0]
    if not len(teaches):
        return None
    how = params.hip if job.kind == "hip" else params.vessel
    architecture = _architecture(job.kind, params)
    learn = train.iloc[teaches.tolist()].reset_index(drop=True)
    older = models.parent(folder, job.name, architecture, train["subject"], params.warm_start)
    torch.manual_seed(how.recipe.seed)
    net = build(architecture)
    if older:
        models.load(folder, job.name, net)
    active, quiet = data.hold_back(learn, how.recipe.validation_share, how.recipe.seed)
    items, held = teaches[active.index.tolist()], teaches[quiet.index.tolist()]

    def validate(model: nn.Module) -> float:
        with torch.no_grad():
            return float(lesson.loss(model, lesson.make(held.to(where), torch.Generator(where).manual_seed(0))))

    fitted = loop.fit(
        net,
        how.recipe,
        len(items),
        lambda index, generator: lesson.make(items.to(where)[index], generator),
        lesson.loss,
        name=job.name,
        epochs=how.warm_epochs if older else None,
        keys=lambda index: train["hip_visit"].iloc[items[index].tolist()].tolist(),
        validate=validate if len(held) else None,
        keep=checkpoint.folder("segment") / f"{job.name}.safetensors",
        identity=inputs,
    )
    if distribution.first():
        speed.note("segment", job.name, speed.of([{"speed": speed.taken(fitted)}]))
    record = {
        "architecture": architecture,
        "inputs": inputs,
        "trained_on": sorted(set(learn["subject"]) | set(older["trained_on"] if older else [])),
        "warm_started_from": older["weights"] if older else None,
        "reading": lesson.reading,
        "hip_visits": len(active),
        "history": fitted.history,
        "steps": fitted.steps,
    }
    return models.save(folder, job.name, net, record)


def _architecture(kind: str, params: Params) -> dict[str, Any]:
    about = {"kind": kind, "network": params.network}
    if kind == "hip":
        return about | {"roles": list(ROLES), "deepest": params.hip.deepest, "width": params.hip.width}
    how = params.vessel
    return about | {"slab": how.slab, "context": how.context, "deepest": how.deepest, "width": how.width}


class _Lesson(Protocol):
    usable: Tensor
    """(N,) whether a hip-visit has anything to teach."""
    reading: dict[str, float]
    """What `predict` needs beside the network: size_px of a slice (0: as it is), threshold of a mask, and reach_mm from
    the centre of the head, beyond which there is no mask (0: anywhere)."""

    def make(self, index: Tensor, generator: Generator) -> dict[str, Tensor]: ...

    def loss(self, net: nn.Module, batch: loop.Batch) -> Tensor: ...


class _Hips:
    """Slices of the visit grid with their head and lesion."""

    def __init__(self, params: Params, train: pd.DataFrame, lesion: list[float], where: torch.device) -> None:
        self.params, size = params, params.hip.size_px
        paths = train["path"].tolist()
        shape = data.stack(paths[:1]).bits.shape[2:]
        self.stack = data.stack(paths, ROLES, size).to(where)
        self.masks = data.masks(train["mask"].tolist(), LABELS["hip"], shape, lesion, size).to(where)
        self.usable = ((self.masks.known[:, 0] > 0) & (self.stack.present.sum(1) > 0)).cpu()
        self.reading = {"size_px": size, "threshold": params.hip.threshold, "reach_mm": 0.0}

    def make(self, index: Tensor, generator: Generator) -> dict[str, Tensor]:
        how, depth = self.params.augment, self.stack.bits.shape[2]
        count = min(self.params.hip.slices, depth)
        draw = torch.rand(len(index), count, generator=generator, device=index.device)
        slices = ((torch.arange(count, device=index.device) + draw) * depth / count).long().clamp_max(depth - 1)
        keep = augment.drop_channels(self.stack.present[index], how.drop_channel, generator)
        images = (self.stack.take(index, slices) * keep[:, None, :, None, None]).flatten(0, 1)
        masks = self.masks.take(index, slices).flatten(0, 1)
        images, shares = augment.augment(images, how, generator, masks)
        # The image moves under the distances, so that a centre found a little wrong does no harm.
        images = torch.cat([images, self.stack.distance(slices).flatten(0, 1)[:, None]], 1)
        return {"images": images, "masks": shares, "known": self.masks.known[index].repeat_interleave(count, 0)}

    def loss(self, net: nn.Module, batch: loop.Batch) -> Tensor:
        logits = net(batch["images"].contiguous(memory_format=torch.channels_last))
        masks, known = batch["masks"], batch["known"]
        return losses.pixels(logits, masks, known) + self.params.hip.dice * losses.soft_dice(logits, masks, known)


class _Vessels:
    """Slabs of the fine grid with the vessels of their middle slices."""

    def __init__(self, params: Params, train: pd.DataFrame, where: torch.device) -> None:
        self.params = params
        whole = data.stack(train["path"].tolist(), FINE)
        drawn = data.masks(train["mask"].tolist(), LABELS["vessel"], whole.bits.shape[2:])
        self.usable = (drawn.known[:, 0] > 0) & (whole.present[:, 0] > 0)
        # The large vessels beside the joint are bright as well, and nobody draws them.
        reach = _reach_mm(whole, drawn) + params.vessel.margin_mm
        self.reading = {"size_px": 0, "threshold": params.vessel.threshold, "reach_mm": round(reach, 2)}
        self.stack, self.masks = whole.to(where), drawn.to(where)
        # Most of the volume has no vessel: a share of the slabs is drawn where there are some, the rest anywhere.
        self.chance = drawn.masks.flatten(3).sum(3, dtype=torch.float32)[:, 0].to(where) ** 0.5 + 1e-6
        share = params.vessel.where_vessels
        self.chance = share * self.chance / self.chance.sum(1, keepdim=True) + (1 - share) / whole.bits.shape[2]

    def make(self, index: Tensor, generator: Generator) -> dict[str, Tensor]:
        how, depth = self.params.vessel, self.stack.bits.shape[2]
        middle = torch.multinomial(self.chance[index], how.slabs, replacement=True, generator=generator)
        first = (middle - how.slab // 2).clamp(0, max(0, depth - how.slab))
        inside = first[..., None] + torch.arange(how.slab, device=index.device)
        seen = first[..., None] + torch.arange(-how.context, how.slab + how.context, device=index.device)
        visit = index.repeat_interleave(how.slabs)
        images = self.stack.take(visit, seen.flatten(0, 1).clamp(0, depth - 1))[:, :, 0]
        masks = self.masks.take(visit, inside.flatten(0, 1).clamp_max(depth - 1))[:, :, 0]
        far = self.stack.distance(first + (how.slab - 1) / 2).flatten(0, 1)[:, None]
        images, still = augment.augment(
            images, self.params.augment, generator, torch.cat([masks, far], 1), together=True, crop=how.crop_px
        )
        return {"images": torch.cat([images, still[:, -1:]], 1), "masks": still[:, :-1]}

    def loss(self, net: nn.Module, batch: loop.Batch) -> Tensor:
        how, masks = self.params.vessel, batch["masks"]
        logits = net(batch["images"].contiguous(memory_format=torch.channels_last))
        # All slices of a slab are one class: Dice is taken over them together.
        logits, masks = logits.flatten(1, 2)[:, None], masks.flatten(1, 2)[:, None]
        known = torch.ones(len(logits), 1, device=logits.device)
        total = losses.pixels(logits, masks, known, how.positive) + how.dice * losses.soft_dice(logits, masks, known)
        if how.cldice:
            shape = batch["masks"].shape
            seen, wanted = logits.view(shape), masks.view(shape)
            total = total + how.cldice * losses.soft_cldice(
                seen, wanted, known.expand(-1, how.slab), how.skeleton_steps
            )
        return total


def _reach_mm(stack: data.Stack, masks: data.Masks) -> float:
    """How far from the centre of the head vessels were drawn: all but one voxel of a thousand."""
    away = stack.distance(torch.arange(stack.bits.shape[2])) * data.DISTANCE_MM
    drawn = [away[mask[0] > 0].numpy() for mask in masks.masks]
    found = np.concatenate([np.zeros(1, dtype=np.float32), *drawn])
    return float(np.percentile(found, 99.9))


def lesion_labels(rows: pd.DataFrame, labels: pd.DataFrame) -> tuple[float, ...]:
    return tuple(float(value) for value in labels["lesion"].reindex(rows["hip_visit"]).to_numpy(dtype=np.float64))
