"""Whole files or none: written beside their place, fsynced, renamed. Their times say nothing.

Outside the identified zone a file's time would pair a pseudonymous study with the real day on which it came, so every
file written here carries a time that follows from its content (`settle_time`). It may not be one time for all: DVC
takes a file with the same inode, size and time for the same file, and a new file often gets the inode of the old.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FIXED_TIME = 315532800
"""1980-01-01T00:00:00Z, the earliest time that a zip entry can hold."""
SPREAD_NS = 10**17
"""Times of files lie within this of FIXED_TIME: about three years."""


def settle_time(path: Path) -> None:
    """Give `path` a time that follows from its content and from nothing else."""
    with open(path, "rb") as handle:
        digest = hashlib.file_digest(handle, lambda: hashlib.blake2b(digest_size=8)).digest()
    time_ns = FIXED_TIME * 10**9 + int.from_bytes(digest, "big") % SPREAD_NS
    os.utime(path, ns=(time_ns, time_ns))


@contextmanager
def replacing(path: Path, mode: int | None = None) -> Iterator[Path]:
    """Yield a temporary path in the same folder; on success fsync it, settle its time and rename it over `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield partial
        if mode is not None:
            partial.chmod(mode)
        with open(partial, "rb") as handle:
            os.fsync(handle.fileno())
        settle_time(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes, mode: int | None = None) -> None:
    with replacing(path, mode) as partial:
        partial.write_bytes(data)


def write_text(path: Path, text: str, mode: int | None = None) -> None:
    write_bytes(path, text.encode("utf-8"), mode)


def write_json(path: Path, value: Any, mode: int | None = None) -> None:
    """Sorted keys, so that the same value is the same bytes; NaN is refused."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n", mode)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
