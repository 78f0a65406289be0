"""Study versions: how they are read, how they move forward, who has them leased, what was made of them.

Functions of `Ledger`; the first argument is the ledger.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Connection, and_, delete, func, insert, or_, select, update

from tasks.domain.errors import WrongUse
from tasks.ledger.engine import reading, writing
from tasks.ledger.purges import to_purge
from tasks.ledger.tables import FORWARD, STATES, files, notes, purges, studies

if TYPE_CHECKING:
    from tasks.ledger.ledger import Ledger


CLOCK_SKEW = 60.0
"""Seconds by which the clocks of two machines on one ledger may differ."""


@dataclass(frozen=True)
class SpoolFile:
    """One received DICOM file. `path` is absolute; `sha256` is of the whole file as it stands in the spool."""

    path: Path
    sop_uid: str
    series_uid: str
    sha256: str


@dataclass(frozen=True)
class StudyVersion:
    """One version of one study. What identifies a person is left out of its repr, so that a log line may hold it."""

    row_key: str
    site: str
    study_uid: str = field(repr=False)
    patient_id: str = field(repr=False)
    version: int
    digest: str | None
    files: tuple[SpoolFile, ...] = field(repr=False)
    batch: str | None
    commitment: str | None
    origin: str
    state: str
    purged: bool
    arrived: bool
    current: bool
    n_files: int
    declared: int | None
    first_received: float
    last_received: float
    scored_by: str | None


def digest_of(members: Iterable[tuple[str, str]]) -> str:
    """SHA-256 over the sorted (SOP Instance UID, SHA-256 of the file) of a study version."""
    total = hashlib.sha256()
    for sop_uid, sha256 in sorted(members):
        total.update(f"{sop_uid} {sha256}\n".encode())
    return total.hexdigest()


def get(self: Ledger, row_key: str) -> StudyVersion | None:
    return next(iter(_load(self, studies.c.row_key == row_key)), None)


def resolve(self: Ledger, commitment: str) -> StudyVersion | None:
    """The version that a manifest's commitment stands for; None when it was erased or is of another ledger."""
    return next(iter(_load(self, studies.c.commitment == commitment)), None)


def find(self: Ledger, study_uid: str) -> list[StudyVersion]:
    """All versions of the study with this (original) StudyInstanceUID at any site, oldest first."""
    return _load(self, studies.c.study_uid == study_uid)


def of_patient(self: Ledger, patient_id: str, site: str) -> list[StudyVersion]:
    return _load(self, and_(studies.c.patient_id == patient_id, studies.c.site == site))


def current(self: Ledger, *states: str) -> list[StudyVersion]:
    """The current versions in one of `states` (all by default), the one that waits longest first."""
    return _load(self, and_(studies.c.current == 1, studies.c.state.in_(states or STATES)))


def counts(self: Ledger) -> dict[str, int]:
    """Studies by the state of their current version, all five states named."""
    query = select(studies.c.state, func.count()).where(studies.c.current == 1).group_by(studies.c.state)
    with reading(self.engine) as conn:
        found = {state: int(count) for state, count in conn.execute(query)}
    return {state: found.get(state, 0) for state in STATES}


def geometry(self: Ledger, row_key: str) -> list[tuple[str, str]]:
    """(series UID, geometry as `receive` wrote it) of each file of a version."""
    query = select(files.c.series_uid, files.c.geometry).where(files.c.row_key == row_key)
    with reading(self.engine) as conn:
        return [(series, text or "{}") for series, text in conn.execute(query)]


def waiting(self: Ledger, quiet_before: float) -> list[dict[str, Any]]:
    """Receiving versions to which nothing came since `quiet_before`: row_key, n_files, declared, last_received,
    waiting. One that came in the future is quiet too: the clock was set back."""
    columns = (studies.c.row_key, studies.c.n_files, studies.c.declared, studies.c.last_received, studies.c.waiting)
    quiet = or_(studies.c.last_received <= quiet_before, studies.c.last_received > time.time() + CLOCK_SKEW)
    query = select(*columns).where(studies.c.state == "receiving", studies.c.current == 1, quiet)
    with reading(self.engine) as conn:
        return [dict(row._mapping) for row in conn.execute(query.order_by(studies.c.last_received))]


