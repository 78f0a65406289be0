"""Local processes for item-wise work: a `Mapper` whose workers fork off a warm server."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

from tasks.store.items import Mapper

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def local(workers: int | None = None, preload: tuple[str, ...] = ()) -> Iterator[Mapper]:
    """A mapper over `workers` processes of one thread each (spinning OMP threads were seen to halve throughput).

    Workers fork from a clean server that has imported `preload`, so that a warm pool costs no imports. With one
    worker the work is done here. Exceptions of the work are raised where its result is read.
    """
    workers = workers or int(os.environ.get("OSTEOFLOW_WORKERS", 0)) or cores()
    if workers == 1:
        yield map
        return
    for name in ONE_THREAD:
        os.environ.setdefault(name, "1")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["numpy", "pandas", "pyarrow.parquet", *preload])

    def mapper(function: Callable[[Any], Any], work: Iterable[Any]) -> Iterator[Any]:
        # Workers of their own for each call: forking them off the warm server costs 0.1 s, and what a stage left in
        # their memory goes with them (over a whole life two kept workers grew from 1 to 1.7 GB each).
        with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin) as pool:
            yield from pool.map(function, work)

    yield mapper


def _begin() -> None:
    import sys

    threading.Thread(target=end_with_parent, daemon=True).start()
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever: it keeps its own queue open."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
