"""One run a network on the work queue that dvc.yaml names; a network more trains nothing else again."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import hip_cohort
import pytest
import yaml
from dvc.repo import Repo
from prefect.client.schemas.objects import StateType
from small_params import ROOT, small
from torch import Tensor, nn
from toy_workspace import run

from flows import parts
from flows.graph import StageNode, ordered
from flows.stage import run_stage
from tasks.compare import fold
from tasks.domain.errors import WrongUse
from tasks.domain.settings import Settings

TWO = ["mobilenet_v3_small", "shufflenet_v2_x1_0"]
FOLDER = Path("reports/compare")


class Dot(nn.Module):
    """In place of a network: what is tried is who is trained, not what is learnt."""

    def __init__(self, name: str, channels: int, dropout: float, weights: Path | None = None) -> None:
        super().__init__()
        self.head = nn.Linear(channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.mean((2, 3)))[:, 0]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Git and DVC repository with the real stage `compare` and a cohort; its code is that of the checkout."""
    folder = tmp_path_factory.mktemp("parts") / "work"
    folder.mkdir()
    hip_cohort.make(folder, patients=4, visits=1, readers=("ra",))
    stage = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["compare"]
    stage["deps"] = [dep for dep in stage["deps"] if dep.startswith("data/")]
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"compare": stage}}))
    (folder / ".gitignore").write_text("/data/\n/reports/\n.osteoflow/\n")
    run(folder, "git", "init", "-q")
    Repo.init(str(folder)).close()
    return folder


