"""The resident worker of `osteoflow serve`: warm, woken by the ledger, one arrival flow after the other.

Prefect's runner starts a process a run, and an event takes 5 to 10 s to reach it; this one has its imports done, and
its pool lives on: each of its processes has read the rules of anonymization and holds the champion's networks. It looks
at the ledger four times a second. With Prefect down it works on without it.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from prefect.settings import PREFECT_API_REQUEST_TIMEOUT, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from flows import arrive
from flows.given import PRELOAD, giving
from tasks import receive
from tasks.domain.errors import OsteoflowError
from tasks.domain.params import load
from tasks.domain.settings import Settings
from tasks.ledger import Ledger
from tasks.store.mapping import Kept

log = logging.getLogger("osteoflow.worker")

POLL_S, RETRY_S, ASK_AGAIN_S = 0.25, 5.0, 15.0
NOT_LONG: dict[Any, Any] = {PREFECT_CLIENT_MAX_RETRIES: 1, PREFECT_API_REQUEST_TIMEOUT: 5.0}
"""A server that is up and busy (its database locked, say) is asked five times by default, over two minutes, while the
study waits."""


def run() -> None:
    settings, ledger = Settings().ensure(), Ledger.open()
    params = load("receive", receive.Params)
    server, pool = _Server(), Kept((*PRELOAD, "flows.arrive", "flows.scoring"))
    champion = Champion(pool)
    importlib.import_module("flows.scoring")
    with contextlib.closing(pool), giving(pool):
        for step in (champion.look, lambda: work(server)):  # what the first study would otherwise wait for
            attempt(step)
        (settings.home / "worker.up").touch()
        while True:
            if not attempt(lambda: look(ledger, params, server, champion)):
                time.sleep(RETRY_S)
            time.sleep(POLL_S)


def attempt(step: Callable[[], object]) -> bool:
    """False when it failed, of whatever: the ledger, MLflow or the disk may be back in a moment."""
    try:
        step()
    except Exception as error:  # noqa: BLE001 - the worker stays
        # What is not ours may quote what it was about, and that may be a patient.
        text = str(error) if isinstance(error, OsteoflowError) else type(error).__name__
        log.warning("%s; trying again", text)
        return False
    return True


def look(ledger: Ledger, params: receive.Params, server: _Server, champion: Champion) -> None:
    """Work on what is complete; with nothing to do, see whether the champion is still the one that is held."""
    receive.settle(ledger, params)
    while ledger.ready():
        work(server)
        receive.settle(ledger, params)
    champion.look()


def work(server: _Server) -> dict[str, int]:
    """The arrival flow, recorded by Prefect when it answers."""
    if not server.answers():
        return arrive.arrive.fn()
    try:
        with temporary_settings(NOT_LONG):
            return arrive.arrive()
    except (OsteoflowError, BrokenProcessPool):
        raise
    except Exception as error:  # noqa: BLE001 - what Prefect dies of must not keep a study waiting
        log.warning("Prefect failed (%s): working on without it", type(error).__name__)
        server.silent_until = time.monotonic() + ASK_AGAIN_S
        return arrive.arrive.fn()


class Champion:
    """The package whose networks the pool holds: a new champion's are loaded while nothing waits."""

    def __init__(self, pool: Kept) -> None:
        self.pool, self.looked, self.held = pool, -1.0, 0

    def look(self) -> None:
        """Renew the pool when the champion is another than the one it holds, or when its processes are gone."""
        moved = _time(Settings().home / "promotions.jsonl")
        if moved == self.looked and self.pool.pids():
            return
        number, package = _champion()
        self.looked = moved
        if number == self.held and self.pool.pids():
            return
        from flows import scoring

        self.held = number
        self.pool.renew(functools.partial(scoring.begin, package))


def _champion() -> tuple[int, Path | None]:
    """Number and package; (0, None) while there is none."""
    if not (Settings().home / "models").exists():
        return 0, None  # no version was ever registered here: MLflow need not be asked
    from flows import tracking

    found = tracking.find("champion")
    return (found.number, tracking.package_of(found.number)) if found is not None else (0, None)


def _time(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


class _Server:
    """Does Prefect's API answer? Asked again after a silence only now and then."""

    def __init__(self) -> None:
        self.url = os.environ.get("PREFECT_API_URL", "")
        self.silent_until = 0.0

    def answers(self) -> bool:
        if not self.url or time.monotonic() < self.silent_until:
            return False
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=1):
                return True
        except (urllib.error.URLError, OSError):
            self.silent_until = time.monotonic() + ASK_AGAIN_S
            return False
