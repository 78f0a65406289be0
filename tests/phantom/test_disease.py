"""The course of disease at feature level: what published cohorts show, what history adds, and the confounding trap."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tasks.phantom.disease import OBSERVED_SD, events, population, simulate
from tasks.phantom.geometry import lesion_fraction

OBSERVED = [f"obs_{name}" for name in OBSERVED_SD]


@pytest.fixture(scope="module")
def cohort():
    return population(1500, 3)


def test_collapse_within_two_years_by_jic_type_follows_the_published_order(cohort):
    hips = cohort.hips[cohort.hips["affected"] & (cohort.hips["collapse_month"] > 0)]
    share = (hips["natural_collapse_month"] < 24).groupby(hips["jic0"]).mean()
    assert share["A"] == 0.0
    assert share["B"] == pytest.approx(0.079, abs=0.05)
    assert share["C1"] == pytest.approx(0.232, abs=0.06)
    assert share["C2"] == pytest.approx(0.578, abs=0.06)


def test_a_fifth_to_a_third_of_landmarks_progress_and_healthy_hips_never_do(cohort):
    known = cohort.visits[cohort.visits["label"].notna()]
    assert 0.18 <= known["label"].mean() <= 0.35
    healthy = known[~known["affected"]]
    assert len(healthy) > 0.08 * len(known)
    assert healthy["label"].sum() == 0
    assert (cohort.hips.loc[~cohort.hips["affected"], ["collapse_month", "arthroplasty_month"]] == np.inf).all(
        axis=None
    )


def test_history_gains_at_least_three_points_of_auc_over_the_last_visit(cohort):
    table = cohort.visits.sort_values(["hip", "visit"])
    by_hip = table.groupby("hip")
    history = table[OBSERVED].copy()
    years = (table["days"] / 365.25).replace(0, np.nan)
    for name in OBSERVED:
        history[f"{name}_mean"] = by_hip[name].expanding().mean().reset_index(level=0, drop=True)
        history[f"{name}_change"] = by_hip[name].diff().fillna(0)
        history[f"{name}_rate"] = ((table[name] - by_hip[name].transform("first")) / years).fillna(0)
    known = table["label"].notna().to_numpy()
    label, train = table["label"][known].to_numpy(), (table["patient"] < 750)[known].to_numpy()

    def auc(features: pd.DataFrame) -> float:
        values = features[known].to_numpy()
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.3, max_iter=500)).fit(
            values[train], label[train]
        )
        return roc_auc_score(label[~train], model.decision_function(values[~train]))

    last, with_history = auc(table[OBSERVED]), auc(history)
    oracle = roc_auc_score(label[~train], table["oracle"][known].to_numpy()[~train])
    assert with_history - last >= 0.03
    assert with_history <= oracle


def test_treatment_helps_but_looks_harmful_because_the_severe_are_treated(cohort):
    hips = cohort.hips[cohort.hips["affected"] & (cohort.hips["collapse_month"] > 0)]
    arm = hips.groupby("treatment")
    seen = (hips["collapse_month"] < 24).groupby(hips["treatment"]).mean()
    without = (hips["natural_collapse_month"] < 24).groupby(hips["treatment"]).mean()
    assert seen["vascularized_bone_graft"] > seen["observation"] + 0.1
    assert seen["vascularized_bone_graft"] < without["vascularized_bone_graft"] - 0.05
    assert arm["severity"].mean()["vascularized_bone_graft"] > arm["severity"].mean()["observation"] + 0.5


def test_a_vascularized_graft_grows_twelve_millimetres_and_almost_three_branches(cohort):
    visits = cohort.visits
    first = visits[visits["visit"] == 0].set_index("hip")
    later = visits[(visits["days_since_treatment"] > 365)].drop_duplicates("hip", keep="last").set_index("hip")
    change = (
        later[["vessel_length_mm", "vessel_branches"]] - first.loc[later.index, ["vessel_length_mm", "vessel_branches"]]
    )
    mean = change.groupby(later["treatment_now"]).mean()
    gain = mean.loc["vascularized_bone_graft"] - mean.loc["observation"]
    assert gain["vessel_length_mm"] == pytest.approx(12.4, abs=1.0)
    assert gain["vessel_branches"] == pytest.approx(2.7, abs=0.5)


def test_the_same_seed_is_the_same_cohort_and_another_is_another():
    pd.testing.assert_frame_equal(simulate(30, 5), simulate(30, 5))
    assert not simulate(30, 5)["obs_oedema"].equals(simulate(30, 6)["obs_oedema"])


def test_without_noise_observations_are_the_truth():
    table = simulate(40, 2, noise=0.0)
    np.testing.assert_allclose(table["obs_oedema"], table["oedema"])


def test_visits_are_three_or_four_in_order_and_none_lies_beyond_the_follow_up(cohort):
    counts = cohort.visits.groupby("patient")["visit"].nunique()
    assert set(counts) == {3, 4}
    days = cohort.visits[cohort.visits["side"] == "L"].groupby("patient")["days"]
    assert (days.diff().dropna() > 60).all()
    assert (cohort.visits["days"] <= cohort.visits["end_days"]).all()


def test_labels_agree_with_the_events_on_record(cohort):
    record = events(cohort.hips)
    rows = cohort.visits[cohort.visits["label"].notna()].sample(300, random_state=0)
    for _, row in rows.iterrows():
        mine = record[(record["patient"] == row["patient"]) & (record["side"] == row["side"])]
        within = (mine["day"] > row["days"]) & (mine["day"] <= min(row["days"] + 365, row["end_days"]))
        assert bool(row["label"]) == bool(within.any())


def test_nothing_happens_to_a_hip_after_its_arthroplasty(cohort):
    record = events(cohort.hips)
    replaced = record[record["event"] == "arthroplasty"].set_index(["patient", "side"])["day"]
    last = record.groupby(["patient", "side"])["day"].max()
    assert (last[replaced.index] == replaced).all()


def test_the_share_of_a_head_within_a_lesion_is_that_of_counted_points():
    points = np.random.default_rng(0).uniform(-1, 1, (200_000, 3))
    points = points[(points**2).sum(axis=1) < 1]
    for angle in (20.0, 40.0, 60.0):
        chord = 2 * np.sin(np.deg2rad(angle) / 2)
        counted = (((points - [0, 0, 1]) ** 2).sum(axis=1) < chord**2).mean()
        assert lesion_fraction(np.array([angle]))[0] == pytest.approx(counted, abs=0.005)
