"""The training loop: same seed same bits, goes on where it was killed, says which batch broke."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hip_cohort
import pandas as pd
import pytest
import torch
from small_params import small
from torch import Generator, Tensor, nn

from tasks.compare.__main__ import main
from tasks.domain.errors import WrongUse
from tasks.training import checkpoint, distribution, loop
from tasks.training.recipe import Recipe

BASE: dict[str, Any] = {
    "epochs": 3, "batch": 4, "microbatch": 0, "lr": 0.05, "weight_decay": 0.01, "warmup": 0.1, "clip": 1.0, "ema": 0.5,
    "settle": 2, "precision": "auto", "compile": "off", "deterministic": True, "validation_share": 0.0, "patience": 0,
    "checkpoint_steps": 0, "seed": 5,
}  # fmt: skip
GIVEN = torch.Generator().manual_seed(0)
X, Y = torch.randn(18, 6, generator=GIVEN), torch.randn(18, generator=GIVEN)


def recipe(**changes: Any) -> Recipe:
    return Recipe.model_validate(BASE | changes)


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 1))


def make(index: Tensor, generator: Generator) -> dict[str, Tensor]:
    return {"x": X[index] + 0.1 * torch.randn(len(index), 6, generator=generator), "y": Y[index]}


def loss(net: nn.Module, batch: Any) -> Tensor:
    return (net(batch["x"])[:, 0] - batch["y"]).square().mean()


def names(index: Tensor) -> list[str]:
    return [f"hip{i}" for i in index.tolist()]


def fitted(how: Recipe, **more: Any) -> tuple[dict[str, Tensor], loop.Fitted]:
    model = network()
    result = loop.fit(model, how, len(X), more.pop("make", make), more.pop("loss", loss), name="n", keys=names, **more)
    return {key: tensor.clone() for key, tensor in model.state_dict().items()}, result


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[key], b[key]) for key in a)


def test_same_seed_same_bits_and_another_seed_others() -> None:
    first, history = fitted(recipe())
    assert same(first, fitted(recipe())[0])
    assert not same(first, fitted(recipe(seed=6))[0])
    assert history.steps == 12 and len(history.history) == 3
    assert history.history[-1]["loss"] < history.history[0]["loss"]


@pytest.mark.parametrize("killed_at", [3, 7])
def test_a_killed_fit_goes_on_to_the_same_bits(tmp_path: Path, killed_at: int) -> None:
    whole, history = fitted(recipe(checkpoint_steps=1))
    keep, calls = tmp_path / "fit.safetensors", [0]

    def until_killed(index: Tensor, generator: Generator) -> dict[str, Tensor]:
        calls[0] += 1
        if calls[0] == killed_at:
            raise KeyboardInterrupt
        return make(index, generator)

    with pytest.raises(KeyboardInterrupt):
        fitted(recipe(checkpoint_steps=1), make=until_killed, keep=keep, identity="one")
    assert keep.exists()
    again, resumed = fitted(recipe(checkpoint_steps=1), keep=keep, identity="one")
    assert same(whole, again) and resumed.history == history.history
    assert not keep.exists(), "a finished fit needs no checkpoint"


def _killed(keep: Path, at: int, how: Recipe) -> None:
    calls = [0]

    def until_killed(index: Tensor, generator: Generator) -> dict[str, Tensor]:
        calls[0] += 1
        if calls[0] == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return make(index, generator)

    fitted(how, make=until_killed, keep=keep, identity="one", validate=error)


def error(model: nn.Module) -> float:
    """A validation loss with a minimum on the way: it grows again once the weights have grown."""
    with torch.no_grad():
        return float((model(X)[:, 0] - Y).square().mean() + 3 * next(model.parameters()).square().mean())


@pytest.mark.parametrize("killed_at", [6, 10])
def test_a_process_that_was_killed_outright_goes_on_to_the_same_bits(tmp_path: Path, killed_at: int) -> None:
    """SIGKILL in the middle of an epoch, with early stopping on: the best weights so far are not lost either."""
    how = recipe(epochs=12, patience=2, checkpoint_steps=1)
    whole, history = fitted(how, validate=error)
    assert history.stopped and len(history.history) < 12
    keep = tmp_path / "fit.safetensors"
    process = multiprocessing.get_context("fork").Process(target=_killed, args=(keep, killed_at, how))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL and keep.exists() and killed_at <= history.steps
    assert (killed_at - 1) % 4, "in the middle of an epoch"
    again, resumed = fitted(how, keep=keep, identity="one", validate=error)
    assert same(whole, again) and resumed.history == history.history and resumed.stopped
    assert not keep.exists()


def test_averaged_weights_lag_behind_the_last_ones() -> None:
    last, averaged = fitted(recipe(ema=0, settle=0))[0], fitted(recipe(ema=0.9, settle=0))[0]
    start = network().state_dict()
    key = "0.weight"
    assert 0 < float((averaged[key] - start[key]).norm()) < float((last[key] - start[key]).norm())


def test_the_rate_rises_then_falls_to_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    real = loop._set_rate

    def watched(optimizer: torch.optim.Optimizer, how: Recipe, step: int, total: int) -> None:
        real(optimizer, how, step, total)
        rates.append(optimizer.param_groups[0]["lr"])

    monkeypatch.setattr(loop, "_set_rate", watched)
    fitted(recipe(epochs=10, warmup=0.25))
    assert rates[:10] == sorted(rates[:10]) and rates[10:] == sorted(rates[10:], reverse=True)
    assert max(rates) == pytest.approx(0.05) and rates[-1] < 0.001 and rates[0] < 0.01


def test_torch_compile_is_asked_for_by_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling itself takes a minute; that the compiled network is the one that learns does not."""
    asked: list[str] = []

    def compiled(model: nn.Module, mode: str) -> nn.Module:
        asked.append(mode)
        return model

    monkeypatch.setattr(torch, "compile", compiled)
    monkeypatch.setattr("tasks.training.loop.shutil.which", lambda name: f"/usr/bin/{name}")
    plain = fitted(recipe())[0]
    assert not asked
    assert same(plain, fitted(recipe(compile="reduce-overhead"))[0]) and asked == ["reduce-overhead"]


