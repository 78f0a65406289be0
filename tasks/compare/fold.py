"""One network, one fold left out, one seed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Generator, Tensor, nn

from tasks.compare import slices as sliced
from tasks.compare.params import Params
from tasks.domain.hip import ROLES
from tasks.nets.backbones import mmacs, parameters
from tasks.nets.encoder import SliceClassifier
from tasks.nets.folding import folded
from tasks.training import checkpoint, data, distribution, loop, losses, speed
from tasks.training.augment import augment, drop_channels


@dataclass(frozen=True)
class Job:
    """Picklable: goes to another process, or another machine with the same files."""

    params: Params
    network: str
    fold: str
    seed: int
    paths: tuple[str, ...]
    slices: pd.DataFrame
    fingerprint: str
    identity: str
    """Digest of all that this network depends on: a checkpoint of another is not continued."""


@distribution.collective
def fit_fold(job: Job) -> dict[str, Any]:
    """Train on the other folds; the probability of each slice of this one, and how the fit went."""
    torch.set_num_threads(1)
    params, where = job.params, loop.device()
    stack = sliced.images(job.paths, params.size_px, job.fingerprint).to(where)
    train, held = job.slices[job.slices["fold"] != job.fold], job.slices[job.slices["fold"] == job.fold]
    train, quiet = data.hold_back(train, params.recipe.validation_share, job.seed)
    torch.manual_seed(job.seed)
    given = params.pretrained.get(job.network)
    model = SliceClassifier(job.network, len(ROLES), params.dropout, given.checked() if given else None)
    recipe = params.recipe.model_copy(update={"seed": params.recipe.seed + job.seed})
    ones = train["label"].mean()
    positive = float((1 - ones) / ones) if params.balance and 0 < ones < 1 else 1.0
    pool = {name: torch.tensor(train[name].to_numpy(), device=where) for name in ("visit", "slice")}
    target = torch.tensor(train["label"].to_numpy(dtype=np.float32), device=where)

    def make(index: Tensor, generator: Generator) -> dict[str, Tensor]:
        visit = pool["visit"][index]
        images = stack.take(visit, pool["slice"][index][:, None])[:, 0]
        keep = drop_channels(stack.present[visit], params.augment.drop_channel, generator)
        images, _ = augment(images * keep[:, :, None, None], params.augment, generator)
        return {"images": images.contiguous(memory_format=torch.channels_last), "target": target[index]}

    def loss(net: nn.Module, batch: loop.Batch) -> Tensor:
        return losses.binary(net(batch["images"]), batch["target"], positive)

    def validate(net: nn.Module) -> float:
        p = np.clip(predict(net, stack, quiet, params.recipe.batch), 1e-6, 1 - 1e-6)
        y = quiet["label"].to_numpy()
        return float(-(y * np.log(p) + (1 - y) * np.log(1 - p)).mean())

    name = f"{job.network}/fold{job.fold}/seed{job.seed}"
    fitted = loop.fit(
        model,
        recipe,
        len(train),
        make,
        loss,
        name=name,
        keys=lambda index: [f"{v}#{s}" for v, s in train.iloc[index.numpy()][["hip_visit", "slice"]].to_numpy()],
        validate=validate if len(quiet) else None,
        keep=checkpoint.folder("compare") / f"{name.replace('/', '-')}.safetensors",
        identity=f"{job.identity}/{name}",
    )
    return {
        "speed": speed.taken(fitted),
        "network": job.network,
        "fold": job.fold,
        "seed": job.seed,
        "history": fitted.history,
        "steps": fitted.steps,
        "n_train": len(train),
        "p": predict(folded(model), stack, held, params.recipe.batch),
    }


@torch.inference_mode()
def predict(model: nn.Module, stack: data.Stack, slices: pd.DataFrame, batch: int) -> np.ndarray:
    """(n,) probability of a lesion for each row of `slices`, images as they are."""
    model.eval()
    where = stack.scale.device  # images may stay on the CPU
    visit = torch.tensor(slices["visit"].to_numpy(dtype=np.int64), device=where)
    place = torch.tensor(slices["slice"].to_numpy(dtype=np.int64), device=where)
    out = []
    for part in torch.arange(len(slices)).split(2 * batch):
        images = stack.take(visit[part], place[part][:, None])[:, 0]
        out.append(torch.sigmoid(model(images.contiguous(memory_format=torch.channels_last)).float()).cpu())
    return torch.cat(out).double().numpy() if out else np.zeros(0)


def weigh(network: str, size_px: int) -> dict[str, float]:
    """What a network costs anywhere: parameters, and mmacs for one slice."""
    model = SliceClassifier(network, len(ROLES), 0.0)
    return {"parameters": parameters(model), "mmacs": round(mmacs(model, len(ROLES), size_px), 2)}


def throughput(network: str, size_px: int, batch: int = 16) -> float:
    """Slices per second of inference in one process, as it runs here today."""
    torch.set_num_threads(1)
    model = loop.prepare(folded(SliceClassifier(network, len(ROLES), 0.0)), loop.device())
    images = torch.zeros(batch, len(ROLES), size_px, size_px, device=loop.device())
    images = images.contiguous(memory_format=torch.channels_last)
    times = []
    with torch.inference_mode():
        for _ in range(3):
            start = time.perf_counter()
            model(images).sum().item()
            times.append(time.perf_counter() - start)
    return round(batch / min(times), 1)
