"""One look of the receiver: a step that fails, in whatever way, keeps no other from its turn and no sender waiting."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from flows.receiver import look
from tasks.domain.errors import Unavailable


def test_whatever_a_step_dies_of_the_others_have_their_turn(caplog: pytest.LogCaptureFixture) -> None:
    turns: list[str] = []

    def broken() -> None:
        turns.append("orthanc")
        raise TypeError("int() argument must be a string, not 'Doe^Jane'")

    def down() -> None:
        turns.append("dicomweb")
        raise Unavailable("http://server is down")

    steps = {"orthanc": broken, "dicomweb": down, "complete": lambda: turns.append("complete")}
    complained: dict[str, float] = {}
    with caplog.at_level(logging.WARNING, logger="osteoflow.receiver"):
        look(steps, complained)
        look(steps, complained)
    assert turns == ["orthanc", "dicomweb", "complete"] * 2
    assert [record.getMessage() for record in caplog.records] == [
        "orthanc: TypeError; trying again", "dicomweb: http://server is down; trying again",
    ]  # fmt: skip


def test_the_word_to_end_is_obeyed(tmp_path: Path) -> None:
    def ended() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        look({"inbox": ended}, {})
