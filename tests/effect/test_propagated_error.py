"""The error of measurement, carried into the estimates: intervals that are too narrow or beside the truth without it
(the negative control) hold the truth with it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from tasks.effect.estimate import doubly_robust, t_interval
from tasks.effect.models import GEE, MIXED, WITH_ERROR, regressions
from tasks.effect.propagate import mixed, simex, steadied

Array = NDArray[np.float64]


def unequal(seed: int) -> tuple[Array, Array, NDArray, Array]:
    """(change, design, patients, error as three repeats give it): eight grafted patients are measured eight times
    worse than thirty-two observed ones; the truth is +10."""
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(40), 2)
    grafted = patients < 8
    error = np.where(grafted, 8.0, 1.0) * rng.uniform(0.8, 1.2, 80)
    own = np.repeat(rng.normal(0, 1.5, 40), 2) + rng.normal(0, 2.0, 80)
    change = 10.0 * grafted + own + rng.normal(size=80) * error
    known = error * np.sqrt(rng.chisquare(2, 80) / 2)
    return change, np.column_stack([grafted, np.ones(80)]).astype(float), patients, known


def test_a_mixed_model_that_knows_the_errors_covers_and_one_that_does_not_is_too_narrow() -> None:
    covered = {"without": 0, "with": 0}
    for seed in range(100):
        y, design, patients, error = unequal(seed)
        for name, variance in (("without", np.zeros(80)), ("with", steadied(error, design[:, 0]))):
            found = mixed(y, design, patients, variance)
            one = t_interval(float(found.coefficients[0]), float(found.errors[0]), 38, 0.95)
            covered[name] += one.low <= 10.0 <= one.high
    assert covered["with"] >= 90
    assert covered["without"] <= 84


def test_without_errors_the_mixed_model_is_that_of_statsmodels() -> None:
    import statsmodels.api as sm

    rng = np.random.default_rng(3)
    patients = np.repeat(np.arange(50), 2)
    design = np.column_stack([rng.random(100) < 0.4, rng.normal(size=100), np.ones(100)]).astype(float)
    y = design @ [4.0, 1.0, 2.0] + np.repeat(rng.normal(0, 2.0, 50), 2) + rng.normal(0, 1.5, 100)
    theirs, ours = sm.MixedLM(y, design, patients).fit(), mixed(y, design, patients, np.zeros(100))
    assert ours.coefficients == pytest.approx(np.asarray(theirs.fe_params), rel=1e-2)
    assert ours.errors == pytest.approx(np.asarray(theirs.bse_fe), rel=2e-2)
    assert ours.patient_sd**2 == pytest.approx(float(np.asarray(theirs.cov_re)[0, 0]), rel=5e-2)


def confounded(seed: int, error: float) -> tuple[Array, NDArray[np.bool_], Array, Array, NDArray]:
    """(change, treated, covariates, their errors, patients): the sicker are treated and do worse; how sick is measured
    with `error` (SD; between hips it is 1). The truth is +4."""
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(120), 2)
    severity = rng.normal(0, 0.85, 240) + np.repeat(rng.normal(0, 0.5, 120), 2)
    treated = rng.random(240) < 1 / (1 + np.exp(-severity))
    change = 4.0 * treated - 3.0 * severity + np.repeat(rng.normal(0, 1, 120), 2) + rng.normal(0, 2, 240)
    seen = np.column_stack([severity + rng.normal(0, error, 240), rng.normal(size=240)])
    return change, treated, seen, np.column_stack([np.full(240, error), np.full(240, np.nan)]), patients


def test_what_is_adjusted_for_with_error_leaves_confounding_that_simex_takes_away() -> None:
    covered, bias = {"without": 0, "with": 0}, {"without": 0.0, "with": 0.0}
    for seed in range(40):
        change, treated, seen, errors, patients = confounded(seed, 0.5)

        def estimate(x: Array, y: Array, treated: NDArray = treated, patients: NDArray = patients) -> tuple:
            found = doubly_robust(y, treated, x, patients, (0.05, 0.95), 0.95).difference
            return np.array([found.value]), np.array([found.error**2])

        for name, redraws in (("without", 0), ("with", 6)):
            values, variances = simex(estimate, seen, errors, change, None, redraws, seed)
            one = t_interval(float(values[0]), float(np.sqrt(variances[0])), 119, 0.95)
            covered[name] += one.low <= 4.0 <= one.high
            bias[name] += (one.value - 4.0) / 40
    assert covered["with"] >= 36
    assert covered["without"] <= 32
    assert abs(bias["with"]) < 0.15 < 0.35 < abs(bias["without"])


def test_error_of_a_baseline_that_is_in_the_change_too_is_drawn_in_both() -> None:
    """Regression to the mean: where a change is adjusted for its own baseline, error in that looks like a course."""
    rng = np.random.default_rng(5)
    true = rng.normal(0, 1.0, 4000)
    before, after = true + rng.normal(0, 0.5, 4000), true + rng.normal(0, 0.5, 4000)

    def slope(x: Array, y: Array) -> tuple[Array, Array]:
        return np.array([np.polyfit(x[:, 0], y, 1)[0]]), np.array([1e-4])

    x, errors = before[:, None], np.full((4000, 1), 0.5)
    naive, _ = simex(slope, x, errors, after - before, 0, 0, 1)
    corrected, _ = simex(slope, x, errors, after - before, 0, 10, 1)
    assert naive[0] == pytest.approx(-0.2, abs=0.03)
    assert corrected[0] == pytest.approx(0.0, abs=0.06)


def test_the_models_stand_beside_themselves_without_and_with_the_error() -> None:
    y, design, patients, error = unequal(1)
    frame = pd.DataFrame({
        "subject": patients, "treatment": np.where(design[:, 0] > 0, "vascularized_bone_graft", "observation"),
        "vessel_length_mm": y, "vessel_length_mm_se": error, "x_a": np.arange(80) % 7.0, "x_a_se": 0.5,
    })  # fmt: skip
    rows = {row["method"]: row for row in regressions(frame, "vessel_length_mm", ["x_a"], 0.95, 4, 1)}
    assert set(rows) == {GEE, MIXED, GEE + WITH_ERROR, MIXED + WITH_ERROR}
    width = {name: row["high"] - row["low"] for name, row in rows.items()}
    assert width[MIXED + WITH_ERROR] > 1.3 * width[MIXED]
    assert all(row["low"] < 10.0 < row["high"] for name, row in rows.items() if name.endswith(WITH_ERROR))
    without = regressions(
        frame.drop(columns=["vessel_length_mm_se", "x_a_se"]), "vessel_length_mm", ["x_a"], 0.95, 4, 1
    )
    assert {row["method"] for row in without} == {GEE, MIXED}


def test_an_error_of_three_repeats_is_drawn_towards_that_of_its_arm() -> None:
    found = steadied(np.array([1.0, 3.0, np.nan, np.nan]), np.array(["a", "a", "a", "b"]))
    assert found == pytest.approx([(2 * 1 + 4 * 5) / 6, (2 * 9 + 4 * 5) / 6, 5.0, 0.0])
