"""Looks for identifiers in every file of a workspace, through the containers that would hide them from a plain grep.

Git objects and zstd or zlib compressed containers are opened; SQLite, zip (stored), safetensors, HTML and logs are read
as they are. A needle of digits counts only where no digit stands beside it: eight digits of a birth date do occur by
chance within the 39 digits of a UID.
"""

from __future__ import annotations

import gzip
import re
import subprocess
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow.parquet as pq


def find(needles: Iterable[str], root: Path, outside: Path) -> list[tuple[str, str]]:
    """(file, needle) for each needle found in a file below `root` that is not below `outside`, or in its name."""
    pattern = _pattern(needles)
    found: set[tuple[str, str]] = set()
    for path in sorted(root.rglob("*")):
        if path.is_relative_to(outside) or path.is_dir() or path.is_symlink() or not path.is_file():
            continue
        name = path.relative_to(root).as_posix()
        for where, data in [(f"{name} (its name)", name.encode()), *((name, data) for data in contents(path))]:
            found |= {(where, hit.decode("utf-8", "replace")) for hit in set(pattern.findall(data))}
    for hit in set(pattern.findall(_git(root))):
        found.add((".git (objects)", hit.decode("utf-8", "replace")))
    return sorted(found)


def contents(path: Path) -> Iterator[bytes]:
    """The bytes of a file, and those of what is packed in it."""
    data = path.read_bytes()
    yield data
    if data[:4] == b"PAR1":
        table = pq.read_table(path)
        yield str(table.schema).encode()
        yield "\n".join(str(column.to_pylist()) for column in table.columns).encode()
    elif data[:2] == b"PK":
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if entry.compress_type != zipfile.ZIP_STORED:
                    yield archive.read(entry)
    elif data[:2] == b"\x1f\x8b":
        yield gzip.decompress(data)


def _pattern(needles: Iterable[str]) -> re.Pattern[bytes]:
    parts: set[bytes] = set()
    for needle in needles:
        for encoding in ("utf-8", "utf-16-le", "latin-1", "shift_jis", "gb18030", "iso8859-5"):
            try:
                coded = needle.encode(encoding)
            except UnicodeEncodeError:
                continue
            escaped = re.escape(coded)
            parts.add(rb"(?<![0-9])" + escaped + rb"(?![0-9])" if needle.isdigit() else escaped)
    assert parts, "nothing to look for"
    return re.compile(b"|".join(sorted(parts, key=len, reverse=True)))


def _git(root: Path) -> bytes:
    done = subprocess.run(
        ["git", "cat-file", "--batch-all-objects", "--batch"], cwd=root, capture_output=True, check=False
    )
    return done.stdout
