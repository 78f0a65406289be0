"""The network of one fold left out: fitted unless it is there already, then asked about who it did not see."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from tasks.classify import reading, targets
from tasks.classify.params import Params
from tasks.domain.hip import ROLES
from tasks.nets.encoder import GRID, NUMBERS, ORDINAL, SCALE
from tasks.store.digests import combine
from tasks.training import augment, checkpoint, data, distribution, loop, losses, models, speed

_log = logging.getLogger("osteoflow.classify")


@dataclass(frozen=True)
class Job:
    """Picklable. rows: the whole cohort; labels: consensus labels; identity: params and code."""

    params: Params
    fold: str
    rows: pd.DataFrame
    labels: pd.DataFrame
    identity: str
    models: str


@distribution.collective
def fit_fold(job: Job) -> dict[str, Any]:
    """{"fold", "record", "keys", "features" (n, F), "slices" (n, D)} for all but other training folds."""
    torch.set_num_threads(1)
    name, folder = f"fold{job.fold}", Path(job.models)
    learnt, own = data.learnt_from(job.rows), job.rows["fold"] == job.fold
    train, asked = (job.rows[which].reset_index(drop=True) for which in (learnt & ~own, ~learnt | own))
    inputs = combine(job.identity, data.fingerprint(train), _labels_digest(train, job.labels))
    kept = models.record(folder, name)
    if kept is None or kept["inputs"] != inputs:
        kept = _fit(job, folder, name, train, inputs)
    else:
        _log.info("%s: unchanged, kept", name)
    net, kept = reading.load(folder, name)
    stack = data.stack(asked["path"].tolist(), ROLES, job.params.size_px)
    features, slices = reading.read(net, stack, kept["reading"], job.params.recipe.batch)
    features[:, ~reading.taught(kept["taught"])] = np.nan
    return {
        "fold": job.fold,
        "record": kept,
        "keys": asked["hip_visit"].tolist(),
        "features": features,
        "slices": slices,
    }


def _fit(job: Job, folder: Path, name: str, train: pd.DataFrame, inputs: str) -> dict[str, Any]:
    params, where = job.params, loop.device()
    architecture = {
        "kind": "visit_encoder", "network": params.network, "roles": list(ROLES), "dropout": params.dropout,
        "reduced": params.reduced, "width": params.width,
    }  # fmt: skip
    older = models.parent(folder, name, architecture, train["subject"], params.warm_start)
    torch.manual_seed(params.recipe.seed)
    net = reading.build(architecture, params.pretrained.checked() if params.pretrained and older is None else None)
    if older:
        models.load(folder, name, net)
    table, labelled = targets.of_visits(train, job.labels, params.min_lesion_mm2)
    keep = targets.usable(table, labelled)
    train, table = train[keep].reset_index(drop=True), table[keep].reset_index(drop=True)
    labelled = [label for label, one in zip(labelled, keep, strict=True) if one]
    lesson = _Lesson(params, train, table, labelled, where)
    if older is None:
        net.expect(_usual(table))
    learn, quiet = data.hold_back(train, params.recipe.validation_share, params.recipe.seed)
    items, held = torch.tensor(learn.index.to_numpy()), torch.tensor(quiet.index.to_numpy())

    def validate(model: nn.Module) -> float:
        with torch.no_grad():
            batch = lesson.make(held.to(where), torch.Generator(where).manual_seed(0))
            return float(lesson.loss(model, batch))

    fitted = loop.fit(
        net,
        params.recipe,
        len(items),
        lambda index, generator: lesson.make(items.to(where)[index], generator),
        lesson.loss,
        name=name,
        epochs=params.warm_epochs if older else None,
        keys=lambda index: learn["hip_visit"].iloc[index.tolist()].tolist(),
        validate=validate if len(held) else None,
        keep=checkpoint.folder("classify") / f"{name}.safetensors",
        identity=inputs,
    )
    if distribution.first():
        speed.note("classify", name, speed.of([{"speed": speed.taken(fitted)}]))
    record = {
        "architecture": architecture,
        "inputs": inputs,
        "trained_on": sorted(set(train["subject"]) | set(older["trained_on"] if older else [])),
        "warm_started_from": older["weights"] if older else None,
        "taught": lesson.taught,
        "reading": {
            "size_px": params.size_px, "reach_mm": params.reach_mm, "uncertainty_subsets": params.uncertainty_subsets,
        },
        "hip_visits": len(learn),
        "history": fitted.history,
        "steps": fitted.steps,
    }  # fmt: skip
    return models.save(folder, name, net, record)


class _Lesson:
    """Batches of hip-visits on the device, and what they should have been called."""

    def __init__(
        self,
        params: Params,
        train: pd.DataFrame,
        table: pd.DataFrame,
        labelled: list[targets.Floats],
        where: torch.device,
    ) -> None:
        self.params = params
        lesion = table["lesion"].tolist()
        whole = data.stack(train["path"].tolist(), ROLES, params.size_px)
        shape = data.stack(train["path"].tolist()[:1]).bits.shape[2:]
        self.stack = whole.to(where)
        self.masks = data.masks(train["mask"].tolist(), ("head", "lesion"), shape, lesion, params.size_px).to(where)
        depth = self.stack.bits.shape[2]
        empty = np.full(depth, np.nan)
        self.slices = torch.tensor(np.array([x if len(x) == depth else empty for x in labelled])).float().to(where)
        # Without a mask the hip's own label stands for each of its slices.
        alone = ~torch.isfinite(self.slices).any(1, keepdim=True)
        hip = torch.tensor(lesion, dtype=torch.float32, device=where)[:, None]
        self.slices = torch.where(alone, hip.expand_as(self.slices), self.slices)
        self.near = reading.in_reach(whole, params.reach_mm).to(where)
        self.place = (whole.places() / 20.0).to(where)
        names = ("lesion", *ORDINAL, *NUMBERS)
        self.target = {n: torch.tensor(table[n].to_numpy(), dtype=torch.float32, device=where) for n in names}
        ones = float(self.slices[torch.isfinite(self.slices)].mean()) if torch.isfinite(self.slices).any() else 0.0
        self.positive = (1 - ones) / ones if params.balance and 0 < ones < 1 else 1.0
        # One value for all teaches nothing.
        self.taught = {n: int(table[n].notna().sum()) if table[n].nunique() > 1 else 0 for n in names}
        self.taught |= {"slice": int(torch.isfinite(self.slices).sum()), "cells": int(self.masks.known.sum())}

    def make(self, index: Tensor, generator: Generator) -> dict[str, Tensor]:
        how, count, batch = self.params.augment, min(self.params.slices, len(self.near)), len(index)
        draw = torch.rand(batch, count, generator=generator, device=index.device)
        spread = (torch.arange(count, device=index.device) + draw) * len(self.near) / count
        slices = self.near[spread.long().clamp_max(len(self.near) - 1)]
        keep = augment.drop_channels(self.stack.present[index], how.drop_channel, generator)
        images = self.stack.take(index, slices) * keep[:, None, :, None, None]
        masks = self.masks.take(index, slices)
        flat, shares = augment.augment(images.flatten(0, 1), how, generator, masks.flatten(0, 1))
        out = {
            "images": flat.view(batch, count, *flat.shape[1:]),
            "where": self.place[slices],
            "cells": functional.adaptive_avg_pool2d(shares, GRID).view(batch, count, -1, GRID, GRID),
            "drawn": self.masks.known[index],
            "slice": self.slices[index[:, None], slices],
        }
        return out | {name: value[index] for name, value in self.target.items()}

    def loss(self, net: nn.Module, batch: loop.Batch) -> Tensor:
        weights, out = self.params.weights, net(batch["images"], batch["where"])
        total = weights.slice * losses.binary(out["slice"], batch["slice"], self.positive)
        drawn = (batch["drawn"] > 0)[:, None, :, None, None].expand_as(batch["cells"])
        cells = torch.where(drawn, batch["cells"], torch.full_like(batch["cells"], float("nan")))
        total = total + weights.cells * losses.binary(out["cells"], cells)
        total = total + weights.lesion * losses.binary(out["lesion"][:, 0], batch["lesion"])
        for name in ORDINAL:
            total = total + weights.ordinal * losses.ordinal(out[name], batch[name])
        for name in NUMBERS:
            total = total + weights.number * losses.number(out[name][:, 0], batch[name] / SCALE[name])
        return total


def _usual(table: pd.DataFrame) -> dict[str, Tensor]:
    """Means of the training targets, in what each head's bias stands for."""
    out = {}
    for name in ("lesion", *ORDINAL, *NUMBERS):
        known = torch.tensor(table[name].dropna().to_numpy(), dtype=torch.float32)
        if len(known):
            above = [(known > level).float().mean() for level in range(ORDINAL.get(name, 1))]
            out[name] = known.mean()[None] / SCALE[name] if name in SCALE else torch.stack(above)
    return out


def _labels_digest(rows: pd.DataFrame, labels: pd.DataFrame) -> str:
    return combine(labels.reindex(rows["hip_visit"]).to_csv())
