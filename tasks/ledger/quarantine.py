"""Quarantine: what cannot be used, why, and what a person decided about it. Nothing leaves without a reason kept.

An entry is a file that was never taken (row_key null, its bytes at `path`) or a study version. Functions of `Ledger`.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, and_, delete, func, insert, select, update

from tasks.domain.errors import WrongUse
from tasks.ledger.engine import reading, writing
from tasks.ledger.purges import to_purge
from tasks.ledger.studies import as_seen
from tasks.ledger.tables import FORWARD, files, quarantine, studies

if TYPE_CHECKING:
    from tasks.ledger.ledger import Ledger

NEVER_RELEASED = frozenset({"two_patients_in_study"})
"""Reasons for which an entry can only be discarded: the sender has to say whose images these are."""


@dataclass(frozen=True)
class Entry:
    """`key` names it and is random; `reason` is a slug, `detail` a sentence without PHI; `path` is absolute and null
    for a study version, whose files stay where StudyVersion.files says. Times are UTC seconds since the epoch."""

    key: str
    row_key: str | None
    reason: str
    detail: str
    path: Path | None
    state: str
    created: float
    decided: float | None
    who: str | None
    why: str | None
    site: str | None = field(repr=False)
    origin: str | None
    sha256: str | None = field(repr=False)


def hold(
    conn: Connection,
    reason: str,
    detail: str = "",
    *,
    row_key: str | None = None,
    path: str | None = None,
    sha256: str | None = None,
    site: str | None = None,
    origin: str | None = None,
    study_uid: str | None = None,
    patient_id: str | None = None,
    key: str | None = None,
    now: float | None = None,
) -> str:
    """Add a held entry, inside the caller's transaction; the same thing held for the same reason is not added twice."""
    same = quarantine.c.row_key == row_key if row_key is not None else quarantine.c.sha256 == sha256
    held = and_(same, quarantine.c.reason == reason, quarantine.c.state == "held")
    known = conn.execute(select(quarantine.c.key).where(held)).scalar() if row_key or sha256 else None
    if known is not None:
        return str(known)
    key = key or secrets.token_hex(8)
    if row_key is not None:
        study = conn.execute(select(studies).where(studies.c.row_key == row_key)).one_or_none()
        if study is not None:
            site, origin, study_uid, patient_id = study.site, study.origin, study.study_uid, study.patient_id
    row = {
        "key": key,
        "row_key": row_key,
        "site": site,
        "origin": origin,
        "study_uid": study_uid,
        "patient_id": patient_id,
        "reason": reason,
        "detail": detail,
        "path": path,
        "sha256": sha256,
        "state": "held",
        "created": time.time() if now is None else now,
    }
    conn.execute(insert(quarantine).values(**row))
    return key


def quarantine_(self: Ledger, row_key: str | None, reason: str, detail: str = "", path: Path | None = None) -> str:
    """Hold a study version (or the file at `path`) for `reason`; returns the entry's key.

    A receiving, complete or claimed version becomes quarantined. A version that is done stays done, because states
    only move forward; the entry says what was found. Of one that was superseded meanwhile nobody has to decide; of one
    that was erased nothing is kept, and there is no key ('').
    """
    with writing(self.engine) as conn:
        current = conn.execute(select(studies.c.current).where(studies.c.row_key == row_key)).scalar()
        if row_key is not None and current is None:
            return ""
        place = None if path is None else self.relative(path)
        key = hold(conn, reason, detail, row_key=row_key, path=place)
        if row_key is not None:
            before = [state for state, after in FORWARD.items() if "quarantined" in after]
            stopped = and_(studies.c.row_key == row_key, studies.c.state.in_(before))
            values = {"state": "quarantined", "lease_owner": None, "lease_until": None, "waiting": None}
            conn.execute(update(studies).where(stopped).values(**values))
            if not current:
                decide(conn, key, "released", "osteoflow", "a later version supersedes it")
    return key


def give_up(self: Ledger, row_key: str, reason: str, detail: str, seen: Mapping[str, Any]) -> bool:
    """receiving → quarantined: the rest did not come in time. False when the version changed since it was `seen`."""
    with writing(self.engine) as conn:
        stopped = update(studies).where(as_seen(row_key, seen)).values(state="quarantined", waiting=None)
        if conn.execute(stopped).rowcount != 1:
            return False
        hold(conn, reason, detail, row_key=row_key)
    return True


