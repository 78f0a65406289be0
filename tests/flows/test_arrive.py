"""The arrival loop when a study cannot be worked on: the others go on, and it ends where somebody can read why."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import pytest
from arrivals import arrive as come

from flows import arrive
from flows.given import giving
from tasks.domain.errors import BadInput
from tasks.ledger import Ledger

Fails = Callable[[str], None]


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with Ledger.open() as opened:
        yield opened


def work(ledger: Ledger, monkeypatch: pytest.MonkeyPatch, fails: Fails) -> dict[str, int]:
    """The loop with rooms that do nothing but fail where they are told."""

    def anonymize(one: tuple[str, Any]) -> list[dict[str, Any]]:
        fails(one[0])
        return [{"status": "released", "study": one[0]}]

    monkeypatch.setattr(arrive, "_anonymize_one", anonymize)
    monkeypatch.setattr(arrive, "_standardize_all", lambda studies: None)
    with giving(map):
        return arrive.arrive.fn()


def test_one_study_that_fails_keeps_no_other_waiting(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    _, bad, _ = come(ledger, "1.1", "1.2", "1.3")
    tried = []

    def fails(row_key: str) -> None:
        if row_key == bad:
            tried.append(row_key)
            raise ValueError("PHI of Doe^Jane")

    assert work(ledger, monkeypatch, fails)["studies"] == 2
    assert ledger.quarantined() == {"processing_failed": 1}
    [entry] = ledger.quarantine_entries()
    assert entry.row_key == bad
    assert "ValueError" in entry.detail and "Doe" not in entry.detail
    assert len(tried) == 2 * arrive.PATIENCE  # with others (or as a task of Prefect), and alone
    assert ledger.ready() == 0


def test_what_a_reader_says_of_a_study_is_its_reason(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    come(ledger, "1.1")

    def fails(row_key: str) -> None:
        raise BadInput("torn", "cut in the middle")

    work(ledger, monkeypatch, fails)
    assert ledger.quarantined() == {"torn": 1}


def test_a_killed_process_is_no_fault_of_the_study(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    come(ledger, "1.1", "1.2")
    deaths = iter([True, True])

    def fails(row_key: str) -> None:
        if next(deaths, False):
            raise BrokenProcessPool

    assert work(ledger, monkeypatch, fails)["studies"] == 2
    assert ledger.quarantined() == {}


def test_a_full_disk_blames_no_study_and_gives_the_leases_back(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    come(ledger, "1.1", "1.2")

    def full(row_key: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        work(ledger, monkeypatch, full)
    assert ledger.ready() == 2 and ledger.quarantined() == {}
    assert work(ledger, monkeypatch, lambda row_key: None)["studies"] == 2


def test_leases_that_could_not_be_given_back_are_those_of_the_next_arrival(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    come(ledger, "1.1", "1.2", "1.3")
    assert len(ledger.lease(limit=2, owner=arrive._owner(), seconds=600)) == 2
    assert len(ledger.lease(limit=1, owner="elsewhere:1:1", seconds=600)) == 1
    assert work(ledger, monkeypatch, lambda row_key: None)["studies"] == 2
