"""A run of the dataset loop that dies loses nothing: what it had made is registered and judged by the next one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from arrivals import arrive

from flows import promote, retrain, tracking
from flows.policy import LEARNT
from flows.tracking import Version
from tasks.domain.errors import Unavailable
from tasks.ledger import Ledger
from tasks.register import package_digest


class Registry:
    """MLflow and the gate, each of which may be down."""

    def __init__(self) -> None:
        self.known: list[Version] = []
        self.down: set[str] = set()
        self.judged: list[int] = []

    def register(self, package: Path, digest: str, *_: Any) -> Version:
        self.answer("register")
        self.known.append(Version(len(self.known) + 1, digest, ()))
        return self.known[-1]

    def gate(self, number: int, _: Any) -> dict[str, Any]:
        self.answer("gate")
        self.judged.append(number)
        self.known[number - 1] = Version(number, self.known[number - 1].digest, (), {"gate": "kept as challenger"})
        return {"decision": "kept as challenger", "reason": "a test"}

    def answer(self, what: str) -> None:
        if what in self.down:
            raise Unavailable(f"{what} is down")


@pytest.fixture
def registry(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """A workspace in which every stage is done and a package lies; DVC, Git and the ledger are real."""
    found = Registry()
    package = workspace / "models" / "package"
    package.mkdir(parents=True)
    (package / "package.json").write_text(json.dumps({"origin": "phantom", "files": {}}))
    monkeypatch.delenv("OSTEOFLOW_LEDGER_URL", raising=False)
    monkeypatch.setattr(retrain, "ordered", lambda *_: [])
    monkeypatch.setattr(retrain, "publish", lambda _: (found.answer("publish"), Path("report.html"))[1])
    monkeypatch.setattr(promote, "gate", found.gate)
    for name, value in {
        "versions": lambda: found.known, "register": found.register, "begin": lambda *_: "run",
        "end": lambda *_: None, "keep": lambda *_: None, "close_dead": lambda: None,
    }.items():  # fmt: skip
        monkeypatch.setattr(tracking, name, value)
    return found


def run(**words: Any) -> dict[str, Any]:
    return retrain.retrain.fn(**words)


@pytest.mark.parametrize("down", ["register", "gate", "publish"])
def test_a_run_that_died_after_its_stages_is_taken_up(registry: Registry, down: str) -> None:
    ledger = Ledger.open()
    arrive(ledger, "1.1")
    registry.down = {down}
    with pytest.raises(Unavailable):
        run()
    waiting = ledger.counts()["claimed"]
    assert waiting == (0 if down == "publish" else 1), "a study is done with once its model is judged"
    registry.down = set()
    assert run()["version"] == 1 and 1 in registry.judged
    assert ledger.counts()["done"] == 1
    assert "nothing new" in run()["why"]
    assert len(registry.known) == 1


def test_a_process_that_was_killed_is_taken_up(registry: Registry) -> None:
    ledger = Ledger.open()
    assert run()["version"] == 1
    ledger.start_run()  # and nothing more of it
    assert run()["version"] == 1 and "nothing new" in run()["why"]


def test_a_run_with_labels_alone_that_died_is_taken_up(registry: Registry) -> None:
    ledger = Ledger.open()
    assert run()["version"] == 1
    Path("data/imports/0001-a").mkdir()
    Path("data/imports/0001-a/labels.csv").write_text("x")
    assert json.loads(ledger.recall(LEARNT) or "[]") == []
    assert run()["version"] == 1 and json.loads(ledger.recall(LEARNT) or "[]") == ["0001-a"]
    assert "nothing new" in run()["why"]


def test_a_package_that_the_gate_has_not_judged_is_judged(registry: Registry) -> None:
    assert run()["version"] == 1
    registry.known[0] = Version(1, package_digest(Path("models/package")), ())
    assert run()["version"] == 1 and registry.judged == [1, 1]
    registry.known[0] = Version(1, registry.known[0].digest, ("champion",))
    assert "nothing new" in run()["why"]
