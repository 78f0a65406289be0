"""A fit whose every step is in its checkpoint, killed before its end: it goes on to what it would have been."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor, nn

from tasks.training import loop
from tasks.training.recipe import Recipe

HOW = Recipe.model_validate(
    {
        "epochs": 2, "batch": 4, "microbatch": 0, "lr": 0.05, "weight_decay": 0.01, "warmup": 0.1, "clip": 1.0,
        "ema": 0.5, "settle": 2, "precision": "auto", "compile": "off", "deterministic": True, "validation_share": 0.0,
        "patience": 0, "checkpoint_steps": 1, "seed": 5,
    }
)  # fmt: skip
X = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))


def fitted(keep: Path, kill: bool) -> tuple[Tensor, loop.Fitted]:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))
    calls = [0]

    def make(index: Tensor, generator: Generator) -> dict[str, Tensor]:
        calls[0] += 1
        if kill and calls[0] > 4:
            raise KeyboardInterrupt  # all four steps are done: BatchNorm is settling
        return {"x": X[index]}

    def loss(net: nn.Module, batch: loop.Batch) -> Tensor:
        return net(batch["x"]).square().mean()

    result = loop.fit(model, HOW, len(X), make, loss, name="n", keys=lambda i: [str(i)], keep=keep, identity="one")
    return torch.cat([x.flatten().double() for x in model.state_dict().values()]), result


def test_steps_and_rate_are_told_after_all(tmp_path: Path) -> None:
    whole, told = fitted(tmp_path / "whole.safetensors", kill=False)
    with pytest.raises(KeyboardInterrupt):
        fitted(tmp_path / "one.safetensors", kill=True)
    again, resumed = fitted(tmp_path / "one.safetensors", kill=False)
    assert torch.equal(whole, again) and resumed.history == told.history
    assert resumed.steps == told.steps == 4
    assert resumed.items_per_s >= 0, "nothing was left to time"
