"""Folders and links of the identified zone: private, durable, and working where hard links do not."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from tasks.domain.errors import Unavailable

NO_HARD_LINKS = (errno.EPERM, errno.EXDEV, errno.EOPNOTSUPP, errno.EMLINK)


def private(folder: Path) -> None:
    """Make a folder and its parents, mode 0700."""
    if not folder.exists():
        private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def link(source: Path, target: Path) -> None:
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
        sync_file(target)


def renamed(source: Path, target: Path) -> bool:
    try:
        os.rename(source, target)
    except OSError:
        return False
    return True


def sync_file(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def free_mb(place: Path) -> float:
    disk = os.statvfs(place)
    return disk.f_bavail * disk.f_frsize / 1e6


def enough(place: Path, reserve_mb: float) -> None:
    """Raise Unavailable when less than the reserve is free: what is offered stays where it is, and is taken later."""
    free = free_mb(place)
    if free < reserve_mb:
        raise Unavailable(
            f"{free:.0f} MB are free, {reserve_mb:.0f} MB are the reserve: nothing is taken in until then"
        )
