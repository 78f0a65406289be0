"""Local processes for item-wise work: a `Mapper` whose workers fork off a warm server.

`local` forks workers for each call; `Kept` are workers that live on and hold what they have loaded.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

from tasks.store.items import Mapper

log = logging.getLogger("osteoflow.store")

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")
MOST_MB = 1500.0
"""A kept worker that has grown to this is replaced by a new one."""


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def local(workers: int | None = None, preload: tuple[str, ...] = ()) -> Iterator[Mapper]:
    """A mapper over `workers` processes of one thread each (spinning OMP threads were seen to halve throughput).

    Workers fork from a clean server that has imported `preload`, so that a warm pool costs no imports. With one
    worker the work is done here. Exceptions of the work are raised where its result is read.
    """
    workers = workers or _wanted()
    if workers == 1:
        yield map
        return
    context = _server(preload)

    def mapper(function: Callable[[Any], Any], work: Iterable[Any]) -> Iterator[Any]:
        # Workers of their own for each call: forking them off the warm server costs 0.1 s, and what a stage left in
        # their memory goes with them (over a whole life two kept workers grew from 1 to 1.7 GB each).
        with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin) as pool:
            yield from pool.map(function, work)

    yield mapper


class Kept:
    """A mapper whose workers live on from call to call, for a process that waits for work and must be quick then.

    `begin` is called in each worker as it starts, and may fail: what it would have loaded is loaded on use. A worker
    that dies takes the call with it (BrokenProcessPool); the next call has new ones, as it has when one grew too big.
    """

    def __init__(self, preload: tuple[str, ...] = (), workers: int | None = None, most_mb: float = MOST_MB) -> None:
        self.workers, self.most_mb = workers or _wanted(), most_mb
        self.context = _server(preload)
        self.begin: Callable[[], object] | None = None
        self._pool: ProcessPoolExecutor | None = None

    def __call__(self, function: Callable[[Any], Any], work: Iterable[Any]) -> Iterator[Any]:
        if not self.pids() or max(self.megabytes(), default=0.0) > self.most_mb:
            self.close()
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self.workers, mp_context=self.context, initializer=_begin_to_stay, initargs=(self.begin,)
            )
        try:
            yield from self._pool.map(function, work)
        except BrokenProcessPool:
            self.close()
            raise

    def renew(self, begin: Callable[[], object] | None) -> None:
        """New workers that call `begin` first; returns when the first of them is ready."""
        self.close()
        self.begin = begin
        list(self(abs, range(self.workers)))  # a worker is started for each piece that finds none idle

    def close(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)

    def pids(self) -> list[int]:
        """Of the workers that live."""
        started = dict(getattr(self._pool, "_processes", None) or {})
        return sorted(pid for pid, process in started.items() if process.is_alive())

    def megabytes(self) -> list[float]:
        """Resident memory of each worker, where the system tells."""
        page = os.sysconf("SC_PAGE_SIZE") / 1e6
        statm = [Path(f"/proc/{pid}/statm") for pid in self.pids()]
        return [int(path.read_text(encoding="ascii").split()[1]) * page for path in statm if path.exists()]


def _wanted() -> int:
    return int(os.environ.get("OSTEOFLOW_WORKERS", 0)) or cores()


def _server(preload: tuple[str, ...]) -> BaseContext:
    for name in ONE_THREAD:
        os.environ.setdefault(name, "1")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["numpy", "pandas", "pyarrow.parquet", *preload])
    return context


def _begin() -> None:
    threading.Thread(target=end_with_parent, daemon=True).start()
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def _begin_to_stay(first: Callable[[], object] | None) -> None:
    _begin()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its workers
    if first is not None:
        try:
            first()
        except Exception as error:  # noqa: BLE001 - a pool whose initializer fails is broken for good
            log.warning("a worker begins cold: %s", type(error).__name__)


def end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever: it keeps its own queue open."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
