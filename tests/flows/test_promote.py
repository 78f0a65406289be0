"""The gate: what a challenger must show on the same test patients, and what is said when it does not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from flows.promote import Params, judge

PARAMS = Params(min_events=5, auc_margin=0.05, slope_low=0.5, slope_high=2.0, bootstrap=200, seed=1)


def cohort(patients: int = 60, events: float = 0.4, champion_noise: float = 1.0, noise: float = 0.3) -> pd.DataFrame:
    """Labelled hip-visits of test patients, two each, and two models' risks: truth plus noise on the logit scale."""
    rng = np.random.default_rng(5)
    label = (rng.random(patients * 2) < events).astype(float)
    logit = 2 * label - 1

    def risk(sd: float) -> np.ndarray:
        return 1 / (1 + np.exp(-(logit + sd * rng.normal(size=logit.size))))

    subject = np.repeat([f"P{i}" for i in range(patients)], 2)
    return pd.DataFrame(
        {"subject": subject, "label": label, "challenger": risk(noise), "champion": risk(champion_noise)}
    )


def test_a_clearly_better_challenger_is_promoted_with_its_numbers() -> None:
    decision = judge(cohort(champion_noise=3.0), 1.0, 2, 1, PARAMS)
    assert decision["decision"] == "promoted"
    difference, low, high = decision["numbers"]["d_auc"]
    assert 0 < low < difference < high
    assert "120 hip-visits of 60 patients" in decision["reason"] and "95 % CI" in decision["reason"]


def test_a_worse_challenger_is_kept_and_the_reason_says_by_how_much() -> None:
    decision = judge(cohort(champion_noise=0.3, noise=3.0), 1.0, 2, 1, PARAMS)
    assert decision["decision"] == "kept as challenger"
    assert "could be worse by" in decision["reason"] and decision["numbers"]["d_auc"][2] < 0


def test_the_same_model_again_is_not_promoted() -> None:
    rows = cohort()
    decision = judge(rows.assign(champion=rows["challenger"]), 1.0, 2, 1, PARAMS)
    assert decision["decision"] == "kept as challenger" and "is better with 95 % confidence" in decision["reason"]
    assert decision["numbers"]["d_auc"][:3] == [0, 0, 0]


@pytest.mark.parametrize("slope", [None, 0.2, 4.0])
def test_a_challenger_that_is_not_calibrated_is_kept(slope: float | None) -> None:
    decision = judge(cohort(champion_noise=3.0), slope, 2, 1, PARAMS)
    assert decision["decision"] == "kept as challenger" and "calibration slope" in decision["reason"]


@pytest.mark.parametrize(("events", "n"), [(0.0, 0), (1.0, 120)])
def test_too_few_of_either_kind_are_no_comparison(events: float, n: int) -> None:
    decision = judge(cohort(events=events), 1.0, 2, 1, PARAMS)
    assert decision["decision"] == "kept as challenger"
    assert f"{n} events in 120 labelled hip-visits of 60 test patients are too few" in decision["reason"]
