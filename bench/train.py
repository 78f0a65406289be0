"""A training step from stored hips beside the peers' bare steps, and what ten networks would take.

On CPU: one thread, images per CPU second, fp32, channels_last, medians of rounds that take turns, and the median of the
rounds' own ratios to the best peer of each (the machines are noisy: a second's rate drifts by a quarter).
`ours_end_to_end` is `tasks.compare`'s own fit: hip files read, sliced, augmented, AdamW, clipping, averaged weights,
BatchNorm settled; twelve steps, the first one that takes memory among them. The peers get ready-made batches in memory
and do nothing but their step, after one that is not counted: torchvision's reference recipe (SGD, momentum, NCHW as it
comes) and timm's (channels_last), where timm is installed.
Reading is measured beside the same two, eager; ours has its BatchNorm folded (`tasks.nets.folding`). What a compiler
adds on a CPU costs it a minute or two: it is measured where `OSTEOFLOW_BENCH_COMPILE` is set.

On a GPU: batch 512, bf16, compiled with CUDA graphs, images per second of wall time, and the bytes of the
memory-traffic count moved per second as a share of a device copy measured in the same run.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torchvision
import yaml
from torch import Tensor, nn

from tasks.compare import fold
from tasks.compare.params import Params
from tasks.domain.hip import ROLES
from tasks.nets.backbones import mmacs
from tasks.nets.encoder import SliceClassifier
from tasks.nets.folding import folded
from tasks.store import hips
from tasks.training import augment, loop, memory

NETWORK, DEPTH = "mobilenet_v3_large", 12
ROUNDS = 7
MB_PER_IMAGE = {"train": 125.0, "infer": 22.2}
"""At 224 pixels in bf16, with pointwise operations fused: what must move through memory whatever the code."""
COHORT = {"slices": 630, "epochs": 10, "px": 112}
"""On which ten networks are extrapolated, for one fold."""


def run() -> dict[str, object]:
    gpu = torch.cuda.is_available()
    torch.set_num_threads(1)
    logging.getLogger("osteoflow").setLevel(logging.WARNING)
    size, batch, steps = (224, 512, 60) if gpu else (224, 32, 12)
    with tempfile.TemporaryDirectory() as place:
        os.environ["OSTEOFLOW_HOME"] = place
        job = _job(Path(place), size, batch, steps, gpu)
        contestants: dict[str, Callable[[], float]] = {"ours_end_to_end": lambda: _fit(job)}
        contestants["torchvision_reference"] = _peer(torchvision.models.get_model(NETWORK, num_classes=1), size, batch)
        if (model := _timm()) is not None:
            contestants["timm"] = _peer(model, size, batch, channels_last=True)
        rounds = [{name: one() for name, one in contestants.items()} for _ in range(ROUNDS)]
        train = {name: round(statistics.median(each[name] for each in rounds), 1) for name in contestants}
        ratios = [one["ours_end_to_end"] / max(v for k, v in one.items() if k != "ours_end_to_end") for one in rounds]
        found: dict[str, Any] = {
            "device": torch.cuda.get_device_name() if gpu else "no GPU at hand: small, on one CPU thread",
            "network": NETWORK, "px": size, "batch": batch, "train_img_per_s": train,
            "timm": "measured" if "timm" in train else "not installed",
            "train_to_best_peer": round(statistics.median(ratios), 3),
            "train_to_best_peer_rounds": [round(ratio, 3) for ratio in ratios],
            "input_share_of_step": round(_input_share(job, batch, train["ours_end_to_end"]), 4),
            "infer_img_per_s": _infer(size, 512 if gpu else 32, gpu),
        }  # fmt: skip
        if gpu:
            found |= _traffic(train["ours_end_to_end"], found["infer_img_per_s"]["ours_bf16"])
        else:
            found["ten_networks"] = _ten(job)
            found["floor"] = _floor(found)
    return found


def _job(place: Path, size: int, batch: int, steps: int, gpu: bool) -> fold.Job:
    """Hips of noise in real files, and a comparison of one network on them: the last one is left out."""
    count = batch * steps // DEPTH + 2
    rng = np.random.default_rng(0)
    grid = {"shape": [DEPTH, 112, 112], "spacing": [4.0, 0.8, 0.8]}
    paths, rows = [], []
    for visit in range(count):
        tensors = {name: rng.integers(0, 65535, grid["shape"], dtype=np.uint16) for name in ROLES}
        meta = {"scale": {name: [2e-5, 0.0] for name in ROLES}, "grids": dict.fromkeys(ROLES, grid)}
        paths.append(str(place / f"{visit}.safetensors"))
        hips.write(Path(paths[-1]), hips.HipFile(tensors, meta))
        out = "1" if visit == count - 1 else "0"
        rows += [(f"h{visit}", f"s{visit}", out, visit, i, float(i % 2)) for i in range(1 if out == "1" else DEPTH)]
    table = pd.DataFrame(rows, columns=["hip_visit", "subject", "fold", "visit", "slice", "label"])
    section = yaml.safe_load((Path(__file__).parents[1] / "params.yaml").read_text(encoding="utf-8"))["compare"]
    section |= {"networks": [NETWORK], "size_px": size}
    section["recipe"] |= {"epochs": 1, "batch": batch, "settle": 0, "checkpoint_steps": 0, "ema": 0.98}
    section["recipe"]["compile"] = "max-autotune" if gpu else "off"
    return fold.Job(Params.model_validate(section), NETWORK, "1", 0, tuple(paths), table, "bench", "bench")


def _clock() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def _fit(job: fold.Job) -> float:
    """Images per second of a whole fit, hip files included; on a GPU once it is compiled (a second epoch's rate)."""
    fold.sliced.images.cache_clear()
    start = _clock()
    result = fold.fit_fold(job)
    if torch.cuda.is_available():
        return float(result["speed"]["train_items_per_s"])
    return result["steps"] * job.params.recipe.batch / (_clock() - start)


def _peer(model: nn.Module, size: int, batch: int, channels_last: bool = False) -> Callable[[], float]:
    where, layout = loop.device(), torch.channels_last if channels_last else torch.contiguous_format
    model = model.to(where).to(memory_format=layout).train()  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    images = torch.rand(batch, 3, size, size, device=where).contiguous(memory_format=layout)
    target = torch.rand(batch, device=where).round()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with loop.autocast("auto", where):
            loss = nn.functional.binary_cross_entropy_with_logits(model(images)[:, 0].float(), target)
        loss.backward()
        optimizer.step()

    step()  # warm

    def throughput(steps: int = 20 if torch.cuda.is_available() else 3) -> float:
        start = _clock()
        for _ in range(steps):
            step()
        return steps * batch / (_clock() - start)

    return throughput


def _timm() -> nn.Module | None:
    try:
        import timm
    except ImportError:
        return None
    model: nn.Module = timm.create_model("mobilenetv3_large_100", num_classes=1)
    return model


def _input_share(job: fold.Job, batch: int, rate: float) -> float:
    """Time to take and augment a batch, of the time that a whole step takes."""
    stack = fold.sliced.images(job.paths, job.params.size_px, job.fingerprint).to(loop.device())
    visits = torch.arange(batch, device=loop.device()) % len(stack.scale)
    generator = torch.Generator(loop.device()).manual_seed(0)

    def make() -> Tensor:
        images = stack.take(visits, (visits % DEPTH)[:, None])[:, 0]
        keep = augment.drop_channels(stack.present[visits], 0.1, generator)
        images, _ = augment.augment(images * keep[:, :, None, None], job.params.augment, generator)
        return images.contiguous(memory_format=torch.channels_last)

    times = []
    with memory.kept():  # as in a fit
        for _ in range(12):
            start = _clock()
            make()
            times.append(_clock() - start)
    return statistics.median(times) / (batch / rate)


def _infer(size: int, batch: int, gpu: bool) -> dict[str, float]:
    """Images per second of reading, contestants taking turns: ours folded, the peers as they come, eager."""
    where = loop.device()
    ours = loop.prepare(folded(SliceClassifier(NETWORK, 3, 0.0)), where)
    nets: dict[str, tuple[Any, torch.dtype]] = {
        "ours_fp32": (ours, torch.float32),
        "ours_bf16": (copy.deepcopy(ours).bfloat16(), torch.bfloat16),
        "torchvision_eager": (torchvision.models.get_model(NETWORK, num_classes=1).to(where).eval(), torch.float32),
    }
    if (model := _timm()) is not None:
        nets["timm_eager"] = (loop.prepare(model, where).eval(), torch.float32)
    if gpu:
        nets = {
            name: (net.bfloat16(), torch.bfloat16) if "fp32" not in name else (net, how)
            for name, (net, how) in nets.items()
        }
        nets |= {
            name: (torch.compile(net, mode="max-autotune"), how) for name, (net, how) in nets.items() if "ours" in name
        }
    elif os.environ.get("OSTEOFLOW_BENCH_COMPILE"):
        from torch._inductor import config

        config.freezing = True  # type: ignore[attr-defined]
        nets |= {
            f"{name}_compiled": (torch.compile(nets[name][0]), nets[name][1]) for name in ("ours_fp32", "ours_bf16")
        }
    images = torch.rand(batch, 3, size, size, device=where)
    times: dict[str, list[float]] = {name: [] for name in nets}
    with torch.no_grad(), memory.kept():
        for _ in range(7):
            for name, (net, how) in nets.items():
                layout = torch.contiguous_format if name == "torchvision_eager" else torch.channels_last
                given = images.to(how).contiguous(memory_format=layout)
                start = _clock()
                net(given)
                times[name].append(_clock() - start)
    return {name: round(batch / statistics.median(each[2:]), 1) for name, each in times.items()}


def _traffic(train: float, infer: float) -> dict[str, object]:
    """Bytes that the count says were moved, as a share of a copy within the device."""
    source = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    target.copy_(source)
    start = _clock()
    for _ in range(20):
        target.copy_(source)
    copied = 2 * 20 * source.numel() / (_clock() - start)
    return {
        "device_copy_gb_per_s": round(copied / 1e9),
        "train_share_of_copy": round(train * MB_PER_IMAGE["train"] * 1e6 / copied, 3),
        "infer_share_of_copy": round(infer * MB_PER_IMAGE["infer"] * 1e6 / copied, 3),
    }


def _floor(found: dict[str, Any]) -> dict[str, object]:
    """What this core can multiply, large matrices at best, and how near to that the figures are: two operations a MAC,
    three forward passes' worth a training step. Where bfloat16 is no faster here, no reading in bfloat16 is."""
    speed = {name: _matmul(kind) for name, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16))}
    reading = 2 * mmacs(SliceClassifier(NETWORK, 3, 0.0), 3, found["px"]) / 1000
    section = yaml.safe_load((Path(__file__).parents[1] / "params.yaml").read_text(encoding="utf-8"))["compare"]
    every = sum(mmacs(SliceClassifier(name, 3, 0.0), 3, COHORT["px"]) for name in section["networks"])
    least = 6 * every / 1000 * COHORT["slices"] * COHORT["epochs"] / speed["fp32"] / 60
    return {
        "matmul_gflop_per_s": {name: round(value, 1) for name, value in speed.items()},
        "infer_share_of_matmul": {
            name: round(rate * reading / speed["fp32"], 3) for name, rate in found["infer_img_per_s"].items()
        },
        "ten_networks_cpu_minutes_at_matmul_speed": round(least, 1),
        "ten_networks_share_of_matmul": round(least / found["ten_networks"]["cpu_minutes_per_fold"], 3),
    }