@pytest.fixture
def fits(cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """In that workspace, without results: how many fits each network had."""
    monkeypatch.chdir(cohort)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    monkeypatch.setattr(fold, "SliceClassifier", Dot)
    done: Counter[str] = Counter()
    real = fold.fit_fold

    def counted(job: fold.Job) -> dict[str, Any]:
        done[job.network] += 1
        return real(job)

    monkeypatch.setattr("tasks.compare.run.fit_fold", counted)
    monkeypatch.setenv("OSTEOFLOW_WORKERS", "1")  # what a part would give to processes, this one does
    yield done
    (cohort / "dvc.lock").unlink(missing_ok=True)
    for path in FOLDER.glob("*"):
        path.unlink()


def ask_for(*networks: str) -> StageNode:
    params = small(compare={"networks": list(networks), "recipe": {"epochs": 1}})
    Path("params.yaml").write_text(yaml.safe_dump({"compare": params["compare"]}))
    return ordered()[0]


class Queue:
    """In place of Prefect's server and a worker: a run is done once it is submitted, unless `broken` or not `works`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, works: bool = True, broken: str = "") -> None:
        self.works, self.broken = works, broken
        self.named: list[tuple[str, str]] = []
        self.submitted: list[str] = []
        self.states: dict[UUID, tuple[StateType, str]] = {}
        self.cancelled: list[UUID] = []
        for name in ("_deployment", "_submit", "_state", "_cancel"):
            monkeypatch.setattr(parts, name, getattr(self, name))

    def _deployment(self, pool: str, queue: str) -> UUID:
        self.named.append((pool, queue))
        return uuid4()

    def _submit(self, deployment: UUID, name: str, parameters: dict[str, Any]) -> UUID:
        self.submitted.append(name)
        kind, said = StateType.SCHEDULED, "Scheduled"
        if self.works:
            given = json.loads(json.dumps(parameters))  # as Prefect hands them over
            try:
                assert given["item"] != self.broken, "planted"
                parts.part.fn(**given)
                kind, said = StateType.COMPLETED, "Completed"
            except AssertionError:
                kind, said = StateType.FAILED, "Failed"
        self.states[done := uuid4()] = (kind, said)
        return done

    def _state(self, run: UUID) -> tuple[StateType, str]:
        return self.states[run]

    def _cancel(self, runs: Iterable[UUID]) -> None:
        self.cancelled += runs


def through_queue(node: StageNode) -> bool:
    return run_stage(node.name, map, before=lambda params: parts.spread(node, params)).ran


def recorded() -> dict[str, str]:
    """What DVC keeps: the digest of each file of the result."""
    outs = yaml.safe_load(Path("dvc.lock").read_text())["stages"]["compare"]["outs"]
    digest = next(out["md5"] for out in outs if out["path"] == str(FOLDER))
    listed = json.loads(Path(".dvc/cache/files/md5", digest[:2], digest[2:]).read_text())
    return {entry["relpath"]: entry["md5"] for entry in listed}


def test_dvc_yaml_names_the_queue_and_what_is_done_one_by_one() -> None:
    meta = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["compare"]["meta"]
    assert meta["queue"] == "gpu" and meta["each"] == "networks"


def test_a_network_more_trains_no_other_again_and_dvc_keeps_one_result_a_network(fits: Counter[str]) -> None:
    one = ask_for(TWO[0])
    assert through_queue(one) and fits == {TWO[0]: 2}, "one fit a fold, in this process: no pool is named"
    first = recorded()
    assert set(first) == {f"{TWO[0]}.json", f"{TWO[0]}.parquet", "run.jsonl"}
    assert not through_queue(one) and fits == {TWO[0]: 2}, "unchanged costs nothing"
    assert through_queue(ask_for(*TWO)) and fits == dict.fromkeys(TWO, 2)
    both = recorded()
    assert {name: both[name] for name in first if name != "run.jsonl"} == {
        name: digest for name, digest in first.items() if name != "run.jsonl"
    }
    assert set(both) - set(first) == {f"{TWO[1]}.json", f"{TWO[1]}.parquet"}


def test_what_changes_a_network_trains_all_again(fits: Counter[str]) -> None:
    """The negative control of the test above."""
    through_queue(ask_for(TWO[0]))
    params = small(compare={"networks": TWO, "recipe": {"epochs": 1, "lr": 0.003}})
    Path("params.yaml").write_text(yaml.safe_dump({"compare": params["compare"]}))
    assert through_queue(ordered()[0]) and fits == {TWO[0]: 4, TWO[1]: 2}


def test_with_a_pool_each_network_is_a_run_on_the_queue(fits: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    through_queue(ask_for(*TWO))
    alone = recorded()
    Path("dvc.lock").unlink()
    for path in FOLDER.glob("*"):
        path.unlink()
    fits.clear()
    queue, node = Queue(monkeypatch), ask_for(*TWO)
    monkeypatch.setenv("OSTEOFLOW_WORK_POOL", "machines")
    assert through_queue(node)
    assert queue.named == [("machines", "gpu")] and queue.submitted == [f"compare {name}" for name in TWO]
    assert fits == dict.fromkeys(TWO, 2), "the stage found what the runs left"
    assert recorded() == alone and not queue.cancelled
    assert not through_queue(node) and len(queue.submitted) == 2, "nothing is submitted of an unchanged stage"


def test_what_no_worker_finishes_the_stage_does_itself(
    fits: Counter[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OSTEOFLOW_WORK_POOL", "machines")
    queue = Queue(monkeypatch, broken=TWO[1])
    with caplog.at_level(logging.WARNING):
        assert through_queue(ask_for(*TWO))
    assert f"a worker did not finish {TWO[1]}" in caplog.text and not queue.cancelled
    assert fits == dict.fromkeys(TWO, 2) and f"{TWO[1]}.json" in recorded()


def test_without_a_worker_the_queue_is_left_and_emptied(
    fits: Counter[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OSTEOFLOW_WORK_POOL", "machines")
    monkeypatch.setattr(parts, "PATIENCE_S", -1.0)
    queue, node = Queue(monkeypatch, works=False), ask_for(TWO[0])
    with caplog.at_level(logging.WARNING):
        assert through_queue(node)
    assert "no worker took mobilenet_v3_small from queue 'gpu'" in caplog.text
    assert queue.cancelled == list(queue.states) and fits == {TWO[0]: 2}


def test_runs_are_called_back_when_the_loop_is_stopped(fits: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OSTEOFLOW_WORK_POOL", "machines")
    queue, node = Queue(monkeypatch, works=False), ask_for(*TWO)

    def stopped(run: UUID) -> tuple[StateType, str]:
        raise KeyboardInterrupt

    monkeypatch.setattr(parts, "_state", stopped)
    with pytest.raises(KeyboardInterrupt):
        through_queue(node)
    assert queue.cancelled == list(queue.states) and len(queue.cancelled) == 2 and not fits


def test_a_worker_is_told_what_it_may_do(fits: Counter[str]) -> None:
    params = small(compare={"networks": TWO})
    with pytest.raises(WrongUse, match="'resnet18' is not among the networks"):
        parts.part.fn("compare", "resnet18", {"compare": params["compare"]})


def test_no_pool_is_named_by_default() -> None:
    assert Settings().work_pool is None
