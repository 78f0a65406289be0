"""Each fold is read by another network: what one of them ranks counts, not how their levels differ."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tasks.classify.reading import FEATURES
from tasks.classify.report import correlation, metrics_of
from tasks.nets.encoder import NUMBERS, ORDINAL


def test_auc_and_correlation_are_taken_within_folds() -> None:
    """Networks that know the share of lesions of the patients they learnt from, and nothing of these."""
    fold = np.repeat(["0", "1"], 20)
    y = np.concatenate([np.arange(20) < 4, np.arange(20) < 16]).astype(float)
    other = np.where(fold == "0", 0.8, 0.2)
    wobble = np.tile([1.0, -1.0], 20)  # as often up as down with and without a lesion
    rows = pd.DataFrame({"subject": [f"OF{i // 2}" for i in range(40)], "fold": fold})
    table = pd.DataFrame(dict.fromkeys(("lesion", *ORDINAL, *NUMBERS), y))
    level = np.log(other / (1 - other)) + 0.1 * wobble
    features = np.column_stack([level if name == "lesion" else other + 0.1 * wobble for name in FEATURES])
    slices = (other + 0.01 * wobble)[:, None]
    found = metrics_of(rows, features, slices, table, list(y[:, None]), 60)
    for unit in ("slice", "hip_visit"):
        assert found[unit]["auc"] == 0.5 and found[unit]["auc_pooled"] < 0.3
    assert found["slice"]["auc"] == np.mean([one["auc"] for one in found["slice"]["folds"].values()])
    for head in found["heads"].values():
        assert head["correlation"] == pytest.approx(0, abs=1e-9) and head["correlation_pooled"] < -0.5


def test_correlation_is_pearsons_in_one_fold_and_the_common_slope_in_many() -> None:
    draw = np.random.default_rng(5)
    x, one = draw.normal(size=60), np.zeros(60)
    y = x + draw.normal(size=60)
    assert correlation(x, y, one) == pytest.approx(np.corrcoef(x, y)[0, 1])
    fold = np.arange(60) % 3
    assert correlation(x, y + 9 * fold, fold) == pytest.approx(correlation(x, y, fold))
    weights = draw.integers(0, 3, (2, 60)).astype(float)
    for w, value in zip(weights, correlation(x, y, fold, w=weights), strict=True):
        again = np.repeat(np.arange(60), w.astype(int))
        assert value == pytest.approx(correlation(x[again], y[again], fold[again]))
