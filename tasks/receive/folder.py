"""Folders in: a tree given as a whole (`ingest`), and the watched inbox (`watch_once`). Zip media are opened."""

from __future__ import annotations

import fcntl
import lzma
import os
import struct
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tasks.domain.errors import WrongUse
from tasks.ledger import Ledger
from tasks.receive.disk import enough
from tasks.receive.intake import Intake, Outcome
from tasks.receive.judge import Received
from tasks.receive.params import Params
from tasks.receive.recover import recover

CHUNK = 64
"""Files that share one ledger transaction."""
CHUNK_BYTES = 64 << 20
IN_FLIGHT = (".part", ".partial", ".tmp", ".filepart", ".crdownload")
"""Endings under which copying programs write before they rename; so are names that start with a dot."""
Progress = Callable[[int, int], None]
Stamp = tuple[int, int, int, int]
BROKEN = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, RuntimeError, ValueError)
"""What zipfile and its decompressors raise over archives that were cut or damaged."""


@dataclass
class Summary:
    """What became of each input of a folder. quarantined and skipped: reason → how many."""

    files: int = 0
    accepted: int = 0
    duplicates: int = 0
    annotations: int = 0
    quarantined: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    held: set[str] = field(default_factory=set)
    """Reasons for which something is in quarantine, also when it was there before."""
    row_keys: set[str] = field(default_factory=set)
    """Study versions that hold a file of the folder, added now or known before."""

    def add(self, outcome: Outcome) -> None:
        self.files += 1
        if outcome.row_key is not None:
            self.row_keys.add(outcome.row_key)
        if outcome.outcome == "accepted":
            self.accepted += 1
        elif outcome.outcome == "duplicate":
            self.duplicates += 1
            self.held |= {outcome.reason} - {""}
        elif outcome.outcome == "annotation":
            self.annotations += 1
        elif outcome.outcome == "quarantined":
            self.quarantined[outcome.reason] += 1
            self.held.add(outcome.reason)
        else:
            self.skipped[outcome.reason] += 1


def accept(data: bytes | Path, ledger: Ledger, site: str, origin: str) -> Outcome:
    """Take one file in, given as bytes or by its path, which is left where it is."""
    with Intake(ledger) as intake:
        received = intake.take(data, site, origin) if isinstance(data, Path) else intake.write(data, site, origin)
        intake.sync([received])
        return intake.file([received])[0]


def ingest(
    src: Path,
    ledger: Ledger,
    site: str,
    origin: str,
    params: Params,
    move: bool = False,
    progress: Progress | None = None,
) -> Summary:
    """Take a file or a whole tree in; one outcome for each file (and each member of a zip), never an exception for a
    bad one. `move` empties the tree. What an earlier session left unfiled is filed first."""
    if not src.exists():
        raise WrongUse("there is nothing at the path to ingest")
    enough(ledger.identified, params.disk_reserve_mb)
    recover(ledger)
    paths = [src] if src.is_file() else list(walk(src))
    return _take_all(paths, ledger, site, origin, params, move, progress)


def watch_once(inbox: Path, ledger: Ledger, site: str, origin: str, params: Params) -> Summary:
    """One look at the watched inbox: files that are finished are moved in, empty folders go; the rest waits.

    A file is finished when it has not changed for `stable_seconds` and no process has it open for writing. The folder
    `annotations` is not read: `annotate` does."""
    inbox.mkdir(mode=0o700, parents=True, exist_ok=True)
    enough(ledger.identified, params.disk_reserve_mb)
    recover(ledger, spool=False)
    keep_out = inbox / "annotations"
    paths = [path for path in walk(inbox) if keep_out not in path.parents and not in_flight(path)]
    paths = [path for path in paths if unchanged(path, params.stable_seconds)]
    summary = _take_all(paths, ledger, site, origin, params, True, None)
    for folder in sorted((path for path in inbox.rglob("*") if path.is_dir()), reverse=True):
        if folder == keep_out or keep_out in folder.parents:
            continue
        if time.time() - _changed(folder) > params.stable_seconds:
            try:
                folder.rmdir()
            except OSError:
                continue  # it holds something that waits
    return summary


