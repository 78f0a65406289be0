"""The bytes that the ledger has given up, removed."""

from __future__ import annotations

from pathlib import Path

from tasks.ledger import Ledger


def purge(ledger: Ledger) -> int:
    """Remove the bytes that the ledger lists for purging (after a decision, a retention or an erasure); returns how
    many files went. May be interrupted and called again."""
    paths = ledger.pending_purges()
    for path in paths:
        path.unlink(missing_ok=True)
    for folder in {path.parent for path in paths}:
        _remove_empty(folder, ledger.identified)
    if paths:
        ledger.purged(paths)
    return len(paths)


def _remove_empty(folder: Path, top: Path) -> None:
    """Remove a folder and those above it that have become empty, below spool/ or quarantine/."""
    while folder.is_relative_to(top) and len(folder.relative_to(top).parts) > 1:
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent
