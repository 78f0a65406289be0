"""The stage: the paper's table beside ours, and a reason where there is too little."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import feature_cohort
import numpy as np
import pandas as pd
import pytest

from tasks.domain.params import load
from tasks.effect import Params
from tasks.effect.__main__ import main
from tasks.effect.cohort import cohort, landmark
from tasks.store.files import read_json

PARAMS = feature_cohort.PARAMS | {
    "effect": feature_cohort.PARAMS["effect"] | {"min_modelled": 10_000, "resamples": 300}
}


def run_stage(folder: Path, monkeypatch: pytest.MonkeyPatch, tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    feature_cohort.write(folder, tables)
    monkeypatch.chdir(folder)
    main([], PARAMS, map)
    for figure in ("effect.svg", "overlap.svg"):
        ElementTree.fromstring(Path(f"reports/effect/{figure}").read_text(encoding="utf-8"))
    return pd.read_csv("reports/effect.csv")


def row_of(table: pd.DataFrame, outcome: str, adjusted: int, treatment: str = "vascularized_bone_graft") -> pd.Series:
    keys = (table["treatment"] == treatment) & (table["outcome"] == outcome) & (table["adjusted"] == adjusted)
    return table[keys].iloc[0]


def test_the_paper_s_table_from_a_cohort_with_known_truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = feature_cohort.make(220, seed=9)
    table = run_stage(tmp_path, monkeypatch, tables)
    # What really happened to the same hips between the same visits: 12.4 mm in 12 months, less 1 mm a year.
    exact = feature_cohort.make(220, seed=9, noise=0.0)
    hips, _ = cohort(exact["measures"], tables["annotations"], tables["hips"], load("effect", Params, PARAMS))
    grafted = hips[hips["treatment"] == "vascularized_bone_graft"]
    for outcome, near in (("vessel_length_mm", 11.0), ("vessel_branches", 2.4)):
        row, truth = row_of(table, outcome, 0), grafted[outcome].mean()
        assert row["low"] < truth < row["high"]
        assert truth == pytest.approx(near, rel=0.25)
        adjusted = row_of(table, outcome, 1)
        assert adjusted["versus_low"] > 0
    assert row_of(table, "vessel_length_mm", 1)["versus_low"] > 5
    # Confounding by severity: grafted hips progress no less than observed ones though grafts help; adjusting turns it.
    naive = row_of(table, "progression", 0)["change"] - row_of(table, "progression", 0, "observation")["change"]
    assert naive > -0.02
    assert row_of(table, "progression", 1)["versus_observation"] < naive - 0.05
    assert row_of(table, "progression", 1)["e_value"] >= row_of(table, "progression", 1)["e_value_limit"] >= 1
    assert row_of(table, "vessel_length_mm", 0)["n_patients"] <= row_of(table, "vessel_length_mm", 0)["n_hips"]
    assert (table["p_holm"].dropna() <= 1).all()
    facts = read_json(Path("reports/effect/effect.json"))
    assert {"change": 12.4, "high": 13.6, "low": 11.2, "outcome": "vessel_length_mm",
            "treatment": "vascularized_bone_graft"} in facts["paper"]  # fmt: skip
    own = row_of(table, "vessel_length_mm", 0)
    assert own["sd_without_error"] < own["sd"]
    beside = pd.read_csv("reports/effect/paper.csv").set_index("outcome")
    assert beside.loc["vessel_length_mm", "paper_change"] == 12.4
    assert beside.loc["vessel_length_mm", "ours_change"] == pytest.approx(own["change"])
    assert beside.loc["vessel_branches", "ours_n_patients"] == own["n_patients"]
    assert "associated with" in facts["reading"]
    assert "cause" not in facts["reading"]
    assert "need 10000" in facts["models"]["vessel_length_mm"]["reason"]
    assert 0 < facts["overlap"]["vascularized_bone_graft"]["treated_within_observed"] <= 1


def test_baseline_is_the_last_visit_before_the_treatment_and_follow_up_is_after_it() -> None:
    tables = feature_cohort.make(40, seed=4)
    params = load("effect", Params, PARAMS)
    hips, left_out = cohort(tables["measures"], tables["annotations"], tables["hips"], params)
    assert (hips["baseline_days"] <= hips["start"]).all()
    low, high = params.follow_up_window
    assert hips["follow_up_after"].dropna().between(low, high).all()
    assert left_out["no lesion"] == int((~tables["truth"].drop_duplicates(["subject", "side"])["affected"]).sum())
    visits = tables["measures"].set_index(["subject", "side", "days"])
    for row in hips[hips["vessel_length_mm"].notna()].head(20).itertuples():
        before = visits.loc[(row.subject, row.side, row.baseline_days), "vessel_length_mm"]
        after = visits.loc[(row.subject, row.side, row.start + row.follow_up_after), "vessel_length_mm"]
        assert row.vessel_length_mm == pytest.approx(after - before)
        assert row.vessel_length_mm_se == pytest.approx(np.hypot(0.1, 0.1))


@pytest.mark.parametrize("what", ["few patients", "one visit", "no treatments", "no vessels", "nothing"])
def test_too_little_is_a_reason_and_no_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    tables: dict[str, Any] = feature_cohort.make(4 if what == "few patients" else 14, seed=6)
    if what == "one visit":
        tables["hips"] = tables["hips"][tables["hips"]["days"] == 0.0]
    if what == "no treatments":
        tables["annotations"] = tables["annotations"][tables["annotations"]["kind"] != "treatment"]
    if what == "no vessels":
        tables["measures"][["vessel_length_mm", "vessel_branches"]] = np.nan
    if what == "nothing":
        tables = {name: table.iloc[:0] for name, table in tables.items()}
    table = run_stage(tmp_path, monkeypatch, tables)
    if what == "nothing":
        assert table.empty
        return
    adjusted = table[table["adjusted"] == 1]
    assert adjusted["change"].isna().all()
    assert all("at least" in reason or "not shown" in reason for reason in adjusted["reason"])
    small = table[table["reason"].fillna("").str.contains("not shown")]
    assert len(small) or what == "no treatments"
    assert small[["change", "low", "high", "n_hips", "n_patients", "sd"]].isna().all(axis=None)
    assert not (table["n_patients"] < 5).any()
    if what == "no vessels":
        assert not table["outcome"].str.startswith("vessel").any()
    if what == "no treatments":
        assert set(table["treatment"]) == {"observation"}


def test_the_same_tables_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_stage(tmp_path, monkeypatch, feature_cohort.make(20, seed=8))
    files = [Path("reports/effect.csv"), *sorted(Path("reports/effect").iterdir())]
    before = [path.read_bytes() for path in files]
    main([], PARAMS, map)
    assert [path.read_bytes() for path in files] == before


def test_an_arthroplasty_is_an_event_wherever_it_stands_and_who_is_lost_is_counted() -> None:
    """In treatments.csv alone, as in outcomes.csv; tasks.assemble counts both."""
    params = load("effect", Params, PARAMS)
    visits = pd.DataFrame({"subject": ["OFA", "OFB", "OFC"], "side": "L", "days": 0.0, "lesion_fraction": 0.3})
    visits["hip_visit"] = [f"{subject}-L" for subject in visits["subject"]]
    wanted = {*params.covariates, *params.outcomes, *(f"{name}_se" for name in params.covariates)} - set(visits)
    visits = visits.assign(**dict.fromkeys(sorted(wanted), 0.1))
    after = params.landmark_days + 30
    notes = [("OFA", "treatment", "arthroplasty", after), ("OFB", "outcome", "arthroplasty", after),
             ("OFC", "outcome", "last_follow_up", after)]  # fmt: skip
    table = pd.DataFrame(notes, columns=["subject", "kind", "name", "days"])
    table = table.assign(side="L", reader=None, value=None)
    early, left_out = landmark(visits, table, visits.assign(status="ok"), params)
    assert early.set_index("subject")["progression"].to_dict() == {"OFA": 1.0, "OFB": 1.0}
    assert left_out == {"not followed long enough": 1}


def test_at_the_landmark_an_arm_is_what_had_begun_by_then() -> None:
    tables = feature_cohort.make(60, seed=12)
    params = load("effect", Params, PARAMS)
    early, left_out = landmark(tables["measures"], tables["annotations"], tables["hips"], params)
    notes = tables["annotations"].set_index(["subject", "side"])
    for row in early.itertuples():
        own = notes.loc[[(row.subject, row.side)]]
        begun = own[(own["kind"] == "treatment") & (own["days"] <= params.landmark_days)]
        assert row.treatment == (begun["name"].iloc[-1] if len(begun) else "observation")
        events = own[(own["kind"] == "outcome") & own["name"].isin(["collapse", "stage_up", "arthroplasty"])]
        assert not (events["days"] <= params.landmark_days).any()
    assert left_out["event before the landmark"] > 0
    later = tables["annotations"]["kind"].eq("treatment") & (tables["annotations"]["days"] > params.landmark_days)
    assert later.any()
    again, _ = landmark(tables["measures"], tables["annotations"][~later], tables["hips"], params)
    pd.testing.assert_frame_equal(early, again)
