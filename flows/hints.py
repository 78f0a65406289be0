"""Prefect is told that studies are complete: a hint, in a thread of its own, at most one at a time and one a second.

It makes flows elsewhere fast. What must work is the resident worker and the sweep, which read the ledger.
"""

from __future__ import annotations

import logging
import threading
import time

log = logging.getLogger("osteoflow.hints")

HINT = "osteoflow.study.complete"
PAUSE_S = 1.0


class Hints:
    """`give` returns at once and never fails; while one is on its way, the others are one hint together."""

    def __init__(self) -> None:
        self._keys: set[str] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def give(self, row_keys: list[str]) -> None:
        if not row_keys:
            return
        with self._lock:
            self._keys.update(row_keys)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="osteoflow-hints", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            with self._lock:
                keys, self._keys = sorted(self._keys), set()
                if not keys:
                    self._thread = None
                    return
            self._emit(keys)
            time.sleep(PAUSE_S)

    def _emit(self, keys: list[str]) -> None:
        try:
            from prefect.events import emit_event

            emit_event(event=HINT, resource={"prefect.resource.id": f"osteoflow.study.{keys[0]}"},
                       payload={"studies": len(keys)})  # fmt: skip
        except Exception:  # noqa: BLE001 - a hint that is lost is found by the sweep
            log.debug("a hint for %d studies was lost", len(keys))