def _take_all(
    paths: list[Path],
    ledger: Ledger,
    site: str,
    origin: str,
    params: Params,
    move: bool,
    progress: Progress | None,
) -> Summary:
    summary = Summary()
    with Intake(ledger) as intake:
        chunk: list[Received] = []
        spent = 0

        def flush() -> None:
            nonlocal spent
            intake.sync(chunk)
            for outcome in intake.file(chunk):
                summary.add(outcome)
            chunk.clear()
            spent = 0

        opened: list[tuple[Path, Stamp]] = []
        for number, path in enumerate(paths, start=1):
            stamp = _stamp(path) if move and _is_zip(path) else None
            for item in _open(path, intake, site, origin, params, move):
                if isinstance(item, Outcome):
                    summary.add(item)
                    stamp = None  # it could not be read to its end
                    continue
                chunk.append(item)
                spent += item.arrival.size if item.arrival else 0
                if len(chunk) >= CHUNK or spent >= CHUNK_BYTES:
                    flush()
            if stamp is not None:
                opened.append((path, stamp))
            if number % (8 * CHUNK) == 0:
                enough(ledger.identified, params.disk_reserve_mb)
            if progress is not None and (number % CHUNK == 0 or number == len(paths)):
                progress(number, len(paths))
        flush()
        for path, stamp in opened:
            if _stamp(path) == stamp:
                path.unlink()  # all of its members are in the ledger or in quarantine
    return summary


def _stamp(path: Path) -> Stamp | None:
    """What tells a file from another that took its name."""
    try:
        said = path.stat()
    except OSError:
        return None
    return said.st_dev, said.st_ino, said.st_size, said.st_mtime_ns


def _open(
    path: Path, intake: Intake, site: str, origin: str, params: Params, move: bool
) -> Iterator[Received | Outcome]:
    """One path as what is in it: itself, or the members of a zip; or a reason why it was skipped."""
    try:
        if not path.is_file() or (move and path.is_symlink()):
            yield Outcome("skipped", reason="not_a_file")
        elif _is_zip(path):
            yield from _members(path, intake, site, origin, params)
        else:
            yield intake.take(path, site, origin, move)
    except FileNotFoundError:
        yield Outcome("skipped", reason="gone")
    except PermissionError:
        yield Outcome("skipped", reason="unreadable")


def _members(path: Path, intake: Intake, site: str, origin: str, params: Params) -> Iterator[Received | Outcome]:
    """The members of a zip medium, each a file of its own. An archive that is broken, locked or holds what is too large
    to be taken is held as a whole beside what could be taken of it: no byte that came is lost."""
    limit = params.max_member_mb * 1e6
    reason, detail = "", ""
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.is_dir():
                    continue
                if member.flag_bits & 1:
                    reason, detail = "bad_archive", "the zip is encrypted"
                elif member.file_size > limit:
                    reason, detail = "archive_member_too_large", "raise receive.max_member_mb, release this entry"
                else:
                    with archive.open(member) as handle:
                        yield intake.stream(handle, site, origin)
    except BROKEN:
        reason, detail = "bad_archive", "the zip cannot be read to its end"
    except OSError as error:
        if error.errno is not None:
            raise
        reason, detail = "bad_archive", "the zip cannot be read to its end"  # said by bz2, not by the system
    if reason:
        received = intake.take(path, site, origin)
        yield Received(received.path, received.sha256, site, origin, None, reason, detail)


def _is_zip(path: Path) -> bool:
    """A zip by its first bytes: a medium packed as one file."""
    try:
        with open(path, "rb") as handle:
            return handle.read(4) == b"PK\x03\x04"
    except OSError:
        return False


def walk(src: Path) -> Iterator[Path]:
    """Files below `src`, in a fixed order; links to folders are not followed."""
    for folder, folders, names in os.walk(src):
        folders.sort()
        for name in sorted(names):
            yield Path(folder) / name


def in_flight(path: Path) -> bool:
    """Is it named as what a copying program has not finished, or hidden?"""
    return path.name.startswith(".") or path.suffix.lower() in IN_FLIGHT


def unchanged(path: Path, seconds: float) -> bool:
    """It is there, has not changed for so long, and no process has it open for writing."""
    try:
        age = time.time() - path.stat().st_mtime
    except OSError:
        return False
    # A time in the future is a clock that was set, or a copy that kept another machine's: not a file being written.
    return abs(age) >= seconds and not _being_written(path)


def _being_written(path: Path) -> bool:
    """Does any process of this machine have the file open for writing? Linux refuses a read lease then."""
    if not hasattr(fcntl, "F_SETLEASE"):
        return False
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        return False
    except BlockingIOError:
        return True
    except OSError:
        return False  # the file is another user's, or the file system has no leases: its age has to do
    finally:
        os.close(handle)


def _changed(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:
        return time.time()
