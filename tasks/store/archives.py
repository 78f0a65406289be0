"""Study archives: one de-identified study, one zip of stored (not deflated) DICOM Part 10 files.

Entries are sorted and carry a fixed time, so that the same study is the same bytes on every machine.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from tasks.store.files import replacing

_TIME = (1980, 1, 1, 0, 0, 0)


def write(path: Path, entries: Iterable[tuple[str, bytes]]) -> int:
    """Write `entries` of (name, bytes), names like '<series>/<sop>.dcm'; returns how many there are."""
    count = 0
    with replacing(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, data in sorted(entries):
            info = zipfile.ZipInfo(name, _TIME)
            info.external_attr = 0o644 << 16
            archive.writestr(info, data)
            count += 1
    return count


def names(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def read(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield (name, bytes) of each entry in order."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            yield name, archive.read(name)
