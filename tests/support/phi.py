"""Looks for identifiers in every file of a workspace, through the containers that would hide them from a plain grep.

Git objects and zstd or zlib compressed containers are opened; SQLite, zip (stored), safetensors, HTML and logs are read
as they are. A needle of digits counts only where no digit stands beside it: eight digits of a birth date do occur by
chance within the 39 digits of a UID.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import subprocess
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow.parquet as pq


def find(needles: Iterable[str], root: Path, outside: Path) -> list[tuple[str, str]]:
    """(file, needle) for each needle found in a file below `root` that is not below `outside`, or in its name."""
    search = Search(needles)
    found: set[tuple[str, str]] = set()
    seen: set[bytes] = set()
    for path in sorted(root.rglob("*")):
        if path.is_relative_to(outside) or path.is_symlink() or not path.is_file():
            continue
        name = path.relative_to(root).as_posix()
        found |= {(f"{name} (its name)", hit) for hit in search.hits(name.encode())}
        with open(path, "rb") as handle:
            digest = hashlib.file_digest(handle, "sha256").digest()
        if digest not in seen:  # DVC's cache holds what the workspace holds
            seen.add(digest)
            found |= {(name, hit) for data in contents(path) for hit in search.hits(data)}
    return sorted(found | {(".git (objects)", hit) for hit in search.hits(_git(root))})


class Search:
    """Many needles at once: ASCII ones in the runs of printable bytes (pixels have few), the others as encoded."""

    def __init__(self, needles: Iterable[str]) -> None:
        unique = set(needles)
        assert unique, "nothing to look for"
        self.groups: dict[bytes, list[bytes]] = {}
        for needle in sorted(unique):
            if needle.isascii():
                # UIDs of one source share a long beginning: where that is absent, none of them is there.
                self.groups.setdefault(needle[:12].encode(), []).append(needle.encode())
        self.coded = {
            needle.encode(encoding): needle
            for needle in unique
            if not needle.isascii()
            for encoding in ("utf-8", "utf-16-le", "latin-1", "shift_jis", "gb18030", "iso8859-5", "iso8859-7")
            if _fits(needle, encoding)
        }

    def hits(self, data: bytes) -> set[str]:
        text = b"\n".join(re.findall(rb"[\x20-\x7e]{4,}", data))
        wide = data[::2] if data[:6] == b"SQLite" else b""  # UTF-16 text of a database
        found = {needle for coded, needle in self.coded.items() if coded in data}
        for part in (text, b"\n".join(re.findall(rb"[\x20-\x7e]{8,}", wide))):
            for beginning, members in self.groups.items():
                if beginning in part:
                    found |= {needle.decode() for needle in members if _stands(needle, part)}
        return found


def _stands(needle: bytes, text: bytes) -> bool:
    if not needle.isdigit():
        return needle in text
    return re.search(rb"(?<![0-9])" + needle + rb"(?![0-9])", text) is not None


def _fits(needle: str, encoding: str) -> bool:
    try:
        needle.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


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


def _git(root: Path) -> bytes:
    done = subprocess.run(
        ["git", "cat-file", "--batch-all-objects", "--batch"], cwd=root, capture_output=True, check=False
    )
    return done.stdout
