"""Annotations into data/imports: a folder by hand (`osteoflow annotate`), or what others sent and put into the inbox.

What came by C-STORE lies below inbox/annotations/<door>/, so that its patients are keyed by the site of the door and a
phantom's mask never becomes a hospital's. What cannot be taken goes to the quarantine with its reason; nothing is read
twice, and nothing that comes while an import runs is lost.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flows.policy import LAST_LABEL
from tasks.annotate import intake
from tasks.domain.errors import BadInput
from tasks.domain.settings import Settings
from tasks.keys import Keys
from tasks.ledger import Ledger
from tasks.receive.disk import link, private, sync_folder
from tasks.receive.folder import in_flight, unchanged, walk
from tasks.receive.spool import site_and_origin
from tasks.store.dicom import read_header
from tasks.store.digests import sha256_file

log = logging.getLogger("osteoflow.annotations")

REFUSED = "annotation_refused"
"""Slug of the quarantine; the detail says file, row, column and reason."""
DOORS = ("hospital@", "phantom@")


def take(src: Path, origin: str = "hospital", site: str | None = None, partial: bool = False) -> dict[str, Any]:
    """Import a folder of clinical tables, masks and exports: pseudonymized and shifted with the images' keys."""
    settings = Settings().ensure()
    found = intake(
        src, keys=Keys.open(), site=site or settings.site, identified=settings.identified, origin=origin,
        partial=partial,
    ).as_dict()  # fmt: skip
    counts = found.pop("counts")
    if sum(counts.values()):
        Ledger.open().remember(LAST_LABEL, str(sum(counts.values())))
    return {"import": found["import"], "existing": found["existing"], **counts, "accepted": sum(counts.values()),
            "refused": found["refused"], "notes": found["notes"]}  # fmt: skip


def take_inbox(ledger: Ledger, stable_seconds: float, sent_seconds: float | None = None) -> int:
    """Import what lies in inbox/annotations and has not changed for `stable_seconds`; how many annotations came. What
    came through a door lies there whole, and need not be waited for longer than `sent_seconds`."""
    settings, taken = Settings().ensure(), 0
    inbox = settings.identified / "inbox" / "annotations"
    for folder, paths, site, origin in _doors(inbox, settings):
        seconds = stable_seconds if folder == inbox or sent_seconds is None else sent_seconds
        if not all(unchanged(path, seconds) for path in paths):
            continue  # a table and the masks that it names are one
        try:
            taken += _take(ledger, folder, [path for path in paths if not in_flight(path)], site, origin)
        except FileNotFoundError:
            log.info("a file of the inbox went away while it was read; looking again")
    return taken


def _take(ledger: Ledger, folder: Path, paths: list[Path], site: str, origin: str) -> int:
    if not paths:
        return 0
    identified = Settings().identified
    summary = intake(folder, keys=Keys.open(), site=site, identified=identified, origin=origin, only=frozenset(paths))
    fresh = 0 if summary.existing else sum(summary.counts.values())
    if fresh:
        ledger.remember(LAST_LABEL, str(fresh))
    for path in paths:  # what came meanwhile waits for the next look
        reasons = summary.left.get(path.relative_to(folder).as_posix())
        if reasons:
            _hold(ledger, path, "; ".join(reasons)[:500], site, origin)
        path.unlink(missing_ok=True)  # the import keeps a copy, the quarantine another name
    if summary.path is not None and not summary.existing:
        log.info("import %s: %s", summary.path.name, {k: n for k, n in summary.counts.items() if n})
    return fresh


def _doors(inbox: Path, settings: Settings) -> Iterator[tuple[Path, list[Path], str, str]]:
    """(folder, its files, site, origin) of each door that something came through, and of what was put in by hand."""
    if not inbox.is_dir():
        return
    doors = [path for path in sorted(inbox.iterdir()) if path.is_dir() and path.name.startswith(DOORS)]
    for folder in [inbox, *doors]:
        paths = [path for path in walk(folder) if path.is_file() and not path.is_symlink()]
        if folder == inbox:
            paths = [path for path in paths if not any(door in path.parents for door in doors)]
        if paths:
            whose = (settings.site, settings.origin) if folder == inbox else site_and_origin(folder.name)
            yield folder, paths, *whose


def _hold(ledger: Ledger, path: Path, detail: str, site: str, origin: str) -> None:
    identified = Settings().identified

    def place(key: str) -> str:
        folder = identified / "quarantine" / key
        private(folder)
        link(path, folder / "original")
        sync_folder(folder)
        sync_folder(folder.parent)
        return ledger.relative(folder / "original")

    try:
        header = read_header(path)
        whose = {"study_uid": header.study_uid or None, "patient_id": header.patient_id or None}
    except (BadInput, ValueError, LookupError, OSError):
        whose = {}
    ledger.hold_file(REFUSED, detail, sha256_file(path), place, site=site, origin=origin, **whose)
    log.warning("an annotation was refused: %s", detail)
