"""Functions of the room against published values, R, or another implementation."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

from tasks.evaluate import censoring, cox, needed, privacy

TIME = np.array([10.88, 19.78, 40.92, 98.7, 70.19, 10.15, 28.95, 29.57, 17.9, 63.78, 36.22, 83.14, 13.69, 99.51, 3.19])
EVENT = np.array([1, 0, 1, 0, 1, 1, 1, 1, 1, 0, 0, 1, 0, 0, 1])
MARKER = np.array(
    [-1.019, -0.016, 0.132, 0.269, -0.777, -1.077, 0.894, -1.227, -0.417, 0.072, -1.275, -0.91, -0.825, -0.292, -0.045]
)
"""A small example whose AUCs were taken from AUC.uno of the R package survAUC."""


@pytest.mark.parametrize(("at", "in_r"), [(15.0, 0.3030303), (28.0, 0.3629630), (66.0, 0.4500000)])
def test_time_dependent_auc_is_that_of_r(at: float, in_r: float) -> None:
    y, weight = censoring.weights(TIME, EVENT, at)
    assert censoring.auc(y, MARKER, weight) == pytest.approx(in_r, abs=1e-6)


def test_brier_score_of_a_cox_model_of_gbsg2_is_the_published_one() -> None:
    """German Breast Cancer Study Group 2, five years: 0.2088 (scikit-survival's documentation)."""
    from lifelines import CoxPHFitter
    from lifelines.datasets import load_gbsg2

    data = load_gbsg2()
    data["horTh"], data["menostat"] = (data["horTh"] == "yes") * 1.0, (data["menostat"] == "Post") * 1.0
    data["tgrade"] = data["tgrade"].str.len().astype(float)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        alive = CoxPHFitter().fit(data, "time", "cens").predict_survival_function(data, times=[1825.0]).to_numpy()[0]
    y, weight = censoring.weights(data["time"], data["cens"], 1825.0)
    assert censoring.brier(y, 1 - alive, weight) == pytest.approx(0.20881843, abs=1e-4)


def test_share_followed_is_the_kaplan_meier_of_being_lost() -> None:
    from lifelines import KaplanMeierFitter

    losses = KaplanMeierFitter().fit(TIME, 1 - EVENT)
    at = np.array([5.0, 18.0, 30.0, 50.0, 65.0, 90.0])
    assert censoring.followed(TIME, EVENT, at) == pytest.approx(losses.predict(at).to_numpy())


def test_without_losses_weights_are_one_and_a_weight_of_a_resample_is_a_repeated_row() -> None:
    y, weight = censoring.weights([100.0, 400.0, 365.0], [1, 0, 0], 365.0)
    assert y.tolist() == [1, 0, 0] and weight.tolist() == [1, 1, 1]  # followed to the very day: known
    y, weight = censoring.weights(TIME, EVENT, 66.0)
    times = np.random.default_rng(0).integers(0, 4, (3, len(y))).astype(float)
    for statistic, p in ((censoring.auc, MARKER), (censoring.brier, 1 / (1 + np.exp(-MARKER)))):
        repeated = [statistic(*(np.repeat(a, row.astype(int)) for a in (y, p, weight))) for row in times]
        assert statistic(y, p, weight, w=times) == pytest.approx(repeated)


def test_weights_undo_losses_that_would_bias() -> None:
    """Half of the hips are lost at random; the weighted event rate is that of the whole cohort."""
    rng = np.random.default_rng(4)
    time, lost = rng.exponential(600, 4000), rng.uniform(0, 900, 4000)
    truth = (time <= 365).mean()
    y, weight = censoring.weights(np.minimum(time, lost), time <= lost, 365.0)
    kept = weight > 0
    assert (weight * y).sum() / weight.sum() == pytest.approx(truth, abs=0.02)
    assert y[kept].mean() - truth > 0.05


def test_needed_for_development_is_pmsampsize() -> None:
    """R: pmsampsize(type = "b", csrsquared = 0.288, parameters = 24, prevalence = 0.174) gives 623, 662, 221."""
    found = needed.development(24, 0.174, 0.288)
    assert [found[k] for k in ("n_shrinkage", "n_optimism", "n_risk", "n", "events")] == [623, 662, 221, 662, 116]
    assert found["events_per_parameter"] == pytest.approx(4.8, abs=0.005)
    # Riley 2020 (BMJ 368:m441): the largest Cox-Snell R2 is 0.75, 0.48, 0.33 at 50, 10 (and 5) % events.
    assert [round(needed.r2_max(p), 2) for p in (0.5, 0.1, 0.05)] == [0.75, 0.48, 0.33]


def test_each_input_is_weighed_three_times() -> None:
    """The forecaster fits a weight for an input's value, its past mean and its change."""
    there = {"prevalence": 0.2, "auc": 0.8, "n": 100, "n_patients": 40, "n_events": 20}
    row = needed.beside(there, 10, there, 0.15)[0]
    assert row["needed"] == needed.development(30, 0.2, 0.15 * needed.r2_max(0.2))["n"]
    assert "30 penalized parameters" in row["assumes"]


def test_needed_for_evaluation_has_the_precision_that_was_asked_for() -> None:
    """Riley 2021: 385 for observed/expected at 50 %; the AUC's error is Newcombe's, held against a simulation."""
    found = needed.evaluation(0.8, 0.5)
    assert found["n_observed_expected"] == 385
    n = found["n_auc"]
    assert 2 * 1.96 * needed.auc_error(0.8, 0.5, n) <= 0.1 < 2 * 1.96 * needed.auc_error(0.8, 0.5, n - 1)
    rng = np.random.default_rng(0)
    shift = 1.1902  # two normal distributions so far apart have an AUC of 0.8
    ones, zeros = rng.normal(shift, 1, (400, 60)), rng.normal(0, 1, (400, 140))
    simulated = np.array([(a[:, None] > b).mean() for a, b in zip(ones, zeros, strict=True)])
    assert simulated.mean() == pytest.approx(0.8, abs=0.01)
    assert needed.auc_error(0.8, 0.3, 200) == pytest.approx(simulated.std(), rel=0.12)


def test_cox_is_fitted_without_the_fold_that_it_predicts(cohort, params) -> None:
    frame = cohort(patients=40).assign(lesion_fraction=lambda f: f["risk"], fold=lambda f: f["fold"])
    found = cox.risk(frame, params)
    known = frame["label"].notna()
    assert np.isfinite(found[known]).all() and (found[known] >= 0).all() and (found[known] <= 1).all()
    own = (frame["fold"] == "1") & known
    other = frame.assign(
        event_in_days=np.where(own, 50.0, frame["event_in_days"]),
        followed_days=np.where(own, 50.0, frame["followed_days"]),
    )
    again = cox.risk(other, params)
    assert np.array_equal(again[own], found[own])
    assert not np.allclose(again[(frame["fold"] == "2") & known], found[(frame["fold"] == "2") & known])
    assert np.isnan(cox.risk(frame.assign(event_in_days=np.nan), params)).all()


def test_k_counts_patients_that_are_alike(params) -> None:
    rows = [
        {"subject": f"S{i}", "days": day, "sex": "F", "age_band": "40 to 59", "vendor": "A", "treatment": "none"}
        for i in range(6) for day in (0.0, 180.0 + i)
    ]  # fmt: skip
    frame = pd.DataFrame(rows)
    assert privacy.anonymity(frame, params)["k"] == 6
    frame.loc[frame["subject"] == "S3", "sex"] = "M"
    found = privacy.anonymity(frame, params)
    assert (found["k"], found["unique"], found["unique_by"]["sex"]) == (1, 1, 1)
    assert privacy.anonymity(frame.iloc[:0], params)["k"] is None


def test_an_attack_finds_a_model_that_learnt_by_heart_and_not_an_honest_one(cohort, params) -> None:
    frame = cohort(patients=60)
    honest = privacy.membership(frame, params)
    assert honest["auc_low"] < 0.5 < honest["auc_high"]
    assert honest["n_members"] + honest["n_others"] == frame["subject"].nunique()
    learnt = frame.assign(seen_risk=np.where(frame["label"] == 1, 0.99, 0.01))
    assert privacy.membership(learnt, params)["auc"] > 0.95
    assert "reason" in privacy.membership(frame[frame["fold"] != "test"], params)
