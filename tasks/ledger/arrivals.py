"""Files into study versions: the one place that decides to which version a received file belongs.

Everything happens in one write transaction. The bytes are fsynced before it begins; inside it `Spool` links them into
the version's folder, and the transaction commits only after that folder is fsynced: a committed row has its file.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import Connection, and_, insert, select, update

from tasks.domain.errors import Refused, WrongUse
from tasks.ledger.engine import writing
from tasks.ledger.purges import to_purge
from tasks.ledger.quarantine import NEVER_RELEASED, decide, held_entry, hold
from tasks.ledger.studies import digest_of, move
from tasks.ledger.tables import files, quarantine, studies

if TYPE_CHECKING:
    from tasks.ledger.ledger import Ledger


@dataclass(frozen=True)
class Arrival:
    """One received file, read and checked, fsynced but not yet in the spool."""

    site: str
    origin: str
    study_uid: str
    patient_id: str
    series_uid: str
    sop_uid: str
    sha256: str
    size: int
    geometry: str
    declared: int | None = None


@dataclass(frozen=True)
class Verdict:
    """What became of an arrival: accepted (into `row_key`) | duplicate | refused (with a `reason`)."""

    outcome: str
    row_key: str | None = None
    reason: str = ""
    detail: str = ""


class Spool(Protocol):
    """What `receive` does with the bytes while the ledger decides. Paths are relative to the identified zone."""

    def put(self, index: int, row_key: str) -> str:
        """Link the bytes of arrival `index` into the folder of `row_key`."""

    def carry(self, path: str, row_key: str) -> str | None:
        """Link a file of an older version into the folder of `row_key`; None when it is no longer there."""

    def same(self, index: int, path: str) -> bool:
        """Does arrival `index` hold the same dataset as the stored file, file meta and preamble aside?"""

    def sync(self) -> None:
        """Make all links of this transaction durable."""


@dataclass
class _Study:
    """A study as this transaction sees it: its latest version, and what has changed."""

    row_key: str
    version: int
    state: str
    patient_id: str
    origin: str
    purged: bool = False
    held_for: str | None = None
    """The reason why its version is in quarantine, while that is held; '' when it was discarded or withdrawn."""
    stored: dict[str, tuple[str, str]] = field(default_factory=dict)
    """SOP UID → (SHA-256, path) of the files that this transaction asked about or added."""
    fresh: list[dict[str, Any]] = field(default_factory=list)
    declared: int | None = None


def receive(self: Ledger, arrivals: Sequence[Arrival], spool: Spool, now: float | None = None) -> list[Verdict]:
    """Take `arrivals` into the ledger, in their order, all or none; returns one verdict each.

    - The same SOP UID with the same dataset is a duplicate and changes nothing; with another it is refused.
    - A second PatientID within one study makes the study ambiguous: the version, unless a batch has it already, goes to
      quarantine, and so does every further file of the study until someone discards it.
    - A file for a version that is no longer receiving makes a new version of the study, with all its files.
    """
    now = time.time() if now is None else now
    with writing(self.engine) as conn:
        seen: dict[tuple[str, str], _Study | None] = {}
        wanted: dict[tuple[str, str], list[str]] = {}
        for arrival in arrivals:
            wanted.setdefault((arrival.site, arrival.study_uid), []).append(arrival.sop_uid)
        for (site, study_uid), sop_uids in wanted.items():
            seen[site, study_uid] = _latest(conn, site, study_uid, sop_uids)
        verdicts = [_decide(conn, seen, arrival, index, spool, now) for index, arrival in enumerate(arrivals)]
        for study in seen.values():
            if study is not None and study.fresh:
                _store(conn, study, now)
        spool.sync()
    return verdicts


def _latest(conn: Connection, site: str, study_uid: str, sop_uids: list[str]) -> _Study | None:
    same_study = and_(studies.c.site == site, studies.c.study_uid == study_uid)
    query = select(studies).where(same_study).order_by(studies.c.version.desc()).limit(1)
    row = conn.execute(query).one_or_none()
    if row is None:
        return None
    study = _Study(row.row_key, row.version, row.state, row.patient_id, row.origin, bool(row.purged))
    if row.state == "quarantined":
        entry = conn.execute(
            select(quarantine.c.reason, quarantine.c.state)
            .where(quarantine.c.row_key == row.row_key)
            .order_by(quarantine.c.created.desc())
        ).first()
        study.held_for = entry.reason if entry is not None and entry.state == "held" else ""
    elif not row.current:
        study.held_for = ""  # withdrawn, and no original was left: what is sent again begins anew
    for start in range(0, len(sop_uids), 500):
        some = and_(files.c.row_key == row.row_key, files.c.sop_uid.in_(sop_uids[start : start + 500]))
        for file in conn.execute(select(files.c.sop_uid, files.c.sha256, files.c.path).where(some)):
            study.stored[file.sop_uid] = (file.sha256, file.path)
    return study


def _decide(
    conn: Connection,
    seen: dict[tuple[str, str], _Study | None],
    arrival: Arrival,
    index: int,
    spool: Spool,
    now: float,
) -> Verdict:
    place = (arrival.site, arrival.study_uid)
    study = seen[place]
    if study is None or study.held_for == "":
        study = seen[place] = _create(conn, arrival, 1 if study is None else study.version + 1, now)
    stored = study.stored.get(arrival.sop_uid)
    if stored is not None and (stored[0] == arrival.sha256 or spool.same(index, stored[1])):
        return Verdict("duplicate", study.row_key)
    if study.held_for == "two_patients_in_study":
        return Verdict("refused", study.row_key, "two_patients_in_study", "its study is in quarantine for that")
    if arrival.origin != study.origin:
        return Verdict("refused", study.row_key, "mixed_origin", f"the study is of origin {study.origin}")
    if arrival.patient_id != study.patient_id:
        if study.state in ("receiving", "complete"):
            if study.fresh:
                _store(conn, study, now)
            hold(conn, "two_patients_in_study", "files of one study name two patients", row_key=study.row_key, now=now)
            move(conn, study.row_key, "quarantined")
            study.state, study.held_for = "quarantined", "two_patients_in_study"
        return Verdict("refused", study.row_key, "two_patients_in_study", "another patient than in its other files")
    if stored is not None:
        return Verdict("refused", study.row_key, "duplicate_sop_other_bytes", "the file that came first is kept")
    if study.state != "receiving":
        if study.purged:
            return Verdict("refused", study.row_key, "late_after_purge", "the study's other originals are gone")
        study = seen[place] = _supersede(conn, study, arrival, spool, now)
    path = spool.put(index, study.row_key)
    study.stored[arrival.sop_uid] = (arrival.sha256, path)
    study.fresh.append(_file(study.row_key, arrival, path))
    if arrival.declared:
        study.declared = max(study.declared or 0, arrival.declared)
    return Verdict("accepted", study.row_key)


def _create(conn: Connection, arrival: Arrival, version: int, now: float) -> _Study:
    study = _Study(secrets.token_hex(16), version, "receiving", arrival.patient_id, arrival.origin)
    _insert(conn, study, arrival.site, arrival.study_uid, now)
    return study


def _insert(conn: Connection, study: _Study, site: str, study_uid: str, now: float) -> None:
    row = {
        "row_key": study.row_key,
        "site": site,
        "study_uid": study_uid,
        "patient_id": study.patient_id,
        "version": study.version,
        "current": 1,
        "state": study.state,
        "origin": study.origin,
        "n_files": 0,
        "first_received": now,
        "last_received": now,
        "purged": 0,
    }
    conn.execute(insert(studies).values(**row))


def _supersede(conn: Connection, old: _Study, arrival: Arrival, spool: Spool, now: float) -> _Study:
    """The next version of a study that is no longer receiving: all files of the old one, and room for the late one."""
    new = _create(conn, arrival, old.version + 1, now)
    _carry(conn, old.row_key, new, spool.carry)
    superseded = and_(quarantine.c.row_key == old.row_key, quarantine.c.state == "held")
    decision = {"state": "released", "decided": now, "who": "osteoflow", "why": f"version {new.version} supersedes it"}
    conn.execute(update(quarantine).where(superseded).values(**decision))
    return new


def _carry(conn: Connection, old_key: str, new: _Study, carry: Callable[[str, str], str | None]) -> None:
    """Link the files of the version `old_key` into `new`, which supersedes it."""
    members = []
    for file in conn.execute(select(files).where(files.c.row_key == old_key)):
        path = carry(file.path, new.row_key)
        if path is not None:
            members.append(file._asdict() | {"row_key": new.row_key, "path": path})
            new.stored[file.sop_uid] = (file.sha256, path)
    if members:
        conn.execute(insert(files), members)
    declared = conn.execute(select(studies.c.declared).where(studies.c.row_key == old_key)).scalar()
    values = {"n_files": len(members), "declared": declared}
    conn.execute(update(studies).where(studies.c.row_key == new.row_key).values(**values))
    conn.execute(update(studies).where(studies.c.row_key == old_key).values(current=0))


def release(self: Ledger, key: str, who: str, why: str, carry: Callable[[str, str], str | None]) -> str | None:
    """Let a held entry go. A study version comes back as a new complete version with all its files, linked and made
    durable by `carry(path, row_key)`; returns its row key. For a file, `receive` takes it in first: None."""
    now = time.time()
    with writing(self.engine) as conn:
        entry = held_entry(conn, key)
        if entry.reason in NEVER_RELEASED:
            raise Refused(f"entry {key} ({entry.reason}) cannot be released: discard it and have the study sent again")
        decide(conn, key, "released", who, why)
        if entry.row_key is None:
            to_purge(conn, [entry.path] if entry.path else [])
            return None
        row = conn.execute(select(studies).where(studies.c.row_key == entry.row_key)).one()
        if row.state != "quarantined" or not row.current:
            return None  # found on a version that is done, or superseded since: nothing to bring back
        new = _Study(secrets.token_hex(16), row.version + 1, "receiving", row.patient_id, row.origin)
        _insert(conn, new, row.site, row.study_uid, now)
        _carry(conn, row.row_key, new, carry)
        if not new.stored:
            raise WrongUse(f"entry {key} has no files left: discard it and have the study sent again")
        digest = digest_of((sop_uid, sha256) for sop_uid, (sha256, _) in new.stored.items())
        move(conn, new.row_key, "complete", digest=digest, completed_at=now)
        return new.row_key


def withdraw(self: Ledger, row_key: str, carry: Callable[[str, str], str | None] | None) -> str | None:
    """What was released of a done version must not be used again: its commitment opens to nothing from now on, so that
    the next dataset run leaves it out. With `carry`, a new complete version takes its place, with its files, linked and
    made durable as for `release`; returns its row key. Without, or when they are purged, the study stays withdrawn
    (held as `privacy`) until it is sent again."""
    now = time.time()
    with writing(self.engine) as conn:
        row = conn.execute(select(studies).where(studies.c.row_key == row_key)).one()
        conn.execute(update(studies).where(studies.c.row_key == row_key).values(salt=None, commitment=None))
        if not row.current:
            return None
        if carry is None or row.purged:
            hold(conn, "privacy", "its release broke the rules, and no original is left", row_key=row_key, now=now)
            conn.execute(update(studies).where(studies.c.row_key == row_key).values(current=0))
            return None
        new = _Study(secrets.token_hex(16), row.version + 1, "receiving", row.patient_id, row.origin)
        _insert(conn, new, row.site, row.study_uid, now)
        _carry(conn, row.row_key, new, carry)
        if len(new.stored) < row.n_files:
            raise WrongUse(f"originals of study version {row_key} went meanwhile; nothing was withdrawn: try again")
        digest = digest_of((sop_uid, sha256) for sop_uid, (sha256, _) in new.stored.items())
        move(conn, new.row_key, "complete", digest=digest, completed_at=now)
        return new.row_key


def _file(row_key: str, arrival: Arrival, path: str) -> dict[str, Any]:
    return {
        "row_key": row_key,
        "sop_uid": arrival.sop_uid,
        "series_uid": arrival.series_uid,
        "sha256": arrival.sha256,
        "size": arrival.size,
        "path": path,
        "geometry": arrival.geometry,
    }


def _store(conn: Connection, study: _Study, now: float) -> None:
    conn.execute(insert(files), study.fresh)
    values: dict[str, Any] = {"n_files": studies.c.n_files + len(study.fresh), "last_received": now, "waiting": None}
    if study.declared:
        values["declared"] = study.declared
    conn.execute(update(studies).where(studies.c.row_key == study.row_key).values(**values))
    study.fresh = []
