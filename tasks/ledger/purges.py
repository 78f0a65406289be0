"""Bytes whose rows are gone, and that are to be removed: listed in the transaction that gives them up, until they are.

Functions of `Ledger`, but for `to_purge`.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, delete, insert, select

from tasks.ledger.engine import reading, writing
from tasks.ledger.tables import purges

if TYPE_CHECKING:
    from tasks.ledger.ledger import Ledger


def to_purge(conn: Connection, paths: list[str]) -> None:
    """List `paths` for purging, inside the caller's transaction."""
    known = set(conn.execute(select(purges.c.path)).scalars())
    fresh = sorted(set(paths) - known)
    if fresh:
        conn.execute(insert(purges), [{"path": path, "since": time.time()} for path in fresh])


def pending_purges(self: Ledger) -> list[Path]:
    """Paths whose rows are gone and whose bytes may still be there."""
    with reading(self.engine) as conn:
        return [
            self.identified / path for path in conn.execute(select(purges.c.path).order_by(purges.c.path)).scalars()
        ]


def purged(self: Ledger, paths: list[Path]) -> None:
    """These bytes are gone."""
    relative = [self.relative(path) for path in paths]
    with writing(self.engine) as conn:
        for start in range(0, len(relative), 500):
            conn.execute(delete(purges).where(purges.c.path.in_(relative[start : start + 500])))
