"""Scores of new visits: the package's own code, refusals, and what is written."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import feature_cohort
import pandas as pd
import pytest

from tasks.assemble.__main__ import main as assemble
from tasks.domain.errors import Refused, WrongUse
from tasks.domain.hip import RESEARCH_ONLY
from tasks.domain.params import load
from tasks.forecast.__main__ import main as forecast
from tasks.nets import forecaster
from tasks.score import Params, process, read, write
from tasks.store import tables
from tasks.store.files import FIXED_TIME, SPREAD_NS, write_json

PARAMS = load("score", Params, feature_cohort.PARAMS)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with sequences and a model package of phantom origin."""
    folder = tmp_path_factory.mktemp("score")
    feature_cohort.write(folder, feature_cohort.make(30, seed=1, folds=2))
    settings: dict[str, Any] = copy.deepcopy(feature_cohort.PARAMS)
    settings["forecast"] |= {"epochs": 5, "ridge": [30], "metric_resamples": 20}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assemble([], settings, map)
        forecast([], settings, map)
    package = folder / "package"
    shutil.copytree(folder / "models/forecast", package / "forecast")
    shutil.copy(forecaster.__file__, package / "forecaster.py")
    write_json(package / "package.json", {"origin": "phantom", "digest": "d" * 64})
    return folder


@pytest.fixture
def frame(workspace: Path) -> pd.DataFrame:
    return tables.read("sequences", workspace / "data/sequences.parquet")


def test_a_new_visit_is_scored_with_its_history(workspace: Path, frame: pd.DataFrame) -> None:
    hip = frame.groupby("hip")["label"].count().idxmax()
    history = frame[frame["hip"] == hip]
    new = history["hip_visit"].iloc[-1]
    (row,) = process(workspace / "package", history, PARAMS, version=7, hip_visits=[new])
    assert row["hip_visit"] == new
    assert (row["version"], row["digest"], row["model"]) == ("7", "d" * 64, "onfh-progression")
    assert (row["study"], row["origin"]) == (new.rpartition("-")[0], "phantom")
    expected = forecaster.Ensemble.load(workspace / "package/forecast").predict(history).iloc[-1]
    if not row["abstain"]:
        assert row["risk"] == pytest.approx(expected["risk"], abs=1e-4)
    assert row["sentence"].endswith(RESEARCH_ONLY)
    assert "stimated risk" in row["sentence"]
    assert "will" not in row["sentence"].lower().split()


def test_where_the_model_abstains_there_is_no_number(workspace: Path, frame: pd.DataFrame) -> None:
    rows = process(workspace / "package", frame, PARAMS)
    held = [row for row in rows if row["abstain"]]
    assert held
    assert all(row["risk"] is row["risk_low"] is row["risk_high"] is None for row in held)
    assert all(row["abstain"] in row["sentence"] for row in held)
    assert all(0 <= row["risk_low"] <= row["risk"] <= row["risk_high"] <= 1 for row in rows if not row["abstain"])
    shown = process(workspace / "package", frame, PARAMS.model_copy(update={"withhold": False}))
    assert all(row["risk"] is not None for row in shown)


@pytest.mark.parametrize("origin", ["hospital", None])
def test_a_phantom_model_never_scores_a_hospital_study(
    workspace: Path, frame: pd.DataFrame, origin: str | None
) -> None:
    with pytest.raises(Refused, match="never scores a hospital's study"):
        process(workspace / "package", frame.assign(origin=origin), PARAMS)
    with pytest.raises(Refused):
        process(workspace / "package", frame.drop(columns="origin"), PARAMS)


def test_a_package_of_unknown_origin_scores_no_hospital_study(
    workspace: Path, frame: pd.DataFrame, tmp_path: Path
) -> None:
    package = Path(shutil.copytree(workspace / "package", tmp_path / "package"))
    write_json(package / "package.json", {"digest": "e" * 64})
    with pytest.raises(Refused):
        process(package, frame.assign(origin="hospital"), PARAMS)
    write_json(package / "package.json", {"digest": "e" * 64, "origin": "hospital"})
    assert process(package, frame.assign(origin="hospital"), PARAMS)


def test_what_is_no_package_or_does_not_fit_says_so(workspace: Path, frame: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match="no model package"):
        process(tmp_path, frame, PARAMS)
    with pytest.raises(WrongUse, match="does not fit"):
        process(workspace / "package", frame.assign(features=[[1.0, 2.0]] * len(frame)), PARAMS)


def test_scores_are_written_whole_and_read_back(workspace: Path, frame: pd.DataFrame, tmp_path: Path) -> None:
    rows = process(workspace / "package", frame.head(4), PARAMS, version="1")
    study = rows[0]["study"]
    path = write(tmp_path, study, rows[:1])
    assert path == tmp_path / "scores" / f"{study}.json"
    assert 0 <= path.stat().st_mtime - FIXED_TIME <= SPREAD_NS / 1e9, "a real time would tell when the study came"
    assert read(tmp_path, study) == json.loads(json.dumps(rows[:1]))
    first = path.read_bytes()
    assert write(tmp_path, study, rows[:1]).read_bytes() == first
    assert read(tmp_path, "2.25.999") == []
    with pytest.raises(WrongUse):
        write(tmp_path, "../outside", rows)
