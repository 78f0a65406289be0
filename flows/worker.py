"""The resident worker of `osteoflow serve`: warm, woken by the ledger, one arrival flow after the other.

Prefect's runner starts a process a run, and an event takes 5 to 10 s to reach it; this one has its imports done, forks
its pool from a server that has them too, and looks at the ledger four times a second. With Prefect down it works on
without it.
"""

from __future__ import annotations

import importlib
import logging
import os
import time
import urllib.error
import urllib.request

from flows import arrive
from flows.given import PRELOAD, giving
from tasks import receive
from tasks.domain.errors import OsteoflowError
from tasks.domain.params import load
from tasks.domain.settings import Settings
from tasks.ledger import Ledger
from tasks.store.items import Mapper
from tasks.store.mapping import local

log = logging.getLogger("osteoflow.worker")

POLL_S, RETRY_S, ASK_AGAIN_S = 0.25, 5.0, 15.0


def run() -> None:
    settings, ledger = Settings().ensure(), Ledger.open()
    params = load("receive", receive.Params)
    server = _Server()
    with local(preload=(*PRELOAD, "flows.arrive", "flows.scoring")) as pool, giving(pool):
        warm(pool)
        (settings.home / "worker.up").touch()
        while True:
            try:
                receive.settle(ledger, params)
                if ledger.ready():
                    work(server)
                    continue
            except (OsteoflowError, OSError) as error:
                log.warning("%s: %s; trying again", type(error).__name__, error)
                time.sleep(RETRY_S)
            time.sleep(POLL_S)


def work(server: _Server) -> dict[str, int]:
    """The arrival flow, recorded by Prefect when it answers."""
    if not server.answers():
        return arrive.arrive.fn()
    try:
        return arrive.arrive()
    except OsteoflowError:
        raise
    except Exception as error:  # noqa: BLE001 - what Prefect dies of must not keep a study waiting
        log.warning("Prefect failed (%s): working on without it", type(error).__name__)
        server.silent_until = time.monotonic() + ASK_AGAIN_S
        return arrive.arrive.fn()


def warm(mapper: Mapper) -> None:
    """What the first study would otherwise wait for: imports here and in the server that processes fork from, and
    the registry's first answer."""
    from flows import tracking

    importlib.import_module("flows.scoring")
    list(mapper(abs, range(2)))
    if (Settings().home / "models").exists():
        tracking.find("champion")


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