def hold_file(
    self: Ledger,
    reason: str,
    detail: str,
    sha256: str,
    place: Callable[[str], str],
    *,
    site: str,
    origin: str,
    study_uid: str | None = None,
    patient_id: str | None = None,
) -> tuple[str, bool]:
    """Hold one file that was not taken. `place(key)` puts its bytes into the quarantine, durably, and returns their
    path relative to the identified zone. The same bytes held for the same reason are not held twice: (key, False)."""
    with writing(self.engine) as conn:
        same = and_(quarantine.c.sha256 == sha256, quarantine.c.reason == reason, quarantine.c.state == "held")
        known = conn.execute(select(quarantine.c.key).where(same, quarantine.c.row_key.is_(None))).scalar()
        if known is not None:
            return str(known), False
        key = secrets.token_hex(8)
        whose: dict[str, Any] = {"site": site, "origin": origin, "study_uid": study_uid, "patient_id": patient_id}
        return hold(conn, reason, detail, key=key, path=place(key), sha256=sha256, **whose), True


def quarantined(self: Ledger) -> dict[str, int]:
    """Held entries, counted by reason."""
    query = select(quarantine.c.reason, func.count()).where(quarantine.c.state == "held").group_by(quarantine.c.reason)
    with reading(self.engine) as conn:
        return {reason: int(count) for reason, count in sorted(conn.execute(query).tuples())}


def quarantine_entries(self: Ledger, state: str | None = "held") -> list[Entry]:
    """Entries in `state` (all of them for None), oldest first."""
    query = select(quarantine).order_by(quarantine.c.created, quarantine.c.key)
    if state is not None:
        query = query.where(quarantine.c.state == state)
    with reading(self.engine) as conn:
        return [_entry(self, row) for row in conn.execute(query)]


def quarantine_entry(self: Ledger, key: str) -> Entry:
    with reading(self.engine) as conn:
        row = conn.execute(select(quarantine).where(quarantine.c.key == key)).one_or_none()
    if row is None:
        raise WrongUse(f"quarantine has no entry {key}; osteoflow quarantine list shows them")
    return _entry(self, row)


def discard(self: Ledger, key: str, who: str, why: str) -> list[Path]:
    """Give a held entry up: its bytes are listed for purging (returned, and kept until `purged` is called)."""
    with writing(self.engine) as conn:
        entry = held_entry(conn, key)
        decide(conn, key, "discarded", who, why)
        paths = [entry.path] if entry.path else []
        if entry.row_key is not None:
            paths += conn.execute(select(files.c.path).where(files.c.row_key == entry.row_key)).scalars()
            conn.execute(delete(files).where(files.c.row_key == entry.row_key))
            conn.execute(update(studies).where(studies.c.row_key == entry.row_key).values(current=0, n_files=0))
        to_purge(conn, paths)
    return [self.identified / path for path in paths]


def held_entry(conn: Connection, key: str) -> Row:
    row = conn.execute(select(quarantine).where(quarantine.c.key == key)).one_or_none()
    if row is None:
        raise WrongUse(f"quarantine has no entry {key}; osteoflow quarantine list shows them")
    if row.state != "held":
        raise WrongUse(f"entry {key} was {row.state} before")
    return row


def decide(conn: Connection, key: str, state: str, who: str, why: str) -> None:
    if not who.strip() or not why.strip():
        raise WrongUse("say who decides and why: both are kept")
    values = {"state": state, "decided": time.time(), "who": who, "why": why}
    conn.execute(update(quarantine).where(quarantine.c.key == key).values(**values))


def _entry(self: Ledger, row: Row) -> Entry:
    return Entry(
        key=row.key,
        row_key=row.row_key,
        reason=row.reason,
        detail=row.detail or "",
        path=self.identified / row.path if row.path else None,
        state=row.state,
        created=row.created,
        decided=row.decided,
        who=row.who,
        why=row.why,
        site=row.site,
        origin=row.origin,
        sha256=row.sha256,
    )
