from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from flows import taint, tracking

THEN = pd.DataFrame({"subject": ["a", "b", "c"], "fold": ["0", "1", "test"]})


@pytest.fixture
def tagged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[int, dict[str, str]]:
    """Two versions made of THEN and of the split now, in which `b` stands in the test set; their tags."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    now = THEN.assign(fold=["0", "test", "test"])
    now.to_parquet(taint.SPLIT)
    splits = {1: THEN, 2: now, 3: None}
    tags: dict[int, dict[str, str]] = {}
    versions = [tracking.Version(n, "", (), {}) for n in splits]
    monkeypatch.setattr(tracking, "versions", lambda: versions)
    monkeypatch.setattr(tracking, "tag", lambda n, words: tags.setdefault(n, {}).update(words))
    monkeypatch.setattr(taint, "split_of", lambda version: splits[version.number])
    return tags


def test_a_version_that_learned_from_a_patient_of_the_test_set_is_tagged(tagged: dict[int, dict[str, str]]) -> None:
    assert taint.mark() == {1: "trained on patients who are not for training any more: 1 now test"} and tagged == {
        1: {"tainted": taint.mark()[1]}
    }
    assert taint.learned_from(tracking.Version(1, "", ())) == {"a", "b"}
    assert taint.learned_from(tracking.Version(3, "", ())) == set()


def test_without_a_split_nothing_is_said(tagged: dict[int, dict[str, str]]) -> None:
    taint.SPLIT.unlink()
    assert taint.mark() == {} == tagged
