"""Bytes into the identified zone: journal, judge, spool, ledger. Everything that is received comes through here.

    write  → incoming/<session>/<door>/<random>.dcm   fsynced: from here on a file can be acknowledged
    judge  → what it is, or the reason why it cannot be used
    file   → linked into spool/<door>/<row key>/, folder fsynced, ledger row committed; only then leaves `incoming`

A door is `<origin>@<site>`. `incoming` is a journal: a session whose process died holds files that were acknowledged
and perhaps not filed, and `recover` files them. Names are random or digests, never what a sender wrote.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from urllib.parse import quote, unquote

from tasks.domain.errors import BadInput
from tasks.ledger import Arrival, Ledger
from tasks.receive.geometry import declared_files, geometry_of
from tasks.store.dicom import Header, check_header, read_header

ANNOTATIONS = (
    "1.2.840.10008.5.1.4.1.1.66.4",  # Segmentation
    "1.2.840.10008.5.1.4.1.1.481.3",  # RT Structure Set
    "1.2.840.10008.5.1.4.1.1.88.22",  # Enhanced SR
    "1.2.840.10008.5.1.4.1.1.88.33",  # Comprehensive SR
    "1.2.840.10008.5.1.4.1.1.88.34",  # Comprehensive 3D SR
)
"""SOP classes of what readers draw and measure (TID 1500 is one of the SR): they go to inbox/annotations."""
IN_MEMORY = 64 << 20
"""Files up to this size (bytes) are read once and judged in memory."""
SYNC_THREADS = 8
NO_HARD_LINKS = (errno.EPERM, errno.EXDEV, errno.EOPNOTSUPP, errno.EMLINK)


@dataclass(frozen=True)
class Received:
    """One file in the journal, judged: an arrival, or the reason (and a sentence without PHI) why it is none."""

    path: Path
    sha256: str
    site: str
    origin: str
    arrival: Arrival | None
    reason: str = ""
    detail: str = ""
    annotation: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of one input: accepted | duplicate | quarantined | annotation | skipped.

    row_key: the study version, when there is one. key: of the quarantine entry."""

    outcome: str
    row_key: str | None = None
    reason: str = ""
    detail: str = ""
    key: str | None = None


def door_of(site: str, origin: str) -> str:
    return f"{origin}@{quote(site, safe='')}"


def site_and_origin(door: str) -> tuple[str, str]:
    origin, _, site = door.partition("@")
    return unquote(site), origin


def judge(path: Path, data: bytes | None, sha256: str, size: int, site: str, origin: str) -> Received:
    """What a file is by its header: `data`, its bytes, or read from `path`. Never raises for a bad file."""
    try:
        header = read_header(path if data is None else data)
        reason = check_header(header)
        if reason is not None:
            return Received(path, sha256, site, origin, None, reason)
        arrival = _arrival(header, sha256, size, site, origin)
        return Received(path, sha256, site, origin, arrival, annotation=header.sop_class in ANNOTATIONS)
    except BadInput as error:
        return Received(path, sha256, site, origin, None, error.reason, error.detail)
    except (ValueError, ArithmeticError, LookupError, RecursionError):
        return Received(path, sha256, site, origin, None, "malformed", "the header does not parse as DICOM")


def _arrival(header: Header, sha256: str, size: int, site: str, origin: str) -> Arrival:
    return Arrival(
        site=site,
        origin=origin,
        study_uid=header.study_uid,
        patient_id=header.patient_id,
        series_uid=header.series_uid,
        sop_uid=header.sop_uid,
        sha256=sha256,
        size=size,
        geometry=geometry_of(header),
        declared=declared_files(header),
    )


