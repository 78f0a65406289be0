"""The one training loop. A room gives a model, how to make a batch of given items, and the loss of a batch.

    for each step:  items -> batch (made and augmented on the device) -> loss -> gradients -> AdamW -> average

Randomness of a step comes from (seed, step) alone, so a fit that was killed goes on to the same bits, and one that runs
in several processes draws the same items in the same order.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from tasks.domain.errors import OsteoflowError, WrongUse
from tasks.training import checkpoint, distribution, memory
from tasks.training.recipe import Recipe

Batch = Mapping[str, Tensor]
Make = Callable[[Tensor, Generator], Batch]
Loss = Callable[[nn.Module, Batch], Tensor]
_READ_TOGETHER = 32
_log = logging.getLogger("osteoflow.training")


class NotFinite(OsteoflowError):
    """The loss became infinite or no number. Says at which step and for which items."""


@dataclass
class Fitted:
    """history: one row an epoch; steps: optimizer steps done; stopped: whether early stopping ended the fit.
    items_per_s: here and today, of CPU seconds on a CPU (it belongs in no versioned file)."""

    history: list[dict[str, float]] = field(default_factory=list)
    steps: int = 0
    stopped: bool = False
    items_per_s: float = 0.0


def device() -> torch.device:
    return torch.device("cuda", distribution.local_rank()) if torch.cuda.is_available() else torch.device("cpu")


def prepare(model: nn.Module, where: torch.device) -> nn.Module:
    """On the device, weights in the layout that convolutions are fastest in."""
    return model.to(where).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def autocast(precision: str, where: torch.device) -> torch.autocast:
    """bfloat16 where `precision` (fp32 | bf16 | auto: on a GPU only) asks for it."""
    enabled = precision == "bf16" or (precision == "auto" and where.type == "cuda")
    return torch.autocast(where.type, dtype=torch.bfloat16, enabled=enabled)


def fit(
    model: nn.Module,
    recipe: Recipe,
    items: int,
    make: Make,
    loss: Loss,
    *,
    name: str,
    epochs: int | None = None,
    keys: Callable[[Tensor], list[str]],
    validate: Callable[[nn.Module], float] | None = None,
    keep: Path | None = None,
    identity: str = "",
) -> Fitted:
    """Fit `model` in place on items 0..`items`-1 and leave it in evaluation mode.

    `make(index, generator)` gives a batch of the items `index`; `loss(model, batch)` a scalar. `epochs` overrides the
    recipe's (a warm start needs fewer). `keys` names items in messages. `validate` gives a loss after each epoch, for
    early stopping; the best weights are then kept. `keep` is the checkpoint's path, `identity` what it must be of.
    """
    where = device()
    epochs = recipe.epochs if epochs is None else epochs
    size = min(recipe.batch, items)
    per_epoch = max(1, items // max(size, 1))
    total = per_epoch * epochs
    fitted = Fitted()
    if items == 0 or total == 0:
        model.eval()
        return fitted
    with _determinism(recipe.deterministic), memory.kept():
        if where.type == "cuda":
            torch.cuda.reset_peak_memory_stats(where)
        prepare(model, where).train()
        optimizer = _optimizer(model, recipe, where)
        average = _floats(model, clone=True) if recipe.ema else []
        least, best = math.inf, dict[str, Tensor]()
        bad_epochs, start, running = 0, 0, 0.0
        resumable = keep if recipe.checkpoint_steps else None
        if resumable and (state := checkpoint.load(resumable, identity, model, optimizer, average, best)):
            start, running, fitted.history = state["step"], state["running"], state["history"]
            least, bad_epochs = state["least"], state["bad_epochs"]
            fitted.steps = start
            _log.info("%s: goes on from step %d of %d", name, start, total)

        def saves(step: int) -> bool:
            return resumable is not None and (step + 1) % recipe.checkpoint_steps == 0 and distribution.first()

        net = _compiled(distribution.wrap(model), recipe, where)
        live = _floats(model) if average else []
        clock = time.perf_counter if where.type == "cuda" else time.process_time
        began = clock()
        waiting: list[tuple[int, Tensor, Tensor]] = []
        microbatch = recipe.microbatch or size
        for step in range(start, total):
            index = _draw(recipe.seed, step // per_epoch, step % per_epoch, items, size)
            _set_rate(optimizer, recipe, step, total)
            value, microbatch = _step(net, optimizer, recipe, index, make, loss, step, microbatch, where)
            if average:
                decay = min(recipe.ema, (1 + step) / (10 + step))
                torch._foreach_lerp_(average, live, 1 - decay)
            waiting.append((step, index, value))
            if step == start:
                began = clock()  # the first step also takes memory, picks kernels or compiles
            # Reading a loss makes a GPU wait for it: there, some are read together.
            if where.type == "cpu" or len(waiting) == _READ_TOGETHER or (step + 1) % per_epoch == 0 or saves(step):
                running += _read(waiting, name, total, keys) / per_epoch
                waiting = []
            if (step + 1) % per_epoch == 0:
                row, running = {"loss": running}, 0.0
                if validate is not None:
                    row["validation_loss"] = distribution.agreed(validate(model.eval()))
                    model.train()
                    if row["validation_loss"] < least:
                        least, best, bad_epochs = row["validation_loss"], _copy(model), 0
                    else:
                        bad_epochs += 1
                fitted.history.append(row)
                _log.info("%s: epoch %d of %d, loss %.4f", name, len(fitted.history), epochs, row["loss"])
            fitted.steps = step + 1
            if validate is not None and recipe.patience and bad_epochs >= recipe.patience:
                fitted.stopped = True
                break
            if resumable and saves(step):
                state = {"identity": identity, "step": step + 1, "running": running, "history": fitted.history}
                state |= {"least": least, "bad_epochs": bad_epochs}
                checkpoint.save(resumable, model, optimizer, average, best, state)
        fitted.items_per_s = max(fitted.steps - start - 1, 0) * size / max(clock() - began, 1e-9)
        if best:
            model.load_state_dict(best)
        elif average:
            for tensor, mean in zip(_floats(model), average, strict=True):
                tensor.copy_(mean)
        if recipe.settle:
            _settle(model, recipe, items, min(size, microbatch), make, loss, where)
        if resumable and distribution.first():
            resumable.unlink(missing_ok=True)
    model.eval()
    return fitted


def _read(
    waiting: list[tuple[int, Tensor, Tensor]], name: str, total: int, keys: Callable[[Tensor], list[str]]
) -> float:
    """The sum of some losses; raises NotFinite for the first that is not."""
    values = torch.stack([value for _, _, value in waiting]).tolist()
    for (step, index, _), value in zip(waiting, values, strict=True):
        if not math.isfinite(value):
            raise NotFinite(
                f"{name}: the loss is {value} at step {step} of {total}; the batch was {', '.join(keys(index))}. "
                "Look at these, or lower lr"
            )
    return float(sum(values))


def _step(
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    index: Tensor,
    make: Make,
    loss: Loss,
    step: int,
    microbatch: int,
    where: torch.device,
) -> tuple[Tensor, int]:
    """One optimizer step; returns its loss and the microbatch that fitted into memory."""
    mine = distribution.share(index)
    if not len(mine):
        raise WrongUse(f"a batch of {len(index)} cannot be shared by {distribution.world()} processes")
    while True:
        try:
            optimizer.zero_grad(set_to_none=True)
            total = torch.zeros((), device=where)
            parts = mine.split(microbatch)
            each = len(index) / distribution.world()  # gradients of processes are averaged as if all had as many
            for i, part in enumerate(parts):
                # Seeds depend on where the part lies, so that the number of processes changes no other draw.
                seed = _seed(recipe.seed, step, i, distribution.rank())
                torch.manual_seed(seed)
                generator = torch.Generator(where).manual_seed(seed)
                with distribution.local_only(net, i < len(parts) - 1):
                    with autocast(recipe.precision, where):
                        value = loss(net, make(part.to(where), generator)) * (len(part) / each)
                    value.backward()
                total = total + value.detach()
            if recipe.clip:
                nn.utils.clip_grad_norm_(net.parameters(), recipe.clip)
            optimizer.step()
            return distribution.mean(total), microbatch
        except RuntimeError as error:
            # The others wait for this one's gradients.
            if not _out_of_memory(error) or microbatch == 1 or distribution.world() > 1:
                raise
        # The error is gone, and with it what its frames held.
        microbatch = max(1, min(microbatch, len(mine)) // 2)
        _log.warning("out of memory at step %d: going on with a microbatch of %d", step, microbatch)
        if where.type == "cuda":
            torch.cuda.empty_cache()


def _out_of_memory(error: RuntimeError) -> bool:
    """Of a GPU, or what the CPU's allocator says in words alone."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