def test_without_a_compiler_a_cpu_says_so_before_anything_is_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("tasks.training.loop.shutil.which", lambda name: None)
    with pytest.raises(WrongUse, match=r"'max-autotune', which on a CPU needs a C\+\+ compiler .* say 'off'"):
        fitted(recipe(compile="max-autotune"))
    assert fitted(recipe())[1].steps == 12


def test_a_checkpoint_of_another_fit_is_not_continued(tmp_path: Path) -> None:
    keep, model, how = tmp_path / "fit.safetensors", network(), recipe()
    optimizer = torch.optim.AdamW(model.parameters())
    checkpoint.save(keep, model, optimizer, [], {}, {"identity": "other", "step": 9, "running": 0.0, "history": []})
    assert same(fitted(recipe())[0], fitted(how, keep=keep, identity="one")[0])


def test_a_loss_that_is_no_number_stops_and_names_the_batch() -> None:
    def broken(index: Tensor, generator: Generator) -> dict[str, Tensor]:
        batch = make(index, generator)
        return batch | {"y": torch.where(index == 7, torch.nan, batch["y"])}

    with pytest.raises(loop.NotFinite, match=r"nan at step \d+ of 12; the batch was .*hip7\b"):
        fitted(recipe(), make=broken)


@pytest.mark.parametrize("where", ["gpu", "cpu"])
def test_out_of_memory_is_answered_by_a_smaller_microbatch(where: str) -> None:
    sizes: list[int] = []

    def tight(net: nn.Module, batch: Any) -> Tensor:
        if len(batch["x"]) > 2 and where == "gpu":
            raise torch.OutOfMemoryError("no room")
        if len(batch["x"]) > 2:
            torch.empty(2**58)  # what the CPU's own allocator says to that
        sizes.append(len(batch["x"]))
        return loss(net, batch)

    _, result = fitted(recipe(settle=0), loss=tight)
    assert result.steps == 12 and max(sizes) == 2


def test_an_item_that_does_not_fit_alone_and_any_other_error_stop() -> None:
    for size, error in ((1, torch.OutOfMemoryError("no room")), (4, RuntimeError("something else"))):
        seen: list[int] = []

        def broken(net: nn.Module, batch: Any, seen: list[int] = seen, error: Exception = error) -> Tensor:
            seen.append(len(batch["x"]))
            raise error

        with pytest.raises(RuntimeError, match=str(error)):
            fitted(recipe(), loss=broken)
        assert seen[-1] == size


def test_accumulated_gradients_are_those_of_the_whole_batch() -> None:
    def plain() -> nn.Module:
        torch.manual_seed(1)
        return nn.Linear(6, 1)

    def given(index: Tensor, generator: Generator) -> dict[str, Tensor]:
        return {"x": X[index], "y": Y[index]}

    one, two = plain(), plain()
    for model, micro in ((one, 0), (two, 2)):
        loop.fit(model, recipe(microbatch=micro, ema=0), len(X), given, loss, name="n", keys=names)
    torch.testing.assert_close(one.weight, two.weight)


def test_early_stopping_keeps_the_best_weights() -> None:
    seen: list[float] = []

    def worse_each_time(model: nn.Module) -> float:
        assert not model.training
        seen.append(float(len(seen)))
        return seen[-1]

    _, result = fitted(recipe(epochs=50, patience=3), validate=worse_each_time)
    assert result.stopped and len(result.history) == 4
    assert result.history[0]["validation_loss"] == 0.0