def unknown_files(
    self: Ledger, folders: Mapping[str, Path], names: Callable[[Path], list[str]]
) -> dict[str, list[str]]:
    """File names that stand in a spool folder and in no row, by row key, of the spool's `folders` by row key. `names`
    lists a folder; it is called for keys that the ledger does not know and for versions still receiving (only these can
    lack a row), while no writer is at work: what another process has not committed yet is not mistaken for lost. Nor
    is what was erased or discarded and whose bytes are still to be removed."""
    lost: dict[str, list[str]] = {}
    with writing(self.engine) as conn:
        known = dict(conn.execute(select(studies.c.row_key, studies.c.state)).tuples().all())
        gone = set(conn.execute(select(purges.c.path)).scalars())
        for row_key, folder in folders.items():
            if known.get(row_key, "receiving") != "receiving":
                continue
            rows = conn.execute(select(files.c.path).where(files.c.row_key == row_key)).scalars()
            kept = {path.rpartition("/")[2] for path in rows}
            found = sorted(n for n in set(names(folder)) - kept if self.relative(folder / n) not in gone)
            if found or row_key not in known:
                lost[row_key] = found
    return lost


def explain(self: Ledger, row_key: str, text: str, seen: Mapping[str, Any] | None = None) -> bool:
    """Say why a receiving version is not complete yet (no PHI). False when it changed since it was `seen`: what was
    said would hold for a study that is no longer so, and would keep it from being judged again."""
    with writing(self.engine) as conn:
        query = update(studies).where(as_seen(row_key, seen)).values(waiting=text)
        return conn.execute(query).rowcount == 1


def declare(self: Ledger, row_key: str, n_files: int) -> None:
    """The sender says that the study has `n_files` (QIDO-RS, C-FIND, change feed)."""
    with writing(self.engine) as conn:
        conn.execute(update(studies).where(as_seen(row_key, None)).values(declared=n_files, waiting=None))


def complete(self: Ledger, row_key: str, seen: Mapping[str, Any] | None = None) -> bool:
    """receiving → complete, with the digest over its files. False when it is no longer receiving, or changed since it
    was `seen`."""
    with writing(self.engine) as conn:
        if conn.execute(select(studies.c.row_key).where(as_seen(row_key, seen))).first() is None:
            return False
        query = select(files.c.sop_uid, files.c.sha256).where(files.c.row_key == row_key)
        members = conn.execute(query).tuples().all()
        move(conn, row_key, "complete", digest=digest_of(members), completed_at=time.time(), waiting=None)
    return True


def as_seen(row_key: str, seen: Mapping[str, Any] | None) -> ColumnElement[bool]:
    """The version while it is receiving and, with a row of `waiting`, while no file came and no count was declared
    since: whoever judged that row judged a study that may have changed meanwhile."""
    condition = and_(studies.c.row_key == row_key, studies.c.state == "receiving")
    if seen is None:
        return condition
    unchanged = (studies.c[name].is_not_distinct_from(seen[name]) for name in ("last_received", "declared"))
    return and_(condition, *unchanged)


def move(conn: Connection, row_key: str, state: str, **values: Any) -> None:
    """Move one version forward. Raises WrongUse when its state does not allow it (the database's trigger would too)."""
    before = tuple(name for name, after in FORWARD.items() if state in after)
    condition = and_(studies.c.row_key == row_key, studies.c.state.in_(before))
    if conn.execute(update(studies).where(condition).values(state=state, **values)).rowcount != 1:
        raise WrongUse(f"study version {row_key} cannot become {state}: a study version only moves forward")