@torch.no_grad()
def _settle(
    model: nn.Module, recipe: Recipe, items: int, size: int, make: Make, loss: Loss, where: torch.device
) -> None:
    """Take BatchNorm's statistics anew, as plain means over some batches: after a short fit, and for averaged weights,
    the running ones still hold much of what the network was long before."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None
    model.train()
    for i in range(recipe.settle if layers else 0):
        seed = _seed(recipe.seed, i, -2, 0)
        torch.manual_seed(seed)
        part = _draw(recipe.seed, -1 - i, 0, items, size)
        with autocast(recipe.precision, where):
            loss(model, make(part.to(where), Generator(where).manual_seed(seed)))
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum


def _draw(seed: int, epoch: int, step: int, items: int, size: int) -> Tensor:
    """The items of a step: a slice of the epoch's permutation. The few left over change from epoch to epoch."""
    generator = torch.Generator().manual_seed(_seed(seed, epoch, -1, 0))
    return torch.randperm(items, generator=generator)[step * size : (step + 1) * size]


def _seed(*parts: int) -> int:
    mixed = 0x9E3779B97F4A7C15
    for part in parts:
        mixed = ((mixed ^ (part & 0xFFFFFFFF)) * 0xBF58476D1CE4E5B9 + 1) & 0xFFFFFFFFFFFFFFFF
        mixed ^= mixed >> 29
    return mixed & 0x7FFFFFFFFFFFFFFF