def test_settling_gives_batchnorm_the_statistics_of_the_weights_that_are_kept() -> None:
    def mean_error(settle: int) -> float:
        model = network()
        loop.fit(model, recipe(epochs=1, settle=settle), len(X), make, loss, name="n", keys=names)
        found = {}
        model[1].register_forward_hook(lambda layer, inputs, out: found.update(x=inputs[0]))
        with torch.no_grad():
            model(X)
        return float((model[1].running_mean - found["x"].mean(0)).abs().mean())

    assert mean_error(20) < 0.5 * mean_error(0)


def test_nothing_to_learn_from_leaves_the_network_as_it_is() -> None:
    model, before = network(), network().state_dict()
    result = loop.fit(model, recipe(), 0, make, loss, name="n", keys=names)
    assert result.steps == 0 and same(dict(before), dict(model.state_dict())) and not model.training


def _joined(rank: int, processes: int, port: int, work: Callable[..., None], given: tuple[Any, ...]) -> None:
    names_of_torchrun = {"WORLD_SIZE": processes, "RANK": rank, "LOCAL_RANK": rank, "MASTER_PORT": port}
    os.environ.update({key: str(value) for key, value in names_of_torchrun.items()} | {"MASTER_ADDR": "127.0.0.1"})
    torch.set_num_threads(1)
    distribution.start()
    work(*given)


def as_torchrun_does(processes: int, work: Callable[..., None], *given: Any) -> None:
    """Processes as torchrun starts them (by environment), over gloo."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("fork")  # torch is loaded already: two more imports would cost seconds
    running = [context.Process(target=_joined, args=(r, processes, port, work, given)) for r in range(processes)]
    for process in running:
        process.start()
    for process in running:
        process.join(60)
        assert process.exitcode == 0


def _plain_fit(out: Path, batch: int) -> None:
    seen: list[int] = []

    def given(index: Tensor, generator: Generator) -> dict[str, Tensor]:
        seen.extend(index.tolist())
        return {"x": X[index], "y": Y[index]}

    torch.manual_seed(1)
    model = nn.Linear(6, 1)
    loop.fit(model, recipe(ema=0, settle=0, batch=batch), 16, given, loss, name="n", keys=names)
    told = {"weight": model.weight.tolist(), "seen": seen}
    out.with_suffix(f".{distribution.rank()}").write_text(json.dumps(told))


@pytest.mark.parametrize("batch", [4, 5])
def test_two_processes_do_what_one_does(tmp_path: Path, batch: int) -> None:
    """Also where a batch cannot be shared evenly: each item counts the same."""
    for processes, out in ((1, tmp_path / "one"), (2, tmp_path / "two")):
        as_torchrun_does(processes, _plain_fit, out, batch)
    one = json.loads((tmp_path / "one.0").read_text())
    halves = [json.loads((tmp_path / f"two.{rank}").read_text()) for rank in (0, 1)]
    for half in halves:
        torch.testing.assert_close(torch.tensor(half["weight"]), torch.tensor(one["weight"]), rtol=1e-5, atol=1e-6)
    assert sorted(halves[0]["seen"] + halves[1]["seen"]) == sorted(one["seen"])


class Flat(nn.Module):
    """In place of a network: without BatchNorm, whose statistics on CPU are those of one process's items."""

    def __init__(self, name: str, channels: int, dropout: float, weights: Path | None = None) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)[:, 0]


def _room(folder: Path) -> None:
    os.chdir(folder)
    still = {"rotate_deg": 0, "scale": 0, "shift": 0, "gain": 0, "gamma": 0, "noise": 0, "drop_channel": 0}
    how = small(compare={"augment": still, "recipe": {"epochs": 3, "batch": 7, "lr": 0.02}})
    main([], how, map if distribution.world() == 1 else None)


def test_a_room_entered_by_two_processes_gives_the_result_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `torchrun -m tasks.compare` does: one process deals folds by patient and writes, both fit."""
    monkeypatch.setattr("tasks.compare.fold.SliceClassifier", Flat)
    found, curves = {}, {}
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        hip_cohort.make(folder, patients=5, visits=1)
        as_torchrun_does(processes, _room, folder)
        found[processes] = pd.read_parquet(folder / "reports/compare/mobilenet_v3_small.parquet")
        lines = (folder / "reports/compare/run.jsonl").read_text().splitlines()
        curves[processes] = [json.loads(line)["value"] for line in lines if '"loss"' in line]
        assert json.loads(lines[-1]) == {"event": "end", "status": "finished"}
    assert found[1].drop(columns="p").equals(found[2].drop(columns="p")) and len(curves[1]) == 6
    assert curves[2] == pytest.approx(curves[1], rel=1e-4)
    assert found[2]["p"].to_numpy() == pytest.approx(found[1]["p"].to_numpy(), abs=1e-4)
