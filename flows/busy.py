"""How busy the machine was while a stage ran: reports/speed/<room>.system.json, for MLflow's system metrics.

It differs each day, so it lies beside what DVC keeps. The meters are MLflow's own, of the whole machine; a GPU has one
where nvidia-ml-py is installed.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks.store.files import write_json

FOLDER = Path("reports/speed")
"""Where rooms that train put how fast they were; its import would bring torch."""
Found = dict[float, dict[str, float]]
"""Seconds since the stage began → {meter: value}."""
EVERY_S = 2.0
MOST = 500
"""Samples; a longer stage is sampled half as often, again and again."""


@contextlib.contextmanager
def watched(room: str, root: Path, every_s: float = EVERY_S) -> Iterator[Found]:
    """Sample until the stage ends, into what is given. A stage that ends before the first sample (nothing had changed)
    leaves what was there."""
    ended, found = threading.Event(), Found()
    thread = threading.Thread(target=_sample, args=(ended, found, every_s), daemon=True)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()
        if found:
            write_json(root / path_of(room), {f"{seconds:g}": values for seconds, values in found.items()})


def path_of(room: str) -> Path:
    """`Found`, as JSON."""
    return FOLDER / f"{room}.system.json"


def _sample(ended: threading.Event, found: Found, every_s: float) -> None:
    seconds = 0.0
    meters: list[Any] | None = None
    while not ended.wait(every_s):
        seconds += every_s
        meters = _meters() if meters is None else meters
        found[seconds] = {}
        for meter in meters:
            meter.collect_metrics()
            found[seconds] |= meter.aggregate_metrics()
            meter.clear_metrics()
        if len(found) >= MOST:
            for odd in list(found)[::2]:
                del found[odd]
            every_s *= 2


def _meters() -> list[Any]:
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor

    meters: list[Any] = [CPUMonitor()]
    with contextlib.suppress(ImportError, RuntimeError):  # no meter, or no GPU
        meters.append(GPUMonitor())
    return meters
