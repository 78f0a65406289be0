"""Whole files or none: written beside their place, fsynced, renamed. Times are fixed.

Outside the identified zone a file's time would pair a pseudonymous study with the real day on which it came, so every
file written here carries FIXED_TIME.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FIXED_TIME = 315532800
"""1980-01-01T00:00:00Z, the earliest time that a zip entry can hold."""


@contextmanager
def replacing(path: Path, mode: int | None = None) -> Iterator[Path]:
    """Yield a temporary path in the same folder; on success fsync it, fix its time and rename it over `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield partial
        if mode is not None:
            partial.chmod(mode)
        with open(partial, "rb") as handle:
            os.fsync(handle.fileno())
        os.utime(partial, (FIXED_TIME, FIXED_TIME))
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
