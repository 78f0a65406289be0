"""What rooms tell of their training, as a real MLflow store has it afterwards."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import pytest
from small_params import small

from flows import retrain
from flows.busy import watched
from flows.given import Given
from flows.graph import StageNode
from tasks.compare.params import Params
from tasks.domain.errors import WrongUse
from tasks.store.files import write_json, write_text
from tasks.training import pictures, speed
from tasks.training.progress import Progress

PARAMS = Params.model_validate(small()["compare"])
FIGURES = ("calibration.svg", "confusion.svg", "curves.svg", "examples.svg")
NODE = StageNode("compare", "compare", "", "gpu", 0)


def trained(room: str, dies: bool = False) -> None:
    """As a room that trains leaves it: parameters, curves, figures, tables and, beside, how fast it was."""
    folder = Path("reports") / room
    with Progress(folder / "run.jsonl", PARAMS) as progress:
        progress.curve("resnet18/fold0", [{"loss": 0.7, "validation_loss": 0.8}, {"loss": 0.5, "validation_loss": 0.6}])
        if dies:
            raise KeyboardInterrupt
        pictures.confusion(folder / "confusion.svg", "Stage", ["none", "1"], [[3, 1], [0, 4]], "hip-visits")
        for name in FIGURES:
            if not (folder / name).exists():
                write_text(folder / name, '<svg xmlns="http://www.w3.org/2000/svg"/>')
            progress.figure(folder / name)
        progress.metric("out_of_fold", "slice_auc", 0.81)
    write_json(folder / "metrics.json", {"slice": {"auc": 0.81}})
    speed.note(room, "resnet18", {"train_items_per_s": 23.2, "peak_memory_gb": 1.1})


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    import mlflow

    from flows import tracking

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.sqlite'}")
    yield tracking
    mlflow.set_tracking_uri(before)


def test_a_real_store_holds_what_a_room_told_and_a_death_is_a_failed_run(
    store: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with watched("classify", Path("."), every_s=0.1) as samples:
        trained("classify")
        while not samples:  # the test's own time limit ends it
            time.sleep(0.05)
    parent = store.begin("dataset run", {})
    run_id = store.mirror("classify", parent, Path("."))
    store.end(parent)
    client = store.client()
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED" and run.data.tags["mlflow.parentRunId"] == parent
    assert run.data.params["recipe.lr"] == str(PARAMS.recipe.lr) and run.data.params["size_px"] == "32"
    curve = client.get_metric_history(run_id, "resnet18/fold0/validation_loss")
    assert [(point.step, point.value) for point in curve] == [(0, 0.8), (1, 0.6)]
    assert run.data.metrics["out_of_fold/slice_auc"] == 0.81
    assert run.data.metrics["speed/resnet18/train_items_per_s"] == 23.2
    assert run.data.metrics["speed/resnet18/peak_memory_gb"] == 1.1
    busy = client.get_metric_history(run_id, "system/cpu_utilization_percentage")
    assert busy and all(0 <= point.value <= 100 for point in busy)
    kept = [file.path for file in client.list_artifacts(run_id)]
    assert kept == ["figures", "metrics.json"]
    assert [file.path for file in client.list_artifacts(run_id, "figures")] == [f"figures/{name}" for name in FIGURES]

    with pytest.raises(KeyboardInterrupt):
        trained("compare", dies=True)

    def dead(*_: Any, **__: Any) -> None:
        raise WrongUse("planted")

    monkeypatch.setattr(retrain, "run_stage", dead)
    monkeypatch.setattr("prefect.task", lambda **_: lambda body: body)
    with pytest.raises(WrongUse, match="planted"):
        retrain.stage_task(NODE, None, Given(map))  # type: ignore[arg-type]
    found = client.search_runs([store.experiment()], "tags.`osteoflow.room` = 'compare'")
    assert [run.info.status for run in found] == ["FAILED"]
    assert client.get_metric_history(found[0].info.run_id, "resnet18/fold0/loss")[-1].value == 0.5, "how far it came"
    above = client.get_run(found[0].data.tags["mlflow.parentRunId"])
    assert above.info.status == "FAILED" and above.data.tags["osteoflow.died_of"] == "WrongUse"

    left = store.begin("left open by a crash", {})
    store.close_dead()
    assert client.get_run(left).info.status == "FAILED"
    assert store.died("classify", "OSError", Path(".")) is None, "it had finished"

    monkeypatch.setattr(store, "died", dead)
    with caplog.at_level(logging.WARNING), pytest.raises(WrongUse):
        retrain.stage_task(NODE, None, Given(map))  # type: ignore[arg-type]
    assert "MLflow was not told that compare died" in caplog.text
