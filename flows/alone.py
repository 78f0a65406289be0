"""One dataset run at a time in a workspace, whoever starts it, by a lock. Kept apart: who only asks imports no DVC."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.domain.errors import Unavailable
from tasks.domain.settings import Settings


class Busy(Unavailable):
    """Another process does this here already."""


@contextmanager
def alone() -> Iterator[None]:
    """One dataset run of this workspace. Raises Busy."""
    with locked(
        Settings().ensure().home / "retrain.lock", "another dataset run is going on here; osteoflow status shows it"
    ):
        yield


@contextmanager
def locked(path: Path, busy: str) -> Iterator[None]:
    """One process at a time; the lock goes when the process does, however it ends. Raises Busy, which says `busy`."""
    with open(path, "w", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Busy(busy) from error
        yield
