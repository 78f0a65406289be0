"""Runs of the dataset loop, small notes, and the words in which the ledger says what it waits for. For `Ledger`."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, and_, delete, func, insert, or_, select, update

from tasks.domain.errors import WrongUse
from tasks.ledger.engine import reading, writing
from tasks.ledger.tables import batches, notes, runs, studies

if TYPE_CHECKING:
    from tasks.ledger.ledger import Ledger


def start_run(self: Ledger, batch: str | None = None) -> str:
    """A run of the dataset loop begins; returns its id. A run that was left running is marked crashed: there is one
    at a time, so it is dead."""
    now = time.time()
    with writing(self.engine) as conn:
        dead = {"status": "crashed", "ended": now, "why": "the process ended without saying why"}
        conn.execute(update(runs).where(runs.c.status == "running").values(**dead))
        number = (conn.execute(select(func.max(runs.c.number))).scalar() or 0) + 1
        run = secrets.token_hex(8)
        conn.execute(insert(runs).values(id=run, number=number, started=now, status="running", batch=batch))
    return run


def end_run(
    self: Ledger, run: str, status: str, why: str = "", *, lineage: str | None = None, model: str | None = None
) -> None:
    """The run has ended: finished, refused, failed or crashed, and why."""
    values = {"ended": time.time(), "status": status, "why": why, "lineage": lineage, "model": model}
    with writing(self.engine) as conn:
        if conn.execute(update(runs).where(runs.c.id == run).values(**values)).rowcount != 1:
            raise WrongUse(f"the ledger knows no run {run}")


def last_run(self: Ledger, status: str | None = None) -> dict[str, Any] | None:
    """The last run (with `status`): id, number, started, ended, status, why, batch, lineage, model."""
    query = select(runs).order_by(runs.c.number.desc()).limit(1)
    if status is not None:
        query = query.where(runs.c.status == status)
    with reading(self.engine) as conn:
        row = conn.execute(query).one_or_none()
    return None if row is None else dict(row._mapping)


def run_seconds_since(self: Ledger, when: float) -> float:
    """Seconds that runs which ended after `when` have taken."""
    query = select(func.sum(runs.c.ended - runs.c.started)).where(runs.c.ended > when)
    with reading(self.engine) as conn:
        return float(conn.execute(query).scalar() or 0.0)


def remember(self: Ledger, name: str, value: str) -> None:
    """Keep a small thing under `name` (the position of a feed), with the time."""
    with writing(self.engine) as conn:
        conn.execute(delete(notes).where(notes.c.name == name))
        conn.execute(insert(notes).values(name=name, value=value, at=time.time()))


def recall(self: Ledger, name: str) -> str | None:
    with reading(self.engine) as conn:
        return conn.execute(select(notes.c.value).where(notes.c.name == name)).scalar()


def remembered_at(self: Ledger, name: str) -> float | None:
    with reading(self.engine) as conn:
        return conn.execute(select(notes.c.at).where(notes.c.name == name)).scalar()


def new_hips_since(self: Ledger, when: float | None = None) -> int:
    """Hips that a dataset run has not finished with: two for each current study that is complete or claimed, or that
    became complete after `when`. A failed run leaves its studies counted."""
    condition: ColumnElement[bool] = studies.c.state.in_(("complete", "claimed"))
    if when is not None:
        condition = and_(studies.c.state.in_(("complete", "claimed", "done")), studies.c.completed_at > when)
    with reading(self.engine) as conn:
        found = conn.execute(select(func.count()).where(and_(studies.c.current == 1, condition))).scalar()
    return 2 * int(found or 0)


def oldest_waiting(self: Ledger) -> dict[str, Any] | None:
    """The study that has waited longest for a dataset run or for its last slice: row_key, state, since, waiting."""
    columns = (studies.c.row_key, studies.c.state, studies.c.first_received.label("since"), studies.c.waiting)
    waits = and_(studies.c.current == 1, studies.c.state.in_(("receiving", "complete", "claimed")))
    with reading(self.engine) as conn:
        row = conn.execute(select(*columns).where(waits).order_by(studies.c.first_received).limit(1)).one_or_none()
    return None if row is None else dict(row._mapping)


def last_study_at(self: Ledger) -> float | None:
    """When the last file came."""
    with reading(self.engine) as conn:
        return conn.execute(select(func.max(studies.c.last_received))).scalar()


def first_study_at(self: Ledger) -> float | None:
    with reading(self.engine) as conn:
        return conn.execute(select(func.min(studies.c.first_received))).scalar()


def waiting_for(self: Ledger) -> str:
    """In words, what has to happen before everything that came is in a finished dataset."""
    current = studies.c.current == 1
    now = time.time()
    with reading(self.engine) as conn:

        def count(*conditions: Any) -> int:
            return int(
                conn.execute(select(func.count()).select_from(studies).where(current, *conditions)).scalar() or 0
            )

        receiving = count(studies.c.state == "receiving", studies.c.waiting.is_(None))
        held_up = conn.execute(
            select(studies.c.waiting, func.count())
            .where(current, studies.c.state == "receiving", studies.c.waiting.is_not(None))
            .group_by(studies.c.waiting)
        ).all()
        ready = and_(studies.c.state == "complete", studies.c.arrived_at.is_(None))
        leased = count(ready, studies.c.lease_until > now)
        unleased = count(ready, or_(studies.c.lease_until.is_(None), studies.c.lease_until <= now))
        arrived = count(studies.c.state == "complete", studies.c.arrived_at.is_not(None))
        query = select(batches.c.batch).where(batches.c.finished_at.is_(None)).order_by(batches.c.number)
        unfinished = list(conn.execute(query).scalars())
    parts = [f"the quiet period of {_studies(receiving)}"] if receiving else []
    parts += [f"the rest of {_studies(n)} ({why})" for why, n in sorted(held_up)]
    parts += [f"the arrival loop to take {_studies(unleased)}"] if unleased else []
    parts += [f"the arrival loop, which is at {_studies(leased)}"] if leased else []
    parts += [f"a dataset run to claim {_studies(arrived)}"] if arrived else []
    parts += [f"a dataset run to finish {', '.join(unfinished)}"] if unfinished else []
    return "; ".join(parts) or "new studies"


def _studies(number: int) -> str:
    return "1 study" if number == 1 else f"{number} studies"
