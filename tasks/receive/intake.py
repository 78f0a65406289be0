"""Bytes into the identified zone: journal, judge, spool, ledger. Everything that is received comes through here.

    write  → incoming/<session>/<door>/<random>.dcm   fsynced: from here on a file can be acknowledged
    judge  → what it is, or the reason why it cannot be used
    file   → linked into spool/<door>/<row key>/, folder fsynced, ledger row committed; only then leaves `incoming`

`incoming` is a journal: a session whose process died holds files that were acknowledged and perhaps not filed, and
`recover` files them. Names are random or digests, never what a sender wrote.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from tasks.ledger import Ledger
from tasks.receive.disk import link, private, renamed, sync_file, sync_folder
from tasks.receive.judge import Received, judge
from tasks.receive.spool import Spool, door_of

IN_MEMORY = 64 << 20
"""Files up to this size (bytes) are read once and judged in memory."""
BLOCK = 1 << 20
SYNC_THREADS = 8
Parts = Sequence[bytes | bytearray]


@dataclass(frozen=True)
class Outcome:
    """What became of one input: accepted | duplicate | quarantined | annotation | skipped.

    row_key: the study version, when there is one. key: of the quarantine entry."""

    outcome: str
    row_key: str | None = None
    reason: str = ""
    detail: str = ""
    key: str | None = None


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
        private(hidden)
        self._lock = os.open(hidden / ".lock", os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)  # let go by the kernel when this process ends, however it ends
        os.rename(hidden, self.session)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown()
        # Only what is empty: a thread of a sender that is still there may be writing.
        for folder in sorted((path for path in self.session.rglob("*") if path.is_dir()), reverse=True):
            with suppress(OSError):
                folder.rmdir()
        if [path.name for path in self.session.iterdir()] == [".lock"]:
            (self.session / ".lock").unlink()
            with suppress(OSError):
                self.session.rmdir()
        if self._lock is not None:
            os.close(self._lock)

    # ---- into the journal -------------------------------------------------------------------------------------------

    def write(
        self, data: bytes | Sequence[bytes | bytearray], site: str, origin: str, durable: bool = True
    ) -> Received:
        """Keep the bytes of one file. With `durable` they are on disk on return; else when `sync` was called."""
        parts: Parts = [data] if isinstance(data, bytes) else list(data)
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
                sync_folder(path.parent)
        except OSError:
            for name in (partial, path):
                with suppress(FileNotFoundError):
                    os.unlink(name)
            raise
        finally:
            os.close(handle)
        whole = data if isinstance(data, bytes) else b"".join(parts)
        return judge(path, whole, digest.hexdigest(), size, site, origin)

    def take(self, source: Path, site: str, origin: str, move: bool = False) -> Received:
        """Copy (or move) one file into the journal. On disk when `sync` was called. Raises OSError of the source."""
        size = source.stat().st_size
        if not move and size <= IN_MEMORY:
            return self.write(source.read_bytes(), site, origin, durable=False)
        path = self._place(site, origin)
        if not move or not renamed(source, path):
            partial = path.with_name(f"{path.name}.part")
            try:
                shutil.copyfile(source, partial)
                os.rename(partial, path)
            finally:
                partial.unlink(missing_ok=True)
            if move:
                sync_file(path)
                source.unlink()
        path.chmod(0o600)
        return self.adopt(path, site, origin)

    def stream(self, source: IO[bytes], site: str, origin: str) -> Received:
        """Keep what can be read from `source`, however long it is. On disk when `sync` was called."""
        start = source.read(IN_MEMORY)
        if len(start) < IN_MEMORY:
            return self.write(start, site, origin, durable=False)
        path = self._place(site, origin)
        partial = path.with_name(f"{path.name}.part")
        try:
            with open(partial, "xb") as handle:
                handle.write(start)
                shutil.copyfileobj(source, handle, BLOCK)
            partial.chmod(0o600)
            os.rename(partial, path)
        finally:
            partial.unlink(missing_ok=True)
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
        for _ in self._pool.map(sync_file, [item.path for item in received]):
            pass

    def _place(self, site: str, origin: str) -> Path:
        folder = self.session / door_of(site, origin)
        if folder not in self._doors:
            private(folder)
            self._doors.add(folder)
        return folder / f"{secrets.token_hex(12)}.dcm"

    # ---- out of the journal -----------------------------------------------------------------------------------------

    def file(self, received: Sequence[Received]) -> list[Outcome]:
        """File journaled, durable files: into the spool and the ledger, or the quarantine. One outcome each, in order.

        Bytes leave the journal only after the ledger has committed; on an error all of them are still there."""
        outcomes: list[Outcome | None] = [None] * len(received)
        images = [n for n, item in enumerate(received) if item.arrival is not None and not item.annotation]
        arrivals = [item.arrival for n in images if (item := received[n]).arrival is not None]
        spool = Spool(self.zone, [received[n] for n in images])
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
            private(folder)
            link(item.path, folder / "original")
            sync_folder(folder)
            sync_folder(folder.parent)
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
        folder = self.zone / "inbox" / "annotations" / door_of(item.site, item.origin)
        private(folder)
        target = folder / f"{item.sha256[:32]}.dcm"
        known = target.exists()
        link(item.path, target)
        sync_folder(folder)
        return Outcome("duplicate" if known else "annotation")
