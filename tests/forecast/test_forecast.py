"""The stage: out of fold, calibrated, deterministic, and something to say when there is next to nothing."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import feature_cohort
import numpy as np
import pandas as pd
import pytest

from tasks.assemble.__main__ import main as assemble
from tasks.forecast.__main__ import main
from tasks.nets.forecaster import Ensemble
from tasks.store import tables
from tasks.store.files import read_json

PARAMS = copy.deepcopy(feature_cohort.PARAMS)
PARAMS["forecast"] |= {"epochs": 8, "ridge": [10, 100], "resamples": 10, "metric_resamples": 50}
SEQUENCES = Path("data/sequences.parquet")


def run_stage(folder: Path, monkeypatch: pytest.MonkeyPatch, change: Any = None, **params: Any) -> pd.DataFrame:
    """assemble and forecast in `folder`; `change(frame)` may alter sequences in between. Returns predictions."""
    monkeypatch.chdir(folder)
    settings = PARAMS | {"forecast": PARAMS["forecast"] | params}
    assemble([], settings, map)
    if change is not None:
        tables.write("sequences", SEQUENCES, change(tables.read("sequences", SEQUENCES)))
    main([], settings, map)
    return tables.read("predictions", Path("data/predictions.parquet"))


@pytest.fixture(scope="module")
def cohort() -> dict[str, pd.DataFrame]:
    return feature_cohort.make(60, seed=11, folds=3)


@pytest.fixture
def workspace(cohort: dict[str, pd.DataFrame], tmp_path: Path) -> Path:
    feature_cohort.write(tmp_path, cohort)
    return tmp_path


def test_every_visit_has_an_estimated_risk_and_its_baselines(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = run_stage(workspace, monkeypatch)
    sequences = tables.read("sequences", SEQUENCES)
    assert set(found["hip_visit"]) == set(sequences["hip_visit"])
    assert found["risk"].between(0, 1).all()
    assert ((found["risk_low"] <= found["risk"]) & (found["risk"] <= found["risk_high"])).all()
    for name in ("lr_last", "lesion_size", "jic", "kerboul"):
        assert found[f"risk_{name}"].between(0, 1).all()
    metrics = read_json(Path("reports/forecast/metrics.json"))
    model, size = (metrics["sets"]["out_of_fold"][name] for name in ("model", "lesion_size"))
    assert model["auc"] > 0.6
    assert model["n_events"] == sequences.loc[sequences["fold"] != "test", "label"].sum()
    assert size["n"] == model["n"]
    lines = [json.loads(line) for line in Path("reports/forecast/run.jsonl").read_text().splitlines()]
    assert [lines[0]["event"], lines[-1]] == ["params", {"event": "end", "status": "finished"}]
    assert {line["name"] for line in lines if line["event"] == "metric"} >= {"loss", "test_auc", "out_of_fold_brier"}


def test_the_saved_ensemble_gives_the_predictions_of_the_test_patients(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = run_stage(workspace, monkeypatch).set_index("hip_visit")
    ensemble = Ensemble.load("models/forecast")
    sequences = tables.read("sequences", SEQUENCES)
    test = sequences[sequences["fold"] == "test"]
    again = ensemble.predict(test).set_index("hip_visit")
    pd.testing.assert_frame_equal(again, found.loc[again.index, list(again)], rtol=1e-12, atol=1e-15)
    assert sorted(p.name for p in Path("models/forecast").iterdir()) == sorted(
        ["ensemble.json", "inputs.json", *(f"fold{k}.{end}" for k in range(3) for end in ("json", "safetensors"))]
    )
    names = read_json(Path("models/forecast/inputs.json"))["features"]
    assert names == read_json(Path("data/sequences.json"))["features"]


def test_the_same_run_twice_is_the_same_bytes(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_stage(workspace, monkeypatch)
    files = [p for folder in ("models", "reports", "data") for p in sorted(Path(folder).rglob("*")) if p.is_file()]
    before = {path: path.read_bytes() for path in files}
    main([], PARAMS, map)
    assert {path: path.read_bytes() for path in files} == before


def test_a_fold_says_nothing_of_itself(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With other labels for one fold's patients their own out-of-fold predictions stay, to the bit: nothing in them,
    weight, scaler, calibration or amount, has seen a label of theirs."""
    before = run_stage(workspace, monkeypatch)
    member = Path("models/forecast/fold1.safetensors").read_bytes()

    def flip(frame: pd.DataFrame) -> pd.DataFrame:
        own = (frame["fold"] == "1").to_numpy()
        frame.loc[own, "label"] = 1 - frame.loc[own, "label"]
        frame.loc[own, ["event_in_days", "followed_days"]] = [100.0, 100.0]
        return frame

    after = run_stage(workspace, monkeypatch, flip)
    assert Path("models/forecast/fold1.safetensors").read_bytes() == member
    own = (before["fold"] == "1").to_numpy()
    for name in ("risk", "risk_lr_last", "risk_lesion_size"):
        assert np.array_equal(before.loc[own, name], after.loc[own, name])
    assert not np.array_equal(before.loc[~own, "risk"], after.loc[~own, "risk"])


