"""The penalized regression, the exposures and the calibration behind the forecaster."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from tasks.forecast import hazard
from tasks.forecast.hazard import Exposure


def simulated(n: int, seed: int, features: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, features))
    weight = np.array([1.0, -0.5, 0.0, 0.3])[:features]
    return x, (rng.random(n) < 1 / (1 + np.exp(-(x @ weight - 1)))).astype(float)


@pytest.mark.parametrize("ridge", [0.5, 10.0])
def test_one_interval_is_ridge_logistic_regression(ridge: float) -> None:
    x, y = simulated(400, 0)
    found = hazard.fit(x, Exposure(np.ones((400, 1)), y[:, None]), ridge)
    peer = LogisticRegression(C=1 / ridge, tol=1e-8, max_iter=1000).fit(x, y)
    assert found.weight == pytest.approx(peer.coef_[0], abs=2e-3)
    assert found.alpha[0] == pytest.approx(peer.intercept_[0], abs=5e-3)


def test_many_intervals_are_the_regression_on_person_periods() -> None:
    x, _ = simulated(300, 1)
    rng = np.random.default_rng(2)
    event, seen = np.zeros((300, 3)), np.zeros((300, 3))
    for row in range(300):
        for j in range(3):
            seen[row, j] = 1
            if rng.random() < 1 / (1 + np.exp(2 - x[row, 0] - 0.3 * j)):
                event[row, j] = 1
                break
            if rng.random() < 0.2:
                break
    found = hazard.fit(x, Exposure(seen, event), 1.0)
    rows, columns = np.nonzero(seen)
    design = np.column_stack([x[rows], np.eye(3)[columns] * 1e3])  # the intervals' own levels all but unpenalized
    peer = LogisticRegression(C=1.0, fit_intercept=False, tol=1e-9, max_iter=5000).fit(design, event[rows, columns])
    assert found.weight == pytest.approx(peer.coef_[0][:4], abs=0.02)


def test_separable_and_empty_data_end_in_finite_numbers() -> None:
    x = np.linspace(-1, 1, 40)[:, None] * np.ones((1, 30))
    y = (x[:, :1] > 0).astype(float)
    assert np.isfinite(hazard.fit(x, Exposure(np.ones_like(y), y), 1.0).weight).all()
    nothing = hazard.fit(x, Exposure(np.ones_like(y), np.zeros_like(y)), 1.0)
    assert (hazard.risk(x @ nothing.weight, nothing.alpha) < 0.1).all()


def test_exposure_keeps_hips_that_were_lost() -> None:
    label = np.array([1.0, 0.0, np.nan, np.nan, 1.0, np.nan])
    event = np.array([100.0, np.nan, np.nan, 500.0, 365.0, 50.0])
    followed = np.array([100.0, 900.0, 200.0, 500.0, 365.0, 50.0])
    at_risk = np.array([True] * 5 + [False])
    data = hazard.exposure(label, event, followed, at_risk, 365.0, 4)
    assert data.seen.sum(axis=1).tolist() == [2, 4, 2, 4, 4, 0]
    assert data.event.sum(axis=1).tolist() == [1, 0, 0, 0, 1, 0]
    assert data.event[0].tolist() == [0, 1, 0, 0]
    assert data.event[4].tolist() == [0, 0, 0, 1]


def test_exposure_of_a_table_that_has_labels_alone() -> None:
    unknown = np.full(3, np.nan)
    data = hazard.exposure(np.array([1.0, 0.0, np.nan]), unknown, unknown, np.ones(3, bool), 365.0, 2)
    assert data.seen.tolist() == [[1, 1], [1, 1], [0, 0]]
    assert data.event.tolist() == [[0, 1], [0, 0], [0, 0]]


def test_resampled_weights_spread_as_refits_do() -> None:
    x, y = simulated(300, 5)
    patients = np.repeat(np.arange(100), 3)
    data = Exposure(np.ones((300, 1)), y[:, None])
    found = hazard.fit(x, data, 1.0)
    quick = hazard.resample(x, data, found, patients, 400, np.random.default_rng(0))[:, :4].std(axis=0)
    refits = []
    rng = np.random.default_rng(1)
    for _ in range(60):
        rows = np.concatenate([np.flatnonzero(patients == p) for p in rng.integers(0, 100, 100)])
        refits.append(hazard.fit(x[rows], data.rows(rows), 1.0).weight)
    assert quick == pytest.approx(np.std(refits, axis=0), rel=0.35)


def test_platt_corrects_overconfidence_and_leaves_few_events_alone() -> None:
    rng = np.random.default_rng(0)
    odds = rng.normal(-1, 1.5, 2000)
    y = (rng.random(2000) < 1 / (1 + np.exp(-odds))).astype(float)
    intercept, slope = hazard.platt(1 / (1 + np.exp(-2 * odds - 0.5)), y, 5)
    assert slope == pytest.approx(0.5, abs=0.06)
    assert intercept == pytest.approx(-0.25, abs=0.15)
    assert hazard.platt(np.full(20, 0.2), np.array([1.0] * 3 + [0.0] * 17), 5) == (0.0, 1.0)
    assert hazard.platt(np.array([0.2]), np.array([np.nan]), 5) == (0.0, 1.0)


def test_the_slope_of_calibration_is_that_within_folds() -> None:
    """Risks are right but for their level, which runs against the outcome's from fold to fold."""
    rng = np.random.default_rng(4)
    fold, odds = np.arange(1500) % 3, rng.normal(0, 0.7, 1500)
    y = (rng.random(1500) < 1 / (1 + np.exp(-(odds + fold - 2)))).astype(float)
    risks = 1 / (1 + np.exp(-(odds - fold)))
    assert hazard.platt(risks, y, 5)[1] < 0.4
    intercept, slope = hazard.platt(risks, y, 5, fold)
    assert slope == pytest.approx(1.0, abs=0.15)
    assert float(np.mean(hazard.calibrated(risks, (intercept, slope)))) == pytest.approx(y.mean(), abs=0.02)


def test_ridge_is_chosen_by_patients_left_out() -> None:
    """Pure noise wants the largest penalty, a strong signal a small one."""
    rng = np.random.default_rng(3)
    x, patients = rng.normal(size=(240, 20)), np.repeat(np.arange(80).astype(str), 3)
    noise = (rng.random(240) < 0.3).astype(float)[:, None]
    signal = (rng.random(240) < 1 / (1 + np.exp(-2.5 * x[:, 0]))).astype(float)[:, None]
    seen = np.ones((240, 1))
    grid = (1.0, 300.0)
    parts = hazard.inner_parts(patients, 3)
    assert all(len(set(parts[patients == name])) == 1 for name in patients)
    assert hazard.choose_ridge(x, Exposure(seen, noise), parts, grid).ridge == 300.0
    found = hazard.choose_ridge(x[:, :3], Exposure(seen, signal), parts, grid)
    assert found.ridge == 1.0
    assert np.isfinite(found.eta).all()
