"""What shifted is seen; what did not is left alone; of too few nothing is said."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tasks.drift import Params, drift, ks, psi, psi_words, rows

PARAMS = Params(bins=10, psi_watch=0.1, psi_alarm=0.25, alpha=0.05, min_patients=10, features=4)


def visits(patients: int, seed: int, shift: float = 0.0, vendor: str = "A") -> pd.DataFrame:
    draw = np.random.default_rng(seed)
    n = patients * 4
    vectors = draw.normal(0, 1, (n, 6)) * np.arange(1, 7)
    return pd.DataFrame(
        {
            "hip_visit": [f"{seed}.{i}-L" for i in range(n)],
            "subject": [f"OF{seed}{i // 4}" for i in range(n)],
            "snr": draw.normal(20, 4, n) + shift,
            "lesion_fraction": np.where(draw.random(n) < 0.2, np.nan, draw.beta(2, 6, n)),
            "vendor": [vendor if draw.random() < 0.7 else "B" for _ in range(n)],
            **{f"feature_{i}": vectors[:, i] for i in range(6)},
        }
    )


def by_column(found):
    return {row["column"]: row for row in found["columns"]}


def test_the_same_population_is_stable():
    for seed in range(2, 8):
        found = drift(visits(60, 1), visits(40, seed), PARAMS)
        assert found["status"] != "alarm", found["reason"]
    json.dumps(found, allow_nan=False)


def test_a_scanner_that_became_brighter_is_an_alarm():
    found = drift(visits(60, 1), visits(40, 2, shift=6.0), PARAMS)
    assert found["status"] == "alarm" and "snr" in found["reason"]
    assert by_column(found)["snr"]["p_holm"] < 0.05
    assert by_column(found)["lesion_fraction"]["status"] != "alarm"
    assert found["columns"][0]["column"] == "snr"


def test_a_new_vendor_is_an_alarm():
    found = drift(visits(60, 1), visits(40, 2, vendor="C"), PARAMS)
    assert by_column(found)["vendor"]["status"] == "alarm"


def test_of_few_patients_nothing_is_said():
    found = drift(visits(60, 1), visits(3, 2, shift=50.0), PARAMS)
    assert found["status"] == "too_few" and "fewer than 10" in found["reason"]
    assert drift(visits(60, 1), visits(60, 2).iloc[:0], PARAMS)["status"] == "too_few"


def test_the_features_of_largest_spread_are_compared():
    found = drift(visits(60, 1), visits(40, 2), PARAMS)
    assert {c for c in by_column(found) if c.startswith("feature_")} == {f"feature_{i}" for i in (2, 3, 4, 5)}


def test_ks_agrees_with_scipy():
    draw = np.random.default_rng(0)
    for shift in (0.0, 0.3, 1.0):
        a, b = draw.normal(0, 1, 120), draw.normal(shift, 1, 80)
        expected = stats.ks_2samp(a, b, method="asymp")
        distance, p_value = ks(a, b)
        assert distance == pytest.approx(expected.statistic)
        assert p_value == pytest.approx(expected.pvalue, abs=0.03)


def test_psi_by_hand():
    # Halves 50/50 against 75/25: 2 * 0.25 * ln(0.75 / 0.25) / 2 on each side.
    reference, recent = [0.0] * 50 + [1.0] * 50, [0.0] * 75 + [1.0] * 25
    by_hand = 0.25 * np.log(0.75 / 0.5) - 0.25 * np.log(0.25 / 0.5)
    assert psi(reference, recent, 2) == pytest.approx(by_hand, abs=1e-3)
    words = pd.Series(["a"] * 50 + ["b"] * 50), pd.Series(["a"] * 75 + [None] * 25)
    assert psi_words(words[0], words[0]) == 0
    assert psi_words(*words) > by_hand
    assert psi([1.0, 2.0], [np.nan, np.nan], 2) > 1


def test_tables_are_joined_by_hip_visit():
    hips = pd.DataFrame({"hip_visit": ["a", "b"], "subject": ["s", "t"], "status": ["ok", "ok"]})
    measures = pd.DataFrame({"hip_visit": ["a"], "lesion_fraction": [0.1], "lesion_fraction_se": [0.01]})
    features = pd.DataFrame({"hip_visit": ["b", "a"], "features": [[1.0, 2.0], None]})
    frame = rows(hips, measures, features, pd.DataFrame({"hip_visit": ["a"], "risk": [0.5]}))
    assert list(frame.columns) == [
        "hip_visit",
        "subject",
        "status",
        "lesion_fraction",
        "risk",
        "feature_0",
        "feature_1",
    ]
    assert frame["feature_1"].tolist()[1] == 2.0 and pd.isna(frame["feature_0"][0])