def lease(
    self: Ledger, state: str = "complete", arrived: bool = False, limit: int = 1, *, owner: str, seconds: float
) -> list[StudyVersion]:
    """Up to `limit` current versions in `state`, for `owner` alone until `seconds` from now; expired leases are taken
    over. `arrived` says whether the arrival loop has finished with them."""
    now = time.time()
    condition = and_(
        studies.c.current == 1,
        studies.c.state == state,
        studies.c.purged == 0,
        studies.c.arrived_at.is_not(None) if arrived else studies.c.arrived_at.is_(None),
        or_(studies.c.lease_until.is_(None), studies.c.lease_until <= now),
    )
    with writing(self.engine) as conn:
        query = select(studies.c.row_key).where(condition).order_by(studies.c.completed_at, studies.c.row_key)
        keys = list(conn.execute(query.limit(limit)).scalars())
        if keys:
            values = {"lease_owner": owner, "lease_until": now + seconds}
            conn.execute(update(studies).where(studies.c.row_key.in_(keys)).values(**values))
    return _load(self, studies.c.row_key.in_(keys)) if keys else []


def ready(self: Ledger) -> int:
    """How many studies the arrival loop could take now."""
    free = or_(studies.c.lease_until.is_(None), studies.c.lease_until <= time.time())
    waits = and_(studies.c.current == 1, studies.c.state == "complete", studies.c.arrived_at.is_(None), free)
    with reading(self.engine) as conn:
        return int(conn.execute(select(func.count()).select_from(studies).where(waits)).scalar() or 0)


def purged_studies(self: Ledger) -> int:
    """Current versions whose originals are gone: they stay as released and cannot be made again."""
    gone = and_(studies.c.current == 1, studies.c.purged == 1)
    with reading(self.engine) as conn:
        return int(conn.execute(select(func.count()).select_from(studies).where(gone)).scalar() or 0)


def done_before(self: Ledger, when: float) -> list[str]:
    """Row keys of versions that are done (superseded ones too), came before `when` and still have their originals."""
    old = and_(studies.c.state == "done", studies.c.purged == 0, studies.c.last_received < when)
    with reading(self.engine) as conn:
        query = select(studies.c.row_key).where(old).order_by(studies.c.last_received)
        return [str(key) for key in conn.execute(query).scalars()]


def extend_lease(self: Ledger, row_key: str, owner: str, seconds: float) -> bool:
    """Keep a lease that `owner` still has; False when it was taken over."""
    condition = and_(studies.c.row_key == row_key, studies.c.lease_owner == owner)
    with writing(self.engine) as conn:
        query = update(studies).where(condition).values(lease_until=time.time() + seconds)
        return conn.execute(query).rowcount == 1


def release_lease(self: Ledger, row_key: str, owner: str | None = None) -> None:
    """Give a lease back (that of `owner` only, when named: an expired one may be another's by now)."""
    condition = studies.c.row_key == row_key
    if owner is not None:
        condition = and_(condition, studies.c.lease_owner == owner)
    with writing(self.engine) as conn:
        conn.execute(update(studies).where(condition).values(lease_owner=None, lease_until=None))


def release_leases(self: Ledger, gone: Callable[[str], bool]) -> int:
    """Give back the leases of every owner that is `gone` (a process that died), without waiting for their expiry."""
    held = and_(studies.c.lease_owner.is_not(None), studies.c.arrived_at.is_(None))
    with writing(self.engine) as conn:
        owners = set(conn.execute(select(studies.c.lease_owner).where(held)).scalars())
        dead = [owner for owner in owners if owner and gone(owner)]
        given_back = update(studies).where(and_(held, studies.c.lease_owner.in_(dead)))
        return conn.execute(given_back.values(lease_owner=None, lease_until=None)).rowcount if dead else 0


def mark_arrived(self: Ledger, row_key: str) -> bool:
    """The arrival loop has anonymized and standardized this version; its lease ends. False when it was quarantined or
    erased meanwhile: what the loop made of it then counts for nothing."""
    values = {"arrived_at": time.time(), "lease_owner": None, "lease_until": None}
    return _mark(self, row_key, values, ("complete", "claimed", "done"))


def mark_scored(self: Ledger, row_key: str, model: str) -> bool:
    values = {"scored_by": model, "scored_at": time.time()}
    return _mark(self, row_key, values, ("complete", "claimed", "done"))


