"""The stage on a whole cohort, and on cohorts that lack something."""

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from tasks.evaluate import run
from tasks.evaluate.chart import _ticks
from tasks.store.files import read_json

PROMISED = {"model", "baselines", "n_patients", "n_events", "auc", "auc_low", "auc_high", "brier", "slope", "intercept"}


def test_the_report_holds_what_is_promised(cohort, params):
    frame = cohort()
    run(params, map)
    report = read_json(Path("reports/evaluate.json"))
    assert set(report) >= PROMISED
    test = frame[(frame["fold"] == "test") & frame["label"].notna()]
    assert report["population"] == "test"
    assert report["n"] == len(test)
    assert report["n_events"] == int(test["label"].sum())
    assert report["n_patients"] == test["subject"].nunique()
    assert report["auc_low"] < report["auc"] < report["auc_high"]
    assert set(report["baselines"]) == {
        "last_visit",
        "lesion_size",
        "kerboul",
        "jic",
    }
    assert report["baselines"]["last_visit"]["p_holm"] >= report["baselines"]["last_visit"]["p_value"]
    assert [row["unit"] for row in report["units"]] == ["hip-visit", "hip", "patient"]
    assert {row["subgroup"] for row in report["subgroups"]} == {"vendor", "side", "treatment", "visit"}
    assert report["abstentions"]["n"] == (frame["fold"] == "test").sum()
    assert report["note"].startswith("Research use only")


def test_a_rank_baseline_is_scored_only_where_it_was_measured(cohort, params):
    cohort()
    run(params, map)
    report = read_json(Path("reports/evaluate.json"))
    assert report["baselines"]["lesion_size"]["n"] < report["n"]
    assert report["baselines"]["jic"]["auc"] == 0.5  # the same type for all


def test_a_baseline_that_the_predictions_bring_is_no_rank(cohort, params):
    cohort()
    path = Path("data/predictions.parquet")
    frame = pd.read_parquet(path)
    frame.assign(risk_kerboul=frame["risk_last_visit"]).to_parquet(path)
    run(params, map)
    row = read_json(Path("reports/evaluate.json"))["baselines"]["kerboul"]
    assert row["kind"] == "probability" and row["brier"] is not None


def test_without_test_events_the_report_says_what_it_rests_on(cohort, params):
    cohort(test_events=False)
    run(params, map)
    report = read_json(Path("reports/evaluate.json"))
    assert report["population"] == "out_of_fold"
    assert "out-of-fold" in report["population_note"]
    assert report["auc"] is not None
    assert report["populations"]["test"]["auc"] is None


@pytest.mark.parametrize("patients", [0, 1, 2])
def test_next_to_no_patients_is_a_report_with_nulls(cohort, params, patients):
    cohort(patients=patients) if patients else _empty(cohort)
    run(params, map)
    report = read_json(Path("reports/evaluate.json"))
    assert set(report) >= PROMISED and report["small"]
    assert "NaN" not in json.dumps(report)


def _empty(cohort):
    cohort(patients=1)
    for name in ("sequences", "predictions", "measures", "hips", "series", "annotations"):
        path = Path(f"data/{name}.parquet")
        pd.read_parquet(path).iloc[:0].to_parquet(path)


def test_a_cohort_without_jic_or_vendor(cohort, params):
    cohort(jic=False, extra=False)
    run(params, map)
    report = read_json(Path("reports/evaluate.json"))
    assert "jic" not in report["baselines"]
    assert "vendor" not in {row["subgroup"] for row in report["subgroups"]}


def test_figures_are_svg_that_say_their_n_and_the_same_bytes_again(cohort, params):
    cohort()
    run(params, map)
    folder = Path("reports/evaluate")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(before) >= {"roc.svg", "calibration.svg", "decision.svg", "risk.svg", "cohort.csv", "subgroups.csv"}
    for name, data in before.items():
        if name.endswith(".svg"):
            ElementTree.fromstring(data)
            assert b"patients" in data and b"Research use only" in data
    run(params, map)
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_exported_tables_hold_no_small_cell(cohort, params):
    cohort()
    run(params, map)
    table = pd.read_csv("reports/evaluate/cohort.csv")
    counts = pd.to_numeric(table[["all", "out_of_fold", "test"]].stack(), errors="coerce").dropna()
    assert not ((counts > 0) & (counts < params.suppress_below)).any()


def test_ticks_are_round():
    assert _ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert _ticks(0, 42) == [0, 10, 20, 30, 40]
    assert _ticks(0.05, 0.6) == [0.2, 0.4, 0.6]
    assert all(np.diff(_ticks(-0.01, 0.05)) > 0)
