"""Hip files and trained networks to features: in the stage, and on arrival with a registered package's networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.domain.errors import WrongUse
from tasks.nets.encoder import GRID, HEADS, VisitEncoder, summarize
from tasks.nets.folding import folded
from tasks.store.files import read_json
from tasks.training import data, loop, models

PLACES = ("slice_share", "cells_fraction", "cells_lateral")
"""Besides the heads: mean probability of a lesion over slices; lesion over head in the cells of the grid; how lateral
these lesion cells lie, -1 medial to 1 lateral."""
FEATURES = [*HEADS, *(f"{name}_se" for name in HEADS), *PLACES]
NEEDS: dict[str, tuple[str, ...]] = {
    "slice_share": ("slice",),
    "cells_fraction": ("cells",),
    "cells_lateral": ("cells",),
}
"""Parts of the network that a feature rests on, where it is not the head of its own name."""

Floats = NDArray[np.float64]


def encode(
    paths: Sequence[Path], models_folder: Path, folds: Mapping[str, str] | None = None, batch: int = 16
) -> pd.DataFrame:
    """hip_visit and one column for each name of features.json, in the order of `paths` (`<hip_visit>.safetensors`).

    `folds` (hip_visit -> fold) makes a hip-visit of training fold k be read by the network that did not see that fold;
    one that is not named, or of the test set, gets the mean over all networks. A feature is NaN where no network of it
    was taught that quantity.
    """
    about = read_json(models_folder / "features.json")
    names = [path.stem for path in paths]
    assigned = [(folds or {}).get(name, data.TEST) for name in names]
    total: dict[str, list[Floats]] = {name: [] for name in names}
    for fold in about["folds"]:
        mine = [path for path, one in zip(paths, assigned, strict=True) if one == fold or one not in about["folds"]]
        if not mine:
            continue
        net, kept = _ready(str(models_folder), f"fold{fold}", _weights(models_folder, f"fold{fold}"))
        stack = data.stack(mine, about["roles"], kept["reading"]["size_px"])
        values, _ = read(net, stack, kept["reading"], batch)
        values[:, ~taught(kept["taught"])] = np.nan
        for path, row in zip(mine, values, strict=True):
            total[path.stem].append(row)
    rows = [mean(total[name]) for name in names]
    return pd.DataFrame(np.array(rows).reshape(-1, len(FEATURES)), columns=FEATURES).assign(hip_visit=names)[
        ["hip_visit", *FEATURES]
    ]


def mean(rows: list[Floats]) -> Floats:
    """Over networks, each column over those that know it."""
    if not rows:
        return np.full(len(FEATURES), np.nan)
    stacked = np.array(rows)
    known = np.isfinite(stacked)
    total = np.where(known, stacked, 0.0).sum(0)
    return np.where(known.any(0), total / np.maximum(known.sum(0), 1), np.nan)


def load(folder: Path, name: str) -> tuple[VisitEncoder, dict[str, Any]]:
    """The network of a record, ready to read, and the record."""
    kept = models.record(folder, name)
    if kept is None:
        raise WrongUse(f"{folder / name}.safetensors or its .json is not there; run the classify stage")
    net = build(kept["architecture"])
    models.load(folder, name, net)
    return loop.prepare(folded(net), loop.device()), kept  # type: ignore[return-value]


@lru_cache(maxsize=16)
def _ready(folder: str, name: str, weights: str) -> tuple[VisitEncoder, dict[str, Any]]:
    """`load`, kept by a warm process while `weights` (their digest) stay the same."""
    return load(Path(folder), name)


def _weights(folder: Path, name: str) -> str:
    return str((models.record(folder, name) or {}).get("weights", ""))


def build(architecture: Mapping[str, Any], weights: Path | None = None) -> VisitEncoder:
    how = architecture
    return VisitEncoder(how["network"], len(how["roles"]), how["dropout"], how["reduced"], how["width"], weights)


def taught(counts: Mapping[str, int]) -> NDArray[np.bool_]:
    """Which of FEATURES rest on parts of the network that had something to learn from."""
    needs = [NEEDS.get(name, (name.removesuffix("_se"),)) for name in FEATURES]
    return np.array([all(counts.get(part, 0) > 0 for part in parts) for parts in needs])


def in_reach(stack: data.Stack, reach_mm: float) -> Tensor:
    """Indices of the slices to read."""
    near = torch.nonzero(stack.places().abs() <= reach_mm)[:, 0]
    return near if len(near) else torch.tensor([stack.bits.shape[2] // 2])


@torch.inference_mode()
def read(net: VisitEncoder, stack: data.Stack, reading: Mapping[str, Any], batch: int) -> tuple[Floats, Floats]:
    """features (N, len(FEATURES)) and the probability of a lesion on each slice (N, D), NaN where it was not read."""
    where = next(net.parameters()).device
    near = in_reach(stack, reading["reach_mm"])
    place = (stack.places()[near] / 20.0).to(where)
    subsets = reading["uncertainty_subsets"] if len(near) >= 2 * reading["uncertainty_subsets"] else 0
    rows = []
    slices = np.full((len(stack.bits), stack.bits.shape[2]), np.nan)
    for index in torch.arange(len(stack.bits)).split(batch):
        images = stack.take(index, near[None].expand(len(index), -1)).to(where)
        with loop.autocast("auto", where):
            vectors, seen = net.look(images, place[None].expand(len(index), -1))
            whole = summarize(net.judge(vectors))
            parts = (
                [summarize(net.judge(vectors[:, start::subsets])) for start in range(subsets)] if subsets > 1 else []
            )
        error = torch.stack(parts).std(0) / len(parts) ** 0.5 if parts else torch.full_like(whole, float("nan"))
        probability = torch.sigmoid(seen["slice"].float())
        head, lesion = torch.sigmoid(seen["cells"].float()).unbind(2)
        column = torch.linspace(-1, 1, GRID, device=where)
        found = lesion.sum((1, 2, 3))
        places = [probability.mean(1), found / head.sum((1, 2, 3)).clamp_min(1e-3)]
        places.append((lesion * column).sum((1, 2, 3)) / found.clamp_min(1e-3))
        rows.append(torch.cat([whole, error, torch.stack(places, 1)], 1).cpu().double().numpy())
        slices[index.numpy()[:, None], near.numpy()[None]] = probability.cpu().double().numpy()
    return np.concatenate(rows) if rows else np.zeros((0, len(FEATURES))), slices
