"""One dataset run at a time in a workspace, whoever starts it. Kept apart: who only asks imports no DVC."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from tasks.domain.errors import Unavailable
from tasks.domain.settings import Settings


class Busy(Unavailable):
    """Another dataset run is going on in this workspace."""


@contextmanager
def alone() -> Iterator[None]:
    """Concurrency 1, across processes; the lock goes when the process does, however it ends."""
    path = Settings().ensure().home / "retrain.lock"
    with open(path, "w", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Busy("another dataset run is going on here; osteoflow status shows it") from error
        yield
