"""Batches: what a run of the dataset loop may read, decided once; and erasure, which takes a patient out of them.

A manifest holds commitments, HMAC-SHA256 under a random salt for each study version. With the salt a commitment proves
which study, version and digest it stands for; without it, after erasure, it says nothing. Functions of `Ledger`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, and_, delete, func, insert, or_, select, update

from tasks.domain.errors import WrongUse
from tasks.ledger.engine import reading, writing
from tasks.ledger.purges import to_purge
from tasks.ledger.studies import move
from tasks.ledger.tables import batches, files, quarantine, studies

if TYPE_CHECKING:
    from tasks.ledger.ledger import Ledger


def commitment_of(salt: bytes, site: str, study_uid: str, version: int, digest: str) -> str:
    """What a manifest says of one study version."""
    message = json.dumps([site, study_uid, version, digest], separators=(",", ":")).encode()
    return hmac.new(salt, message, hashlib.sha256).hexdigest()


def claim_batch(self: Ledger, owner: str, after: int = 0) -> str | None:
    """All complete, current studies → claimed, in a new numbered batch; its id, or None when nothing is new. `after`:
    the highest number of a manifest on disk, which a ledger restored from a backup may have forgotten.

    A batch whose manifest was not confirmed by `batch_written` (nor finished) is returned again instead of a new one:
    whoever claimed it died before writing.
    """
    now = time.time()
    with writing(self.engine) as conn:
        open_ = and_(batches.c.written_at.is_(None), batches.c.finished_at.is_(None))
        unwritten = conn.execute(select(batches.c.batch).where(open_).order_by(batches.c.number)).scalar()
        if unwritten is not None:
            conn.execute(update(batches).where(batches.c.batch == unwritten).values(owner=owner))
            return str(unwritten)
        ready = and_(studies.c.state == "complete", studies.c.current == 1)
        rows = conn.execute(select(studies).where(ready)).all()
        if not rows:
            return None
        number = max(conn.execute(select(func.max(batches.c.number))).scalar() or 0, after) + 1
        batch = f"batch-{number:06d}"
        conn.execute(insert(batches).values(batch=batch, number=number, owner=owner, claimed_at=now))
        for row in rows:
            salt = os.urandom(32)
            commitment = commitment_of(salt, row.site, row.study_uid, row.version, row.digest)
            move(conn, row.row_key, "claimed", batch=batch, salt=salt.hex(), commitment=commitment)
        return batch


def batch_written(self: Ledger, batch: str) -> None:
    """The manifest of `batch` is on disk: the next claim makes a new batch."""
    with writing(self.engine) as conn:
        _stamp(conn, batch, {"written_at": time.time()})


def finish_batch(self: Ledger, batch: str) -> None:
    """A dataset run that read `batch` has ended well: claimed → done. Idempotent."""
    with writing(self.engine) as conn:
        _stamp(conn, batch, {"finished_at": time.time()})
        claimed = and_(studies.c.batch == batch, studies.c.state == "claimed")
        conn.execute(update(studies).where(claimed).values(state="done", lease_owner=None, lease_until=None))


def batch_rows(self: Ledger, batch: str) -> list[dict[str, Any]]:
    """The manifest's rows: commitment, version, batch, origin; in the order of the commitments, which is random."""
    columns = (studies.c.commitment, studies.c.version, studies.c.batch, studies.c.origin)
    query = select(*columns).where(studies.c.batch == batch).order_by(studies.c.commitment)
    with reading(self.engine) as conn:
        return [dict(row._mapping) for row in conn.execute(query)]


def batch_ids(self: Ledger, unfinished: bool = False) -> list[str]:
    """All batches by number, or those that no run has finished."""
    query = select(batches.c.batch).order_by(batches.c.number)
    if unfinished:
        query = query.where(batches.c.finished_at.is_(None))
    with reading(self.engine) as conn:
        return [str(batch) for batch in conn.execute(query).scalars()]


@dataclass(frozen=True)
class Erased:
    """What an erasure took out of the ledger. `paths` are to be removed from the identified zone; they stay listed
    (`pending_purges`) until `purged` says that they are gone."""

    row_keys: tuple[str, ...]
    commitments: tuple[str, ...]
    batches: tuple[str, ...]
    quarantine: tuple[str, ...]
    paths: tuple[Path, ...] = field(repr=False)
    unnamed: int
    """Files in quarantine that name no patient (a zip that cannot be opened): his may be among them, and stay."""


def erase(
    self: Ledger,
    study_uid: str | None = None,
    *,
    patient_id: str | None = None,
    site: str | None = None,
    dry_run: bool = False,
) -> Erased:
    """Remove every row and salt of a study, or of a patient (at `site`, or at every site). `dry_run` only tells."""
    if (study_uid is None) == (patient_id is None):
        raise WrongUse("erase one study or one patient")
    column, value = ("study_uid", study_uid) if study_uid is not None else ("patient_id", patient_id)
    with writing(self.engine) as conn:
        theirs = studies.c[column] == value
        held = quarantine.c[column] == value
        nobody = and_(quarantine.c.row_key.is_(None), quarantine.c[column].is_(None), quarantine.c.state == "held")
        if site is not None:
            theirs, held = and_(theirs, studies.c.site == site), and_(held, quarantine.c.site == site)
            nobody = and_(nobody, quarantine.c.site == site)
        rows = conn.execute(select(studies).where(theirs).order_by(studies.c.row_key)).all()
        keys = [row.row_key for row in rows]
        held = or_(held, quarantine.c.row_key.in_(keys))
        entries = conn.execute(select(quarantine).where(held).order_by(quarantine.c.key)).all()
        paths = list(conn.execute(select(files.c.path).where(files.c.row_key.in_(keys))).scalars())
        paths = sorted({*paths, *(entry.path for entry in entries if entry.path)})
        unnamed = conn.execute(select(func.count()).select_from(quarantine).where(nobody)).scalar_one()
        if not dry_run:
            to_purge(conn, paths)
            conn.execute(delete(files).where(files.c.row_key.in_(keys)))
            conn.execute(delete(quarantine).where(held))
            conn.execute(delete(studies).where(studies.c.row_key.in_(keys)))
    if not dry_run:
        self.compact()
    return Erased(
        row_keys=tuple(keys),
        commitments=tuple(row.commitment for row in rows if row.commitment),
        batches=tuple(sorted({row.batch for row in rows if row.batch})),
        quarantine=tuple(entry.key for entry in entries),
        paths=tuple(self.identified / path for path in paths),
        unnamed=int(unnamed),
    )


def _stamp(conn: Connection, batch: str, values: dict[str, Any]) -> None:
    if conn.execute(update(batches).where(batches.c.batch == batch).values(**values)).rowcount != 1:
        raise WrongUse(f"the ledger knows no batch {batch}")
