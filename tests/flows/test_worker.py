"""The resident worker: its processes hold the champion's networks, a new champion's are loaded, lost ones come back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hip_cohort
import pandas as pd
import pytest
import small_params
import untrained
import yaml
from arrivals import arrive as come

import flows
from flows import arrive, facts, scoring, worker
from flows.given import giving
from tasks.classify import reading
from tasks.domain.settings import Settings
from tasks.keys import Keys
from tasks.ledger import Ledger
from tasks.segment import predict


class Pool:
    """As `Kept`, in this process."""

    def __init__(self) -> None:
        self.alive: list[int] = []
        self.begun = 0

    def pids(self) -> list[int]:
        return self.alive

    def renew(self, begin: Callable[[], object]) -> None:
        lose()
        begin()
        self.alive, self.begun = [1], self.begun + 1


def lose() -> None:
    predict.load.cache_clear()
    reading._ready.cache_clear()


def loaded() -> int:
    return predict.load.cache_info().misses + reading._ready.cache_info().misses


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """A workspace with hips of one test patient; two champions to be."""
    monkeypatch.chdir(tmp_path)
    params = small_params.small(split={"folds": 1})
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    hip_cohort.make(tmp_path, patients=1, visits=1)
    models = Settings().ensure().home / "models"
    yield [untrained.package(models / str(seed), params, seed) for seed in (1, 2)]
    lose()


def scores(package: Path) -> list[Any]:
    """Of the one study, described anew."""
    for kept in (Settings().home / "features").rglob("*.json"):
        kept.unlink()
    return [row["risk"] for row in scoring.score_visits(["2.25.1000"], package, 1, map)]


def test_networks_are_held_renewed_and_found_again(packages: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = packages
    pool = Pool()
    champion = worker.Champion(pool)  # type: ignore[arg-type]
    monkeypatch.setattr(worker, "_champion", lambda: (1, first))
    champion.look()
    assert loaded() == 3, "encoder, hip and vessel"
    before = scores(first)
    assert len(before) == 2 and loaded() == 3, "a study needs nothing that is not held"

    champion.look()
    assert pool.begun == 1, "nothing has changed"
    monkeypatch.setattr(worker, "_champion", lambda: (2, second))
    champion.look()
    assert pool.begun == 1, "nobody was promoted: the registry is not asked"
    (Settings().home / "promotions.jsonl").touch()
    champion.look()
    assert pool.begun == 2
    assert scores(second) != before and loaded() == 3

    pool.alive = []  # they were killed
    champion.look()
    assert pool.begun == 3
    lose()
    assert scores(first) == before, "what is not held is loaded"


def test_while_there_is_no_champion_the_registry_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows, "tracking", None, raising=False)
    assert worker._champion() == (0, None)


def test_one_study_that_cannot_be_scored_keeps_no_other_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """And it is not tried for ever by the same model; `osteoflow score` tries it again."""
    (Settings().ensure().home / "models").mkdir()
    registry = SimpleNamespace(find=lambda _: SimpleNamespace(number=3), package_facts=lambda _: {"origin": "hospital"})
    monkeypatch.setattr(flows, "tracking", registry, raising=False)
    keys = Keys.open()
    tried: list[str] = []

    def score(studies: list[str], number: int) -> list[dict[str, Any]]:
        tried.extend(studies)
        if keys.uid("1.2") in studies:
            raise ArithmeticError("of Doe^Jane")
        return [{"study": study} for study in studies]

    monkeypatch.setattr(arrive, "_score_studies", score)
    with Ledger.open() as ledger, giving(map) as given:
        for row_key in come(ledger, "1.1", "1.2", "1.3"):
            ledger.mark_arrived(row_key)
        assert arrive.arrive.fn() == {"studies": 0, "scored": 2}
        assert tried.count(keys.uid("1.2")) == 2 * arrive.PATIENCE
        assert len(ledger.unscored("3")) == 1, "it stands as not scored"
        assert arrive.arrive.fn() == {"studies": 0, "scored": 0}
        assert tried.count(keys.uid("1.2")) == 2 * arrive.PATIENCE
        arrive.score_new(ledger, given)
        assert tried.count(keys.uid("1.2")) == 2 * arrive.PATIENCE + 2


def test_a_version_of_a_study_without_a_usable_hip_keeps_no_score_of_the_earlier_one(packages: list[Path]) -> None:
    before = scoring.score_visits(["2.25.1000"], packages[0], 1, map)
    assert before and all(len(row["hip_digest"]) == 64 for row in before), "a score says which volumes were looked at"
    written = Settings().home / "scores" / "2.25.1000.json"
    assert written.exists()
    hips = pd.read_parquet("data/hips.parquet")
    hips.assign(status="not_measurable").to_parquet("data/hips.parquet")
    assert scoring.score_visits(["2.25.1000"], packages[0], 1, map) == []
    assert not written.exists()


def test_status_says_that_a_phantom_model_scores_no_study_of_the_hospital(monkeypatch: pytest.MonkeyPatch) -> None:
    (Settings().ensure().home / "models").mkdir()
    champion = SimpleNamespace(number=3)
    for origin, said in (("phantom", 1), ("hospital", 0)):
        facts_of = {"origin": origin}
        registry = SimpleNamespace(find=lambda _: champion, package_facts=lambda _, own=facts_of: own)
        monkeypatch.setattr(flows, "tracking", registry, raising=False)
        with Ledger.open() as ledger:
            if origin == "phantom":
                for row_key in come(ledger, "1.1"):
                    ledger.mark_arrived(row_key)
            assert facts.not_scored(ledger) == ({"phantom": said} if said else {})
