"""How fast fits were and what they took, here and today: reports/speed/<room>.json.

It differs from run to run, so it is no output of a stage: same inputs give the same bytes elsewhere. Flows mirror it.
"""

from __future__ import annotations

import fcntl
import resource
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from tasks.store.files import read_json, write_json
from tasks.training.loop import Fitted

FOLDER = Path("reports/speed")


def taken(fitted: Fitted) -> dict[str, float]:
    """Of a fit that this process has just done. peak_memory_gb is the process's, all that it did before included;
    peak_gpu_memory_gb the fit's own."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    out = {"train_items_per_s": round(fitted.items_per_s, 1), "peak_memory_gb": round(peak / 1e9, 2)}
    if torch.cuda.is_available():
        out["peak_gpu_memory_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
    return out


def of(fits: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Several fits of one network, each with its `speed`: mean throughput, largest memory."""
    each = [fit["speed"] for fit in fits]
    out: dict[str, float] = {}
    for name in {name for one in each for name in one}:
        values = [one[name] for one in each if name in one]
        out[name] = max(values) if name.startswith("peak") else round(sum(values) / len(values), 1)
    return out


def note(room: str, model: str, numbers: Mapping[str, float]) -> None:
    """Keep the numbers of `model`; fits of one room may end at the same time in several processes."""
    path = FOLDER / f"{room}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = read_json(path) if path.exists() else {}
        write_json(path, known | {model: dict(numbers)})
