"""Change is taken where both visits were measured at the same place; elsewhere whole pictures are compared."""

from __future__ import annotations

import feature_cohort
import numpy as np
import pytest

from tasks.domain.params import load
from tasks.effect import Params
from tasks.effect.cohort import cohort

PARAMS = load("effect", Params, feature_cohort.PARAMS)


def test_registered_changes_go_first_and_are_counted() -> None:
    tables = feature_cohort.make(30, seed=4)
    plain, _ = cohort(tables["measures"], tables["annotations"], tables["hips"], PARAMS)
    measures = tables["measures"].copy()
    # Each visit but the first of a hip shows 5 mm of vessel that the first one's field of view had left out.
    of_hip = measures.groupby(["subject", "side"])
    first = of_hip["days"].transform("min") == measures["days"]
    before = of_hip["vessel_length_mm"].transform("first")
    measures["vessel_length_mm_change"] = measures["vessel_length_mm"] - before - np.where(first, 0.0, 5.0)
    lost = measures["subject"] == plain.loc[plain["vessel_length_mm"].notna(), "subject"].iloc[0]
    measures.loc[lost & ~first, "vessel_length_mm_change"] = np.nan  # these could not be laid onto each other
    found, _ = cohort(measures, tables["annotations"], tables["hips"], PARAMS)
    known = found["vessel_length_mm"].notna()
    placed = known & (found["vessel_length_mm_same_place"] == 1)
    assert placed.sum() > 5 and (found.loc[known & ~placed, "vessel_length_mm_same_place"] == 0).all()
    away = plain["vessel_length_mm"] - found["vessel_length_mm"]
    from_first = placed & (found["baseline_days"] == 0)
    assert from_first.any() and away[from_first].to_numpy() == pytest.approx(5.0)
    assert away[placed & ~from_first].to_numpy() == pytest.approx(0.0)  # neither of the two visits is the first
    assert away[known & ~placed].to_numpy() == pytest.approx(0.0)
    assert (known & ~placed).sum() == (known & (found["subject"].isin(measures.loc[lost, "subject"]))).sum()
    assert "lesion_fraction_same_place" not in found or (found["lesion_fraction_same_place"].dropna() == 0).all()
    # What the registration adds to the error of a change goes with it, and only where the change rests on it.
    measures["vessel_length_mm_change_registration_se"] = np.where(first, 0.0, 3.0)
    wider, _ = cohort(measures, tables["annotations"], tables["hips"], PARAMS)
    plain_se, se = found["vessel_length_mm_se"], wider["vessel_length_mm_se"]
    assert se[from_first].to_numpy() == pytest.approx(np.hypot(plain_se[from_first], 3.0))
    assert se[known & ~placed].to_numpy() == pytest.approx(plain_se[known & ~placed].to_numpy())
