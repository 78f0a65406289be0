"""How the benches time: CPU seconds, medians over rounds, both sides of a ratio within one run (machines are noisy)."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable

ROUNDS = 5


def cpu(action: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Median CPU seconds (user and system, this process) of `action` over `rounds` runs."""
    taken = []
    for _ in range(rounds):
        start = time.process_time()
        action()
        taken.append(time.process_time() - start)
    return statistics.median(taken)


def machine() -> dict[str, object]:
    """What the figures were taken on."""
    return {"processor": _processor(), "cores": os.cpu_count(), "python": platform.python_version()}


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as handle:
            return next(line.split(":", 1)[1].strip() for line in handle if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()
