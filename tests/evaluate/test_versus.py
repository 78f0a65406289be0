"""Champion and challenger on the same hip-visits."""

import numpy as np

from tasks.evaluate import versus


def test_the_better_model_is_seen_and_the_same_model_is_not(cohort, params):
    truth = cohort(patients=60)
    good = truth[["hip_visit", "risk"]]
    noise = good.assign(risk=np.random.default_rng(1).random(len(good)))
    found = versus(good, noise, truth, params)
    assert found["difference_auc"] > 0 and found["difference_brier"] < 0
    assert found["difference_auc_low"] > 0
    same = versus(good, good, truth, params)
    assert (same["difference_auc"], same["difference_auc_low"], same["difference_auc_high"]) == (0, 0, 0)
    assert {row["subgroup"] for row in same["subgroups"]} == {"vendor", "sex", "side", "treatment"}


def test_only_hip_visits_that_both_answer_are_compared(cohort, params):
    truth = cohort()
    both = truth[["hip_visit", "risk"]]
    found = versus(both, both.iloc[:30], truth, params)
    assert found["n"] == truth.iloc[:30]["label"].notna().sum()
    nothing = versus(both, both.iloc[:0], truth, params)
    assert nothing["n"] == 0 and nothing["difference_auc"] is None
