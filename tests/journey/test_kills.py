"""kill -9 of receiver, worker or dataset run, twenty times at random moments: nothing lost, nothing twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from kills import harness


def test_twenty_kills_lose_nothing_and_double_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("OSTEOFLOW_HOME", str(work / "home"))
    monkeypatch.delenv("OSTEOFLOW_LEDGER_URL", raising=False)
    report = harness(seed=20, kills=20, studies=12, files=8)
    assert report.acknowledged == report.sent == 96
    assert (report.lost, report.doubled) == ([], [])
    assert report.studies["done"] == 12
    assert sum(report.kills.values()) == 20
