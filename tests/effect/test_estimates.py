"""The estimators: clustered intervals that cover, a doubly robust estimate that undoes confounding."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from second_cohort import NEVER, Lives, lives

from tasks.effect.estimate import doubly_robust, e_value, holm, mean_change
from tasks.effect.models import regressions
from tasks.phantom import course
from tasks.phantom.disease import population

LIMITS = (0.05, 0.95)


def confounded(n_patients: int, seed: int, effect: float = -0.20) -> tuple[np.ndarray, ...]:
    """Two hips a patient. The sicker are treated; treatment lowers the risk by `effect` on average."""
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(n_patients), 2)
    shared = np.repeat(rng.normal(0, 0.5, n_patients), 2)
    severity = rng.normal(size=len(patients)) * 0.85 + shared
    treated = rng.random(len(patients)) < 1 / (1 + np.exp(-1.2 * severity))
    base = np.clip(0.45 + 0.18 * severity + 0.1 * shared, 0.02, 0.98)
    risk = np.clip(base + effect * treated, 0.0, 1.0)
    truth = float((np.clip(base + effect, 0, 1) - base).mean())
    y = (rng.random(len(patients)) < risk).astype(float)
    x = np.column_stack([severity + rng.normal(0, 0.05, len(patients)), rng.normal(size=len(patients))])
    return y, treated, x, patients, np.array(truth)


def test_the_naive_sign_is_wrong_and_the_adjusted_interval_covers_the_truth() -> None:
    covered, naive_wrong, errors = 0, 0, []
    for seed in range(100):
        y, treated, x, patients, truth = confounded(150, seed)
        found = doubly_robust(y, treated, x, patients, LIMITS, 0.95).difference
        covered += found.low <= truth <= found.high
        naive_wrong += (
            abs(y[treated].mean() - y[~treated].mean()) < abs(truth) / 2 or y[treated].mean() > y[~treated].mean()
        )
        errors.append(found.value - truth)
    assert covered >= 90
    assert naive_wrong >= 90
    assert abs(np.mean(errors)) < 0.02


def test_clustered_bootstrap_covers_and_is_wider_than_rows() -> None:
    covered, widths = 0, []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        patients = np.repeat(np.arange(25), 3)
        y = 2.0 + np.repeat(rng.normal(0, 1, 25), 3) + rng.normal(0, 0.3, 75)
        found = mean_change(y, patients, 400, 0.95, seed)
        covered += found.low <= 2.0 <= found.high
        rows = mean_change(y, np.arange(75), 400, 0.95, seed)
        widths.append((found.high - found.low) / (rows.high - rows.low))
    assert covered >= 52
    assert np.mean(widths) > 1.3


def test_no_effect_gives_no_significance_more_often_than_it_should() -> None:
    small = 0
    for seed in range(100):
        y, treated, x, patients, _ = confounded(80, seed, effect=0.0)
        small += doubly_robust(y, treated, x, patients, LIMITS, 0.95).difference.p < 0.05
    assert small <= 12


def test_missing_covariates_and_one_constant_one_are_no_error() -> None:
    y, treated, x, patients, _ = confounded(60, 1)
    x[::4, 0] = np.nan
    x = np.column_stack([x, np.ones(len(y)), np.full(len(y), np.nan)])
    found = doubly_robust(y, treated, x, patients, LIMITS, 0.95)
    assert np.isfinite([found.difference.value, found.difference.low, found.treated.high]).all()


def test_e_values_of_published_examples() -> None:
    """VanderWeele & Ding 2017: a risk ratio of 3.9 has an E-value of 7.26; so has its inverse."""
    assert e_value(0.0, 1.0, 0.39, 0.10, True) == pytest.approx(7.26, abs=0.01)
    assert e_value(0.0, 1.0, 0.10, 0.39, True) == pytest.approx(7.26, abs=0.01)
    assert e_value(0.0, 2.0, 0.0, 0.0, False) == pytest.approx(1.0)


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03, np.nan])[:3] == pytest.approx([0.03, 0.06, 0.06])
    assert np.isnan(holm([0.01, np.nan])[1])
    assert holm([]) == []


def test_mixed_model_and_gee_find_the_effect_of_a_treatment() -> None:
    rng = np.random.default_rng(0)
    subject = np.repeat([f"S{i}" for i in range(80)], 2)
    severity = rng.normal(size=160)
    arm = np.where(rng.random(160) < 1 / (1 + np.exp(-severity)), "vascularized_bone_graft", "observation")
    change = 10.0 * (arm != "observation") - 3 * severity + np.repeat(rng.normal(0, 2, 80), 2) + rng.normal(0, 2, 160)
    frame = pd.DataFrame({"subject": subject, "treatment": arm, "x_severity": severity, "vessel_length_mm": change})
    found = regressions(frame, "vessel_length_mm", ["x_severity"], 0.95, 20, 1)
    assert [row["method"].split(",")[0] for row in found] == ["GEE", "linear mixed model"]
    for row in found:
        assert row["low"] < 10.0 < row["high"]
        assert row["high"] - row["low"] < 5


def phantom(patients: int, seed: int) -> tuple[np.ndarray, ...]:
    """Grafted and observed hips of a phantom cohort: progression within two years of the start, and what the
    treatment was chosen by."""
    hips = population(patients, seed).hips
    start = np.where(hips["treatment"] == "observation", 0.0, hips["treatment_month"].fillna(0.0))
    arms = hips["treatment"].isin(["vascularized_bone_graft", "observation"])
    kept = (hips["affected"] & arms & ~(hips["collapse_month"] <= start)).to_numpy()
    treated = (hips["treatment"] == "vascularized_bone_graft").to_numpy()
    x = hips[["severity", "arco0", "half_angle0_deg", "lateral_tilt_deg"]].to_numpy(dtype=float)
    return within(hips, start, 24)[kept], treated[kept], x[kept], hips["patient"].to_numpy()[kept], start, kept


def within(hips: pd.DataFrame, start: np.ndarray, months: float) -> np.ndarray:
    soonest = np.full(len(hips), np.inf)
    for column in ("stage2_month", "collapse_month", "stage3b_month", "arthroplasty_month"):
        month = hips[column].to_numpy(dtype=float)
        soonest = np.where(np.isfinite(month) & (month > start), np.fmin(soonest, month), soonest)
    return (soonest <= start + months).astype(float)


def test_the_trap_of_the_phantoms_is_undone_in_ninety_of_a_hundred_cohorts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treated hips look worse, though treatment helps. The truth is what the same hips do when all, and when none are
    grafted. With what the choice was made by, the interval covers it; with the place and size of the lesion alone, as
    one look at an image shows them, it does not: no estimator undoes what nobody recorded."""
    patients, seed = 4000, 1
    _, _, _, _, start, kept = phantom(patients, seed)
    scores = dict(course.TREATMENT_SCORE)
    worlds = []
    for arm in ("vascularized_bone_graft", "observation"):
        for name in scores:
            monkeypatch.setitem(course.TREATMENT_SCORE, name, (60.0 if name == arm else 0.0, 0.0))
        worlds.append(within(population(patients, seed).hips, start, 24)[kept].mean())
    monkeypatch.undo()
    truth = worlds[0] - worlds[1]
    assert truth < -0.08
    covered = naive_wrong = without = 0
    for cohort in range(100):
        y, treated, x, subjects, _, _ = phantom(200, 3000 + cohort)
        naive_wrong += y[treated].mean() >= y[~treated].mean()
        found = doubly_robust(y, treated, x, subjects, LIMITS, 0.95).difference
        covered += found.low <= truth <= found.high
        if cohort % 4 == 0:
            blind = doubly_robust(y, treated, x[:, 2:], subjects, LIMITS, 0.95).difference
            without += blind.low <= truth <= blind.high
    assert covered >= 90
    assert naive_wrong >= 90
    assert without < 12, "of 25"


