"""From the journal to the ledger: one thread that files what was acknowledged, many files in one transaction."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable

from tasks.domain.errors import OsteoflowError, Unavailable
from tasks.receive.intake import Intake, Outcome
from tasks.receive.judge import Received

log = logging.getLogger("osteoflow.receive")

FILER_CHUNK, FILER_PAUSE_S, FILER_RETRY_S = 256, 0.1, 1.0

OnStudy = Callable[[str], None]


class Filer:
    """`give` a journaled file; it is filed soon. `waiting` files are acknowledged and not in the ledger yet.

    `on_study(row_key)` is called in a thread of its own, after files of that version are in the ledger."""

    def __init__(self, intake: Intake, on_study: OnStudy | None) -> None:
        self.intake = intake
        self._unfiled: queue.Queue[Received | None] = queue.Queue()
        self._hints = _Hints(on_study) if on_study is not None else None
        self._thread = threading.Thread(target=self._file, name="osteoflow-filer", daemon=True)
        self._ending = threading.Event()

    def start(self) -> None:
        self._thread.start()

    def give(self, received: Received) -> None:
        self._unfiled.put(received)

    @property
    def waiting(self) -> int:
        return self._unfiled.qsize()

    def end(self) -> None:
        """File what is left, then stop."""
        self._ending.set()
        self._unfiled.put(None)
        self._thread.join()
        if self._hints is not None:
            self._hints.end()

    def _file(self) -> None:
        """Take acknowledged files to the ledger, many at a time, until told to end and nothing is left."""
        ended = False
        while not ended:
            item = self._unfiled.get()
            if item is not None and not self._ending.is_set():
                time.sleep(FILER_PAUSE_S)
            chunk: list[Received] = []
            while True:
                if item is None:
                    ended = True
                else:
                    chunk.append(item)
                if len(chunk) >= FILER_CHUNK or self._unfiled.empty():
                    break
                item = self._unfiled.get()
            if chunk:
                self._hint(self._filed(chunk))

    def _filed(self, chunk: list[Received]) -> list[Outcome]:
        while True:
            try:
                return self.intake.file(chunk)
            except (Unavailable, OSError) as error:
                log.error("the ledger cannot be written (%s): %d files wait", type(error).__name__, len(chunk))
                if self._ending.wait(FILER_RETRY_S):
                    return []  # they are in the journal
            except (OsteoflowError, ValueError, LookupError, TypeError, ArithmeticError) as error:
                if len(chunk) > 1:
                    return [outcome for item in chunk for outcome in self._filed([item])]
                log.error("a file stays in the journal: %s", type(error).__name__)
                return []

    def _hint(self, outcomes: list[Outcome]) -> None:
        if self._hints is not None:
            for row_key in sorted({o.row_key for o in outcomes if o.outcome == "accepted" and o.row_key}):
                self._hints.give(row_key)


class _Hints:
    """Calls `on_study` in a thread of its own; when that is behind, hints are dropped: the ledger is the truth."""

    def __init__(self, on_study: OnStudy) -> None:
        self._on_study = on_study
        self._waiting: queue.Queue[str | None] = queue.Queue(maxsize=1000)
        threading.Thread(target=self._run, name="osteoflow-hints", daemon=True).start()

    def give(self, row_key: str | None) -> None:
        try:
            self._waiting.put_nowait(row_key)
        except queue.Full:
            log.debug("a hint was dropped")

    def end(self) -> None:
        self.give(None)

    def _run(self) -> None:
        while (row_key := self._waiting.get()) is not None:
            try:
                self._on_study(row_key)
            except Exception as error:  # noqa: BLE001 - whatever a hint does, receiving goes on
                log.warning("a hint failed: %s", type(error).__name__)
