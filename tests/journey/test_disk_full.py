"""No space left, at any moment of receiving: what was acknowledged is there, the rest is taken once there is room."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from dicom_files import dicom, stack

from tasks.domain.errors import Unavailable
from tasks.ledger import Ledger
from tasks.receive import accept, recover

CHANGES = ("write", "fsync", "rename", "link", "mkdir")


class Disk:
    """Has room for so many changes; then none until `room` is made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = -1
        self.refused = 0
        for name in CHANGES:
            monkeypatch.setattr(os, name, self._checked(getattr(os, name)))

    def _checked(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def change(*args: Any, **named: Any) -> Any:
            if self.left == 0:
                self.refused += 1
                raise OSError(errno.ENOSPC, "No space left on device")
            self.left -= self.left > 0
            return real(*args, **named)

        return change

    def full_after(self, changes: int) -> None:
        self.left, self.refused = changes, 0

    def room(self) -> None:
        self.left = -1


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with Ledger.open() as opened:
        yield opened


def test_the_disk_fills_up_at_any_moment(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch)
    for changes in range(200):
        files = stack(f"1.{changes + 1}", 2)
        disk.full_after(changes)
        unsent = [data for data in files if not acknowledged(ledger, data)]
        was_full = disk.refused > 0
        disk.room()
        recover(ledger)
        for data in unsent:
            accept(data, ledger, "local", "hospital")
        [version] = ledger.find(f"1.{changes + 1}")
        assert sorted(file.path.read_bytes() for file in version.files) == sorted(files), changes
        if not was_full:
            break
    assert changes > 10, "it was full at few moments only: is the disk still the one that is written to?"
    assert ledger.quarantined() == {}
    assert not list((ledger.identified / "incoming").rglob("*.dcm"))


def acknowledged(ledger: Ledger, data: bytes) -> bool:
    try:
        accept(data, ledger, "local", "hospital")
    except (OSError, Unavailable):
        return False
    return True


def test_a_ledger_that_cannot_grow_loses_nothing(ledger: Ledger) -> None:
    accept(dicom("1.1", number=1), ledger, "local", "hospital")
    set_pages(ledger, "(select page_count from pragma_page_count)")
    sent = next(n for n in range(2, 400) if not acknowledged(ledger, dicom("1.1", number=n)))
    assert ledger.counts()["receiving"] == 1, "it can still be read"
    set_pages(ledger, "1000000")
    assert [outcome.outcome for outcome in recover(ledger)] == ["accepted"]
    [version] = ledger.current()
    assert version.n_files == sent


def set_pages(ledger: Ledger, most: str) -> None:
    with ledger.engine.connect() as conn:
        pages = conn.exec_driver_sql(f"select {most}").scalar()
        conn.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