def mark_purged(self: Ledger, row_key: str) -> bool:
    """Give the originals up: they are listed for purging; the version stays as released and cannot be anonymized
    again. Only of one that is done: False otherwise."""
    done = and_(studies.c.row_key == row_key, studies.c.state == "done")
    with writing(self.engine) as conn:
        if conn.execute(update(studies).where(done).values(purged=1)).rowcount != 1:
            return False
        to_purge(conn, list(conn.execute(select(files.c.path).where(files.c.row_key == row_key)).scalars()))
    return True


def not_scored(self: Ledger, row_key: str, model: str) -> int:
    """`model` failed on a version; how often by now."""
    name = _failures(model, row_key)
    with writing(self.engine) as conn:
        times = int(conn.execute(select(notes.c.value).where(notes.c.name == name)).scalar() or 0) + 1
        conn.execute(delete(notes).where(notes.c.name == name))
        conn.execute(insert(notes).values(name=name, value=str(times), at=time.time()))
    return times


def _failures(model: str, row_key: Any) -> Any:
    return f"failures of model {model} with " + row_key


def unscored(
    self: Ledger,
    model: str,
    states: Sequence[str] = STATES,
    origin: str | None = None,
    limit: int | None = None,
    patience: int | None = None,
) -> list[StudyVersion]:
    """Current versions that went through the arrival loop, or through a dataset run, and that `model` did not score;
    only of `states`, of one `origin`, the `limit` that arrived last, and on which it failed less than `patience` times.
    """
    ready = or_(
        studies.c.state == "done",
        and_(studies.c.state.in_(("complete", "claimed")), studies.c.arrived_at.is_not(None)),
    )
    other = or_(studies.c.scored_by.is_(None), studies.c.scored_by != model)
    condition = and_(studies.c.current == 1, ready, other, studies.c.state.in_(states))
    if origin is not None:
        condition = and_(condition, studies.c.origin == origin)
    if patience is not None:
        name = _failures(model, studies.c.row_key)
        # As text: PostgreSQL may look at a note's value before its name, and not every note is a number.
        fewer = [str(times) for times in range(patience)]
        failed = select(notes.c.name).where(notes.c.name == name, notes.c.value.not_in(fewer))
        condition = and_(condition, ~failed.exists())
    if limit is not None:
        newest = select(studies.c.row_key).where(condition).order_by(studies.c.arrived_at.desc(), studies.c.row_key)
        with reading(self.engine) as conn:
            condition = studies.c.row_key.in_(list(conn.execute(newest.limit(limit)).scalars()))
    return _load(self, condition)


def _mark(self: Ledger, row_key: str, values: dict[str, Any], states: Sequence[str]) -> bool:
    condition = and_(studies.c.row_key == row_key, studies.c.state.in_(states))
    with writing(self.engine) as conn:
        return conn.execute(update(studies).where(condition).values(**values)).rowcount == 1


def _load(self: Ledger, condition: ColumnElement[bool]) -> list[StudyVersion]:
    """The versions that meet `condition`, oldest arrival first, with their files (by series, then SOP UID)."""
    order = (studies.c.first_received, studies.c.version, studies.c.row_key)
    chosen = select(studies.c.row_key).where(condition)
    with reading(self.engine) as conn:
        rows = conn.execute(select(studies).where(condition).order_by(*order)).all()
        query = select(files).where(files.c.row_key.in_(chosen)).order_by(files.c.series_uid, files.c.sop_uid)
        members: dict[str, list[SpoolFile]] = {}
        for file in conn.execute(query):
            spooled = SpoolFile(self.identified / file.path, file.sop_uid, file.series_uid, file.sha256)
            members.setdefault(file.row_key, []).append(spooled)
    return [
        StudyVersion(
            row_key=row.row_key,
            site=row.site,
            study_uid=row.study_uid,
            patient_id=row.patient_id,
            version=row.version,
            digest=row.digest,
            files=tuple(members.get(row.row_key, ())),
            batch=row.batch,
            commitment=row.commitment,
            origin=row.origin,
            state=row.state,
            purged=bool(row.purged),
            arrived=row.arrived_at is not None,
            current=bool(row.current),
            n_files=row.n_files,
            declared=row.declared,
            first_received=row.first_received,
            last_received=row.last_received,
            scored_by=row.scored_by,
        )
        for row in rows
    ]
