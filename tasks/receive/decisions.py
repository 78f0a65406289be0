"""What a person decides about quarantine: list, show, release, discard. Each decision keeps who and why."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tasks.domain.errors import BadInput, Refused, WrongUse
from tasks.domain.params import load
from tasks.ledger import NEVER_RELEASED, Entry, Ledger
from tasks.receive.folder import ingest
from tasks.receive.intake import Intake
from tasks.receive.params import Params
from tasks.receive.purge import purge
from tasks.receive.spool import carrier
from tasks.store.checks import checked_header

ARCHIVES = frozenset({"bad_archive", "archive_member_too_large"})
"""Reasons for which a zip is held as a whole."""


def show(ledger: Ledger, key: str) -> dict[str, Any]:
    """What is known about one entry, without PHI: what it is, why it is held, what could be done."""
    entry = ledger.quarantine_entry(key)
    study = ledger.get(entry.row_key) if entry.row_key else None
    path = entry.path
    return {
        "key": entry.key,
        "what": "study version" if entry.row_key else "file",
        "row_key": entry.row_key,
        "reason": entry.reason,
        "detail": entry.detail,
        "state": entry.state,
        "created": entry.created,
        "decided": entry.decided,
        "who": entry.who,
        "why": entry.why,
        "origin": entry.origin,
        "files": study.n_files if study else 1,
        "bytes": path.stat().st_size if path and path.exists() else None,
        "sha256": entry.sha256,
        "releasable": entry.state == "held" and _releasable(entry),
    }


def release(ledger: Ledger, key: str, who: str, why: str) -> str | None:
    """Let a held entry go, as a decision of a person; returns the row key of the study version that it is now part of.

    A study version comes back complete, as a new version with the same files. A file is taken in again: it must pass
    the checks by now, and bytes that stood against an earlier file of the same SOP UID stay refused."""
    entry = ledger.quarantine_entry(key)
    if entry.row_key is not None:
        return ledger.release(key, who, why, _carrying(ledger))
    if entry.reason in ARCHIVES and entry.path is not None and entry.path.exists():
        _open_again(ledger, entry, entry.path)
        ledger.release(key, who, why, lambda path, row_key: None)
        purge(ledger)
        return None
    if not _releasable(entry) or entry.path is None:
        raise Refused(f"entry {key} ({entry.reason}) cannot be released: discard it and have it sent again")
    with Intake(ledger) as intake:
        received = intake.take(entry.path, entry.site or "", entry.origin or "")
        intake.sync([received])
        outcome = intake.file([received])[0]
    if outcome.row_key is None or outcome.outcome not in ("accepted", "duplicate") or outcome.reason:
        raise Refused(f"entry {key} is refused again: {outcome.reason or outcome.outcome}")
    ledger.release(key, who, why, lambda path, row_key: None)
    purge(ledger)
    return outcome.row_key


def withdraw(ledger: Ledger, row_key: str, again: bool) -> str | None:
    """What was released of a version counts for nothing from now on. `again`: its originals become a new version, to be
    released by today's rules; returns its row key. (The archives are the caller's to remove.)"""
    return ledger.withdraw(row_key, _carrying(ledger) if again else None)


def _carrying(ledger: Ledger) -> Callable[[str, str], str | None]:
    """Links files into the folder of another version, durably."""
    spool = carrier(ledger.identified)

    def carry(path: str, row_key: str) -> str | None:
        carried = spool.carry(path, row_key)
        spool.sync()
        return carried

    return carry


def _open_again(ledger: Ledger, entry: Entry, path: Path) -> None:
    """The members of an archive, under the parameters as they are now; refused when it would be held again."""
    summary = ingest(path, ledger, entry.site or "", entry.origin or "", load("receive", Params))
    if any(reason in ARCHIVES for reason in summary.held):
        raise Refused(f"entry {entry.key} is refused again: {entry.reason}")


def discard(ledger: Ledger, key: str, who: str, why: str) -> int:
    """Give a held entry up and remove its bytes; returns how many files went. The decision stays in the ledger."""
    paths = ledger.discard(key, who, why)
    purge(ledger)
    return len(paths)


def purge_originals(ledger: Ledger, row_key: str) -> int:
    """Remove the originals of a version that is done (retention): it stays as released and cannot be made again."""
    study = ledger.get(row_key)
    if study is None or not ledger.mark_purged(row_key):
        raise WrongUse(f"study version {row_key} is not done: its originals are still needed")
    purge(ledger)
    return len(study.files)


def retain(ledger: Ledger, keep_days: float | None, now: float | None = None) -> int:
    """Retention: remove the originals of versions that are done and came more than `keep_days` ago; how many."""
    if keep_days is None:
        return 0
    old = ledger.done_before((time.time() if now is None else now) - keep_days * 86400)
    gone = sum(ledger.mark_purged(row_key) for row_key in old)  # not of one that was erased meanwhile
    purge(ledger)
    return gone


def _releasable(entry: Entry) -> bool:
    if entry.reason in NEVER_RELEASED:
        return False
    if entry.row_key is not None:
        return True
    if entry.path is None or not entry.path.exists():
        return False
    if entry.reason in ARCHIVES:
        return True
    try:
        checked_header(entry.path)
    except BadInput:
        return False
    return True