class Intake:
    """One process's session: `with Intake(ledger) as intake`. Threads may `write` at once; one at a time may `file`."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.zone = ledger.identified
        self.session = self.zone / "incoming" / secrets.token_hex(8)
        self._doors: set[Path] = set()
        self._lock: int | None = None
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> Intake:
        hidden = self.session.with_name(f".{self.session.name}")  # not seen by `recover` until it is locked
        _private(hidden)
        self._lock = os.open(hidden / ".lock", os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)  # let go by the kernel when this process ends, however it ends
        os.rename(hidden, self.session)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown()
        if not any(self.session.rglob("*.dcm")):
            shutil.rmtree(self.session, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)

    # ---- into the journal -------------------------------------------------------------------------------------------

    def write(self, data: bytes | Sequence[bytes], site: str, origin: str, durable: bool = True) -> Received:
        """Keep the bytes of one file. With `durable` they are on disk on return; else when `sync` was called."""
        parts = [data] if isinstance(data, bytes) else list(data)
        path = self._place(site, origin)
        partial = f"{path}.part"
        handle = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        digest, size = hashlib.sha256(), 0
        try:
            for part in parts:
                digest.update(part)
                size += len(part)
                view = memoryview(part)
                while view:
                    view = view[os.write(handle, view) :]
            os.rename(partial, path)
            if durable:
                os.fsync(handle)  # after the rename, so that one commit of the file system's journal holds both
                _sync_folder(path.parent)
        except OSError:
            for name in (partial, path):
                with suppress(FileNotFoundError):
                    os.unlink(name)
            raise
        finally:
            os.close(handle)
        whole = parts[0] if len(parts) == 1 else b"".join(parts)
        return judge(path, whole, digest.hexdigest(), size, site, origin)

    def take(self, source: Path, site: str, origin: str, move: bool = False) -> Received:
        """Copy (or move) one file into the journal. On disk when `sync` was called. Raises OSError of the source."""
        size = source.stat().st_size
        if not move and size <= IN_MEMORY:
            return self.write(source.read_bytes(), site, origin, durable=False)
        path = self._place(site, origin)
        if not move or not _renamed(source, path):
            partial = path.with_name(f"{path.name}.part")
            try:
                shutil.copyfile(source, partial)
                os.rename(partial, path)
            finally:
                partial.unlink(missing_ok=True)
            if move:
                _sync_file(path)
                source.unlink()
        path.chmod(0o600)
        return self.adopt(path, site, origin)

    def adopt(self, path: Path, site: str, origin: str) -> Received:
        """Judge a file that is in the journal."""
        size = path.stat().st_size
        if size <= IN_MEMORY:
            data = path.read_bytes()
            return judge(path, data, hashlib.sha256(data).hexdigest(), size, site, origin)
        with open(path, "rb") as handle:
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
        return judge(path, None, digest, size, site, origin)

    def sync(self, received: Sequence[Received]) -> None:
        """Make the bytes of these files durable, several at once: the file system groups their commits."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(SYNC_THREADS)
        for _ in self._pool.map(_sync_file, [item.path for item in received]):
            pass

    def _place(self, site: str, origin: str) -> Path:
        folder = self.session / door_of(site, origin)
        if folder not in self._doors:
            _private(folder)
            self._doors.add(folder)
        return folder / f"{secrets.token_hex(12)}.dcm"

    # ---- out of the journal -----------------------------------------------------------------------------------------

    def file(self, received: Sequence[Received]) -> list[Outcome]:
        """File journaled, durable files: into the spool and the ledger, or the quarantine. One outcome each, in order.

        Bytes leave the journal only after the ledger has committed; on an error all of them are still there."""
        outcomes: list[Outcome | None] = [None] * len(received)
        images = [n for n, item in enumerate(received) if item.arrival is not None and not item.annotation]
        arrivals = [item.arrival for n in images if (item := received[n]).arrival is not None]
        spool = _Spool(self.zone, [received[n] for n in images])
        verdicts = self.ledger.receive(arrivals, spool) if arrivals else []
        for n, verdict in zip(images, verdicts, strict=True):
            if verdict.outcome == "refused":
                outcomes[n] = self._hold(received[n], verdict.reason, verdict.detail, verdict.row_key)
            else:
                outcomes[n] = Outcome(verdict.outcome, verdict.row_key)
        for n, item in enumerate(received):
            if item.annotation:
                outcomes[n] = self._annotation(item)
            elif item.reason == "dicomdir":
                outcomes[n] = Outcome("skipped", reason="dicomdir", detail="the index of a medium, no image")
            elif item.arrival is None:
                outcomes[n] = self._hold(item, item.reason, item.detail)
        for item in received:
            os.unlink(item.path)
        return [outcome for outcome in outcomes if outcome is not None]

    def _hold(self, item: Received, reason: str, detail: str, row_key: str | None = None) -> Outcome:
        def place(key: str) -> str:
            folder = self.zone / "quarantine" / key
            _private(folder)
            _link(item.path, folder / "original")
            _sync_folder(folder)
            _sync_folder(folder.parent)
            return self.ledger.relative(folder / "original")

        arrival = item.arrival
        key, fresh = self.ledger.hold_file(
            reason,
            detail,
            item.sha256,
            place,
            site=item.site,
            origin=item.origin,
            study_uid=arrival.study_uid if arrival else None,
            patient_id=arrival.patient_id if arrival else None,
        )
        return Outcome("quarantined" if fresh else "duplicate", row_key, reason, detail, key)

    def _annotation(self, item: Received) -> Outcome:
        folder = self.zone / "inbox" / "annotations"
        _private(folder)
        target = folder / f"{item.sha256[:32]}.dcm"
        known = target.exists()
        _link(item.path, target)
        _sync_folder(folder)
        return Outcome("duplicate" if known else "annotation")


