"""The conformance statement is the one that the code and params.yaml of this checkout give."""

from __future__ import annotations

from pathlib import Path

from tasks.anonymize import Params
from tasks.anonymize.conformance import statement
from tasks.domain.params import load

ROOT = Path(__file__).resolve().parents[2]


def test_the_statement_in_docs_is_current(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(ROOT)
    text = statement(load("anonymize", Params))
    current = (ROOT / "docs" / "conformance.md").read_text(encoding="utf-8") == text
    assert current, "run python -m tasks.anonymize.conformance"
    assert text.count("\n| 0") > 400 and "113107" in text
    assert "| 00100010 | Patient's Name | Z | subject pseudonym |" in text
