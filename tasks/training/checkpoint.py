"""The state of a fit in one safetensors file (its counters as JSON in the header), replaced whole or not at all.

Every step draws its randomness from (seed, step), so that weights, moments and the step are all there is to keep.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tasks.store.files import replacing


def folder(room: str) -> Path:
    """Under OSTEOFLOW_HOME, which a GPU worker reads without the settings library."""
    return Path(os.environ.get("OSTEOFLOW_HOME", ".osteoflow")) / "checkpoints" / room


def save(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: list[Tensor],
    best: dict[str, Tensor],
    state: dict[str, Any],
) -> None:
    """`average` are the averaged weights, `best` those of the lowest validation loss; either may be empty."""
    tensors = {f"model/{key}": tensor for key, tensor in model.state_dict().items()}
    tensors |= {f"best/{key}": tensor for key, tensor in best.items()}
    tensors |= {f"average/{i}": tensor for i, tensor in enumerate(average)}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{name}": value for name, value in moments.items()}
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    with replacing(path) as partial:
        save_file(tensors, partial, metadata={"osteoflow": json.dumps(state, sort_keys=True)})


def load(
    path: Path,
    identity: str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: list[Tensor],
    best: dict[str, Tensor],
) -> dict[str, Any] | None:
    """Put the state of `path` back in place; None when there is none, or when it is of another fit (`identity`)."""
    if not path.exists():
        return None
    with safe_open(path, framework="pt") as handle:
        state = json.loads(handle.metadata()["osteoflow"])
        if state["identity"] != identity:
            return None
        tensors = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118 (not a dict)
    model.load_state_dict({key[6:]: tensor for key, tensor in tensors.items() if key.startswith("model/")})
    for i, tensor in enumerate(average):
        tensor.copy_(tensors[f"average/{i}"])
    where = next(model.parameters()).device
    best.update({key[5:]: tensor.to(where) for key, tensor in tensors.items() if key.startswith("best/")})
    moments: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith("optimizer/"):
            _, index, name = key.split("/")
            moments.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict(optimizer.state_dict() | {"state": moments})
    return state