def test_test_patients_have_no_say(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = run_stage(workspace, monkeypatch)
    models = {p.name: p.read_bytes() for p in Path("models/forecast").iterdir()}

    def scramble(frame: pd.DataFrame) -> pd.DataFrame:
        test = (frame["fold"] == "test").to_numpy()
        frame.loc[test, "label"] = 1 - frame.loc[test, "label"]
        frame["features"] = [
            np.asarray(v) * 100 if t and i % 2 else v
            for i, (t, v) in enumerate(zip(test, frame["features"], strict=True))
        ]
        return frame

    after = run_stage(workspace, monkeypatch, scramble)
    assert {p.name: p.read_bytes() for p in Path("models/forecast").iterdir()} == models
    training = (before["fold"] != "test").to_numpy()
    assert np.array_equal(before.loc[training, "risk"], after.loc[training, "risk"])


def test_deleting_the_future_changes_no_prediction(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_stage(workspace, monkeypatch)
    ensemble = Ensemble.load("models/forecast")
    frame = tables.read("sequences", SEQUENCES)
    whole = ensemble.predict(frame).set_index("hip_visit")
    first = frame[frame["days"] <= 250.0]
    pd.testing.assert_frame_equal(
        ensemble.predict(first).set_index("hip_visit"), whole.loc[first["hip_visit"]], check_exact=True
    )


@pytest.mark.parametrize("known", ["none", "one event", "no events"])
def test_with_few_or_no_labels_it_is_the_prevalence_and_says_so(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, known: str
) -> None:
    def fewer(frame: pd.DataFrame) -> pd.DataFrame:
        if known == "none":
            frame["label"] = np.nan
            frame["followed_days"] = 0.0
        else:
            ones = frame.index[frame["label"] == 1.0]
            frame.loc[ones[1 if known == "one event" else 0 :], "label"] = 0.0
        frame.loc[frame["label"] != 1.0, "event_in_days"] = np.nan
        return frame

    found = run_stage(workspace, monkeypatch, fewer)
    assert found["risk"].between(0, 1).all()
    for _, of_fold in found.groupby("fold"):
        assert of_fold["risk"].nunique() == 1
    reasons = read_json(Path("models/forecast/ensemble.json"))["reasons"]
    assert "the prevalence" in reasons["fold0"]


def test_odd_cohorts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One fold, no test patients, one visit each; and no patients at all."""
    small = feature_cohort.make(12, seed=2, folds=1, test=0.0)
    small["hips"] = small["hips"][small["hips"]["days"] == 0.0]
    feature_cohort.write(tmp_path, small)
    found = run_stage(tmp_path, monkeypatch)
    assert found["risk"].notna().all()
    empty = {name: table.iloc[:0] for name, table in small.items()}
    feature_cohort.write(tmp_path, empty)
    assert run_stage(tmp_path, monkeypatch).empty


def test_a_table_made_elsewhere_is_enough(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the contract's columns, and no names of features."""

    def plain(frame: pd.DataFrame) -> pd.DataFrame:
        Path("data/sequences.json").unlink()
        return frame[list(tables.COLUMNS["sequences"])]

    found = run_stage(workspace, monkeypatch, plain)
    assert found["risk"].notna().all()
    assert read_json(Path("models/forecast/inputs.json"))["features"][0] == "feature_000"


def test_external_and_withdrawn_patients_are_scored_and_never_learnt_from(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Models are the same bytes whatever their labels and images say."""

    def outside(sign: float) -> Any:
        def change(frame: pd.DataFrame) -> pd.DataFrame:
            own = np.isin(frame["subject"], sorted(frame.loc[frame["fold"] == "1", "subject"].unique())[:6])
            frame.loc[own, "fold"] = "external"
            frame.loc[own & (frame["subject"] == frame.loc[own, "subject"].iloc[0]), "fold"] = None
            frame["features"] = [np.asarray(v) * sign if o else v for o, v in zip(own, frame["features"], strict=True)]
            frame.loc[own, "label"] = np.where(frame.loc[own, "label"] == 1, sign < 0, sign > 0).astype(float)
            return frame

        return change

    first = run_stage(workspace, monkeypatch, outside(1.0))
    models = {p.name: p.read_bytes() for p in Path("models/forecast").iterdir()}
    run_stage(workspace, monkeypatch, outside(-1.0))
    assert {p.name: p.read_bytes() for p in Path("models/forecast").iterdir()} == models
    outer = first["fold"].isin(["external"]) | first["fold"].isna()
    assert outer.sum() > 10 and first.loc[outer, "risk"].notna().all()
    assert first.loc[outer, "seen_risk"].isna().all()


def test_an_ineligible_hip_gets_no_number_and_a_maker_left_out_is_not_known(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame["vendor"] = np.where(frame["subject"].rank(method="dense") % 2 == 0, "A", "B")
        frame["ineligible"] = np.where(frame["days"] == 0.0, "younger than 18 years", "")
        return frame

    found = run_stage(workspace, monkeypatch, change)
    first = found["days"] == 0.0
    numbers = [c for c in found if c.startswith("risk") or c in ("seen_risk", "unseen_vendor_risk")]
    assert found.loc[first, numbers].isna().all(axis=None)
    assert (found.loc[first, "abstain"] == "not eligible: younger than 18 years").all()
    training = ~first & (found["fold"] != "test")
    assert found.loc[training, "unseen_vendor_risk"].between(0, 1).all()
    assert not np.allclose(found.loc[training, "unseen_vendor_risk"], found.loc[training, "risk"])
    facts = read_json(Path("reports/forecast/metrics.json"))["vendors_left_out"]
    assert set(facts) == {"A", "B"} and all(0 < one["patients"] < 45 for one in facts.values())