def worn(patients: int, seed: int, grafts: np.ndarray | None = None) -> Lives:
    """The second generator, whose surgeons graft the large and lateral lesions, and whose grafts help half as much."""
    return lives(patients, np.random.default_rng([seed, 41]), (4.5, 11.0, 0.08), grafts, relief=0.5)


def broken(life: Lives, start: np.ndarray, kept: np.ndarray) -> np.ndarray:
    return ((life.broke > start) & (life.broke <= start + 104))[kept].astype(float)


def test_the_trap_is_undone_on_the_second_generator_as_well() -> None:
    """Another disease, other code: hips that wear out by the week, broken or not two years after the start."""
    everybody = worn(4000, 1)
    start = np.where(everybody.graft_week < NEVER, everybody.graft_week, 0)
    kept = everybody.broke > start
    with_graft, without_graft = (
        broken(worn(4000, 1, weeks), start, kept).mean() for weeks in (start, np.full(len(start), NEVER))
    )
    truth = with_graft - without_graft
    assert truth < -0.05
    covered = naive_wrong = without = 0
    for cohort in range(100):
        life = worn(200, 3000 + cohort)
        treated = life.graft_week < NEVER
        start = np.where(treated, life.graft_week, 0)
        kept = life.broke > start
        y, arm, patients = broken(life, start, kept), treated[kept], life.patient[kept]
        naive_wrong += y[arm].mean() >= y[~arm].mean()
        pressure = life.pressure[np.arange(len(start)), start]
        x = np.column_stack([life.size, life.lateral, pressure])[kept]
        found = doubly_robust(y, arm, x, patients, LIMITS, 0.95).difference
        covered += found.low <= truth <= found.high
        if cohort % 4 == 0:
            blind = doubly_robust(y, arm, x[:, 2:], patients, LIMITS, 0.95).difference
            without += blind.low <= truth <= blind.high
    assert covered >= 90
    assert naive_wrong >= 90
    assert without < 12, "of 25"
