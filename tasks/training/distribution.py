"""Several processes, one fit: what `torchrun` started, or nothing at all when it did not.

Items of a step are dealt to ranks by position, gradients are averaged, so that n processes do what one would. Which
items may be seen at all is decided before, by patient and fold, in the same way on each rank.
"""

from __future__ import annotations

import contextlib
import os

import torch
from torch import Tensor, distributed, nn


def start() -> None:
    """Join the group that torchrun's environment names; without one, do nothing."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not distributed.is_initialized():
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")


def world() -> int:
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    return distributed.get_rank() if distributed.is_initialized() else 0


def local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", "0"))


def first() -> bool:
    return rank() == 0


def share(index: Tensor) -> Tensor:
    """This rank's items of a step."""
    return index[rank() :: world()]


def mean(value: Tensor) -> Tensor:
    if world() > 1:
        distributed.all_reduce(value)
        value = value / world()
    return value


def wrap(model: nn.Module) -> nn.Module:
    if world() == 1:
        return model
    return nn.parallel.DistributedDataParallel(model)


def local_only(net: nn.Module, wanted: bool) -> contextlib.AbstractContextManager[object]:
    """While gradients are accumulated, do not exchange them."""
    if wanted and isinstance(net, nn.parallel.DistributedDataParallel):
        return net.no_sync()
    return contextlib.nullcontext()