def _set_rate(optimizer: torch.optim.Optimizer, recipe: Recipe, step: int, total: int) -> None:
    warm = max(1, round(recipe.warmup * total))
    if step < warm:
        share = (step + 1) / warm
    else:
        share = 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))
    for group in optimizer.param_groups:
        group["lr"] = recipe.lr * share


def _optimizer(model: nn.Module, recipe: Recipe, where: torch.device) -> torch.optim.Optimizer:
    weights = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    others = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [{"params": weights, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.lr, fused=True)


def _compiled(model: nn.Module, recipe: Recipe, where: torch.device) -> nn.Module:
    if recipe.compile == "off":
        return model
    compilers = os.environ.get("CXX", "g++"), "clang++"
    if where.type == "cpu" and not any(shutil.which(name) for name in compilers):
        raise WrongUse(
            f"recipe.compile is '{recipe.compile}', which on a CPU needs a C++ compiler ({' or '.join(compilers)}), "
            "and there is none here; say 'off'"
        )
    if where.type == "cpu" and recipe.compile != "default":
        _log.info("a CPU has no CUDA graphs: '%s' compiles without", recipe.compile)
    return torch.compile(model, mode=recipe.compile)  # type: ignore[return-value]


def _floats(model: nn.Module, clone: bool = False) -> list[Tensor]:
    """Weights and running statistics, in a fixed order."""
    tensors = [tensor.detach() for tensor in model.state_dict().values() if tensor.is_floating_point()]
    return [tensor.clone() for tensor in tensors] if clone else tensors


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {key: tensor.detach().clone() for key, tensor in model.state_dict().items()}


@contextlib.contextmanager
def _determinism(wanted: bool) -> Iterator[None]:
    before: Any = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(wanted, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
