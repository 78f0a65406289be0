"""The stage on a whole cohort, and on cohorts that lack something."""

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from tasks.evaluate import run
from tasks.evaluate.chart import _ticks
from tasks.evaluate.cohort import hide
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
        "cox",
    }
    assert report["baselines"]["last_visit"]["p_holm"] >= report["baselines"]["last_visit"]["p_value"]
    assert [row["unit"] for row in report["units"]] == ["hip-visit", "hip", "patient"]
    assert {row["subgroup"] for row in report["subgroups"]} == {
        "vendor",
        "sex",
        "age_band",
        "side",
        "treatment",
        "visit",
    }
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
    for name in ("subgroups", "vendors", "flow"):
        table = pd.read_csv(f"reports/evaluate/{name}.csv")
        for column in {"n", "n_patients", "n_events", "patients", "hips", "hip_visits"} & set(table):
            counts = pd.to_numeric(table[column], errors="coerce").dropna()
            assert not ((counts > 0) & (counts < params.suppress_below)).any()


def test_no_estimate_stands_where_it_rests_on_few_patients() -> None:
    row = {"subgroup": "treatment", "level": "graft", "unit": "hip-visit", "n": 10, "n_patients": 3, "n_events": 6}
    rows = [row | {"auc": 0.9, "n_patients": n} for n in (3, 7, 20)]
    few, _, enough = hide(rows, ["n", "n_patients", "n_events"], 5, "subgroup")
    assert few == row | {"n_patients": "<5", "auc": None}
    assert enough["auc"] == 0.9


def test_an_external_site_has_its_own_table_and_is_in_no_other(cohort, params):
    cohort()
    path = Path("data/sequences.parquet")
    sequences = pd.read_parquet(path)
    outer = sequences["subject"].isin(["OF001", "OF002", "OF003", "OF005", "OF006"])
    withdrawn = sequences["subject"] == "OF007"
    run(params, map)
    before = read_json(Path("reports/evaluate.json"))
    fold = sequences["fold"].where(~outer, "external").where(~withdrawn, None)
    sequences.assign(fold=fold).to_parquet(path)
    run(params, map)
    report = read_json(Path("reports/evaluate.json"))
    assert set(report["populations"]) == {"test", "out_of_fold", "external"}
    assert report["populations"]["external"]["n_patients"] == 5
    assert report["auc"] == before["auc"]
    gone = before["populations"]["out_of_fold"]["n_patients"] - report["populations"]["out_of_fold"]["n_patients"]
    assert gone == 6
    assert report["privacy"]["membership"]["n_members"] == before["privacy"]["membership"]["n_members"] - 6
    table = pd.read_csv("reports/evaluate/cohort.csv")
    assert "external" in table
    flow = pd.read_csv("reports/evaluate/flow.csv")
    assert set(flow.loc[flow["kind"] == "left", "step"]) == {
        "scored: frozen test", "scored: external site", "scored: out of fold"
    }  # fmt: skip
    assert "consent withdrawn or not dealt" in set(flow["reason"])


def test_the_flow_counts_every_hip_visit_once(cohort, params):
    frame = cohort()
    hips = pd.read_parquet("data/hips.parquet")
    extra = hips.iloc[:7].assign(
        hip_visit=[f"2.25.99{i}-L" for i in range(7)], status="rejected", reason="SNR 2.1, below 3"
    )
    pd.concat([hips, extra]).to_parquet("data/hips.parquet")
    sequences = pd.read_parquet("data/sequences.parquet")
    sequences.loc[:9, "ineligible"] = "younger than 18 years"
    sequences.loc[:9, "label"] = np.nan
    sequences.to_parquet("data/sequences.parquet")
    run(params.model_copy(update={"suppress_below": 0}), map)
    flow = pd.read_csv("reports/evaluate/flow.csv")
    assert flow["hip_visits"].iloc[0] == len(frame) + 7
    assert flow["hip_visits"].iloc[1:].sum() == len(frame) + 7
    counts = flow[flow["kind"] == "excluded"].set_index("step")["hip_visits"]
    assert (counts["images"], counts["eligibility"]) == (7, 10)
    assert "younger than 18 years" in Path("reports/evaluate/flow.svg").read_text()


def test_what_is_beside_the_number_is_there(cohort, params):
    cohort()
    run(params, map)
    report = read_json(Path("reports/evaluate.json"))
    assert {row["what"] for row in report["required"]} == {"development", "evaluation"}
    assert all(row["needed"] > row["there_patients"] > 0 for row in report["required"])
    assert report["privacy"]["anonymity"]["k"] == 2
    survival = [row for row in report["survival"] if row["population"] == "test" and row["model"] == "model"]
    assert [row["time_days"] for row in survival] == [182, 365]
    at_horizon = survival[-1]
    assert at_horizon["auc_low"] < at_horizon["auc"] < at_horizon["auc_high"]
    assert at_horizon["brier_low"] < at_horizon["brier"] < at_horizon["brier_high"]
    assert at_horizon["n_lost_before"] > 0
    vendors = {row["vendor"]: row for row in report["vendors"]}
    assert set(vendors) == {"A", "B"} and vendors["A"]["difference_auc"] == 0


def test_ticks_are_round():
    assert _ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert _ticks(0, 42) == [0, 10, 20, 30, 40]
    assert _ticks(0.05, 0.6) == [0.2, 0.4, 0.6]
    assert all(np.diff(_ticks(-0.01, 0.05)) > 0)