@dataclass
class _Spool:
    """tasks.ledger.Spool over hard links: what is linked is in the spool and, until the commit, in the journal."""

    zone: Path
    received: Sequence[Received]
    _folders: set[str] = field(default_factory=set)

    def put(self, index: int, row_key: str) -> str:
        item = self.received[index]
        assert item.arrival is not None
        relative = self._relative(door_of(item.site, item.origin), row_key)
        name = hashlib.sha256(item.arrival.sop_uid.encode()).hexdigest()[:32] + ".dcm"
        _link(item.path, self.zone / relative / name)
        return f"{relative}/{name}"

    def carry(self, path: str, row_key: str) -> str | None:
        source = self.zone / path
        relative = self._relative(source.parent.parent.name, row_key)
        try:
            _link(source, self.zone / relative / source.name)
        except FileNotFoundError:
            return None
        return f"{relative}/{source.name}"

    def same(self, index: int, path: str) -> bool:
        """The same dataset under another preamble or file meta, as when a file is sent again by another node."""
        stored = self.zone / path
        try:
            return _dataset(self.received[index].path) == _dataset(stored)
        except (BadInput, OSError):
            return False

    def sync(self) -> None:
        for relative in self._folders:
            _sync_folder(self.zone / relative)
        for parent in {relative.rpartition("/")[0] for relative in self._folders}:
            _sync_folder(self.zone / parent)

    def _relative(self, door: str, row_key: str) -> str:
        """The folder of a version, made; relative to the zone."""
        relative = f"spool/{door}/{row_key}"
        if relative not in self._folders:
            _private(self.zone / relative)
            self._folders.add(relative)
        return relative


def carrier(zone: Path) -> _Spool:
    """A spool that only carries files from one version to the next (release from quarantine)."""
    return _Spool(zone, ())


# ---- recovery -------------------------------------------------------------------------------------------------------


def recover(ledger: Ledger, spool: bool = True) -> list[Outcome]:
    """File what dead sessions left in the journal and, with `spool`, files in the spool that the ledger does not know
    (it was restored from a backup). Cheap when there is nothing; a session that is alive is left alone."""
    outcomes: list[Outcome] = []
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


# ---- files ----------------------------------------------------------------------------------------------------------


def _private(folder: Path) -> None:
    """Make a folder and its parents, mode 0700."""
    if not folder.exists():
        _private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def _link(source: Path, target: Path) -> None:
    """Give the bytes a second name (a copy where the file system has no hard links); what had the name gives way."""
    try:
        os.link(source, target)
    except FileExistsError:
        target.unlink(missing_ok=True)
        os.link(source, target)
    except OSError as error:
        if error.errno not in NO_HARD_LINKS:
            raise
        shutil.copyfile(source, target)
        target.chmod(0o600)
        _sync_file(target)


def _renamed(source: Path, target: Path) -> bool:
    try:
        os.rename(source, target)
    except OSError:
        return False
    return True


def _sync_file(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _dataset(path: Path) -> tuple[str, str]:
    """Transfer syntax, and SHA-256 of what follows the file meta."""
    header = read_header(path)
    with open(path, "rb") as handle:
        handle.seek(header.dataset)
        return header.transfer_syntax, hashlib.file_digest(handle, "sha256").hexdigest()
