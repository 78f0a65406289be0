"""The spool: spool/<door>/<row key>/, the files of one study version, byte for byte as they came.

A door is `<origin>@<site>`. Files are hard links: until the ledger has committed, the journal holds them too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote

from tasks.domain.errors import BadInput
from tasks.receive.disk import link, private, sync_folder
from tasks.receive.judge import Received
from tasks.store.dicom import read_header


def door_of(site: str, origin: str) -> str:
    return f"{origin}@{quote(site, safe='')}"


def site_and_origin(door: str) -> tuple[str, str]:
    origin, _, site = door.partition("@")
    return unquote(site), origin


@dataclass
class Spool:
    """tasks.ledger.Spool over hard links: what is linked is in the spool and, until the commit, in the journal."""

    zone: Path
    received: Sequence[Received]
    _folders: set[str] = field(default_factory=set)

    def put(self, index: int, row_key: str) -> str:
        item = self.received[index]
        assert item.arrival is not None
        relative = self._relative(door_of(item.site, item.origin), row_key)
        name = hashlib.sha256(item.arrival.sop_uid.encode()).hexdigest()[:32] + ".dcm"
        link(item.path, self.zone / relative / name)
        return f"{relative}/{name}"

    def carry(self, path: str, row_key: str) -> str | None:
        source = self.zone / path
        relative = self._relative(source.parent.parent.name, row_key)
        try:
            link(source, self.zone / relative / source.name)
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
            sync_folder(self.zone / relative)
        for parent in {relative.rpartition("/")[0] for relative in self._folders}:
            sync_folder(self.zone / parent)

    def _relative(self, door: str, row_key: str) -> str:
        """The folder of a version, made; relative to the zone."""
        relative = f"spool/{door}/{row_key}"
        if relative not in self._folders:
            private(self.zone / relative)
            self._folders.add(relative)
        return relative


def carrier(zone: Path) -> Spool:
    """A spool that only carries files from one version to the next (release from quarantine)."""
    return Spool(zone, ())


def _dataset(path: Path) -> tuple[str, str]:
    """Transfer syntax, and SHA-256 of what follows the file meta."""
    header = read_header(path)
    with open(path, "rb") as handle:
        handle.seek(header.dataset)
        return header.transfer_syntax, hashlib.file_digest(handle, "sha256").hexdigest()
