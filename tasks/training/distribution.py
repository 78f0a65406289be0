"""Several processes, one fit: what `torchrun` started, or nothing at all when it did not.

    torchrun --nproc-per-node 8 -m tasks.compare

The first process runs the room and writes its files; the others wait to be handed work. A fit is work for all at once:
items of a step are dealt to ranks by position and gradients are averaged, so that n processes do what one would. Which
items may be seen at all is decided before, by patient and fold, by the first process alone. Other work (masks, tables)
is dealt out item by item. All processes see the same files.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from tasks.domain.params import Section
from tasks.store import entry
from tasks.store.items import Mapper

F = TypeVar("F", bound=Callable[..., Any])
_PATIENCE = timedelta(hours=12)
"""The others wait this long while the first one reads, or writes a table."""


def enter(
    room: str,
    model: type[Section],
    run: Callable[[Any, Mapper], None],
    params: Mapping[str, Any] | None = None,
    mapper: Mapper | None = None,
) -> None:
    """How a room that trains is entered: alone as any room, or by all processes that torchrun started."""
    start()
    if world() == 1:
        entry.enter(room, model, run, params, mapper, preload=("torch", "torchvision"))
    elif first():
        entry.enter(room, model, run, params, together)
        _announce(None)
    else:
        _work_along()


def start() -> None:
    """Join the group that torchrun's environment names; without one, do nothing."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not distributed.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(local_rank())
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        distributed.init_process_group(backend, timeout=_PATIENCE)


def world() -> int:
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    return distributed.get_rank() if distributed.is_initialized() else 0


def local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", "0"))


def first() -> bool:
    return rank() == 0


def collective(function: F) -> F:
    """Mark work that all processes do together, each item at the same time: a fit."""
    function.collective = True  # type: ignore[attr-defined]
    return function


def together(function: Callable[[Any], Any], work: Iterable[Any]) -> Iterator[Any]:
    """The mapper of the first process: results in the order of `work`."""
    items = list(work)
    if getattr(function, "collective", False):
        for item in items:
            _announce((function, [item] * world()))
            yield _round(function, [item] * world())[0]
        return
    for begin in range(0, len(items), world()):
        part = items[begin : begin + world()]
        _announce((function, part))
        yield from _round(function, part)[: len(part)]


def wait() -> None:
    """Until all processes have come here."""
    if world() > 1:
        distributed.barrier()


def share(index: Tensor) -> Tensor:
    """This rank's items of a step."""
    return index[rank() :: world()]


def mean(value: Tensor) -> Tensor:
    if world() > 1:
        distributed.all_reduce(value)
        value = value / world()
    return value


def agreed(value: float) -> float:
    """The first process's value: what decides for all must be the same for all."""
    if world() == 1:
        return value
    told = torch.tensor([value], dtype=torch.float64)
    distributed.broadcast(told, 0)
    return float(told)


def wrap(model: nn.Module) -> nn.Module:
    if world() == 1:
        return model
    if next(model.parameters()).is_cuda:  # on CPU there is none: BatchNorm then sees the items of its own process
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return nn.parallel.DistributedDataParallel(model, device_ids=[local_rank()])
    return nn.parallel.DistributedDataParallel(model)


def local_only(net: nn.Module, wanted: bool) -> contextlib.AbstractContextManager[object]:
    """While gradients are accumulated, do not exchange them."""
    inner = getattr(net, "_orig_mod", net)  # what torch.compile wraps
    if wanted and isinstance(inner, nn.parallel.DistributedDataParallel):
        return inner.no_sync()
    return contextlib.nullcontext()


# ---- handing out ----


def _announce(order: tuple[Callable[[Any], Any], list[Any]] | None) -> Any:
    told: list[Any] = [order]
    distributed.broadcast_object_list(told, 0)
    return told[0]


def _work_along() -> None:
    logging.getLogger("osteoflow").setLevel(logging.WARNING)  # the first process tells how it goes
    while (order := _announce(None)) is not None:
        _round(*order)


def _round(function: Callable[[Any], Any], part: list[Any]) -> list[Any]:
    """Each process does its item of `part`; the first one gets all results."""
    mine = function(part[rank()]) if rank() < len(part) else None
    results: list[Any] | None = [None] * world() if first() else None
    distributed.gather_object(mine, results, 0)
    return results or []
