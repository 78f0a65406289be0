"""After a crash: what dead sessions left in the journal, and what the spool holds and the ledger does not know."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

from tasks.ledger import Ledger
from tasks.receive.intake import Intake, Outcome
from tasks.receive.purge import purge
from tasks.receive.spool import site_and_origin


def recover(ledger: Ledger, spool: bool = True) -> list[Outcome]:
    """File what dead sessions left in the journal and, with `spool`, files in the spool that the ledger does not know
    (it was restored from a backup). What was given up and is still there goes first. Cheap when there is nothing; a
    session that is alive is left alone."""
    outcomes: list[Outcome] = []
    if spool:
        purge(ledger)
    for session in sorted((ledger.identified / "incoming").glob("[!.]*")):
        lock = _lock_of_dead(session)
        if lock is None:
            continue
        try:
            outcomes += _refile(ledger, sorted(session.glob("*/*.dcm")))
            shutil.rmtree(session, ignore_errors=True)
        finally:
            os.close(lock)
    folders = {folder.name: folder for folder in (ledger.identified / "spool").glob("*/*")} if spool else {}
    for row_key, names in sorted(ledger.unknown_files(folders, _names).items() if folders else ()):
        outcomes += _refile(ledger, [folders[row_key] / name for name in names])
        if ledger.get(row_key) is None:  # row keys are random: nobody will fill this folder again
            shutil.rmtree(folders[row_key], ignore_errors=True)
    return outcomes


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.glob("*.dcm")]


def _refile(ledger: Ledger, paths: list[Path], chunk: int = 64) -> list[Outcome]:
    outcomes: list[Outcome] = []
    with Intake(ledger) as intake:
        for start in range(0, len(paths), chunk):
            received = []
            for path in paths[start : start + chunk]:
                site, origin = site_and_origin(next(part.name for part in path.parents if "@" in part.name))
                received.append(intake.take(path, site, origin))
            intake.sync(received)
            outcomes += intake.file(received)
    return outcomes


def _lock_of_dead(session: Path) -> int | None:
    """The lock of a session whose process has ended, or None while it lives."""
    try:
        lock = os.open(session / ".lock", os.O_CREAT | os.O_RDWR, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return lock
    except OSError:
        os.close(lock)
        return None