def _matmul(kind: torch.dtype, side: int = 1024) -> float:
    """GFLOP per CPU second, the best of some."""
    a, b = torch.rand(side, side).to(kind), torch.rand(side, side).to(kind)
    best = float("inf")
    for _ in range(20):
        start = _clock()
        torch.mm(a, b)
        best = min(best, _clock() - start)
    return 2 * side**3 / best / 1e9


def _ten(job: fold.Job) -> dict[str, object]:
    """Each network of params.yaml for some steps at 112 pixels in a process of its own; the whole by proportion."""
    section = yaml.safe_load((Path(__file__).parents[1] / "params.yaml").read_text(encoding="utf-8"))["compare"]
    rates: dict[str, float] = {}
    peak = 0.0
    for network in section["networks"]:
        here, there = multiprocessing.get_context("fork").Pipe(duplex=False)
        process = multiprocessing.get_context("fork").Process(target=_one, args=(job, network, there))
        process.start()
        rate, memory = here.recv()
        process.join()
        rates[network], peak = round(rate, 1), max(peak, memory)
    images = COHORT["slices"] * COHORT["epochs"]
    return {
        **COHORT,
        "train_img_per_cpu_s": rates,
        "cpu_minutes_per_fold": round(sum(images / rate for rate in rates.values()) / 60, 1),
        "peak_memory_gb": round(peak, 2),
    }


def _one(job: fold.Job, network: str, told: Any) -> None:
    recipe = job.params.recipe.model_copy(update={"batch": 16})
    params = job.params.model_copy(update={"size_px": COHORT["px"], "recipe": recipe})
    table = job.slices[(job.slices["visit"] < 6) | (job.slices["fold"] == "1")]
    one = dataclasses.replace(job, params=params, network=network, slices=table, fingerprint=network)
    rate = fold.fit_fold(one)["speed"]["train_items_per_s"]
    told.send((rate, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9))
