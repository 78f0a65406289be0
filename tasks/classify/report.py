"""How well the networks read patients that they did not see.

Each fold was read by another network: AUC and correlation are taken within folds (`metrics.within`), auc_pooled and
correlation_pooled over all folds together, where the levels of the networks differ against those of their folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from tasks.classify.reading import FEATURES
from tasks.domain.disease import ARCO
from tasks.nets.encoder import NUMBERS, ORDINAL
from tasks.training import metrics
from tasks.training.metrics import none_if_nan


def metrics_of(
    rows: pd.DataFrame, features: np.ndarray, slices: np.ndarray, table: pd.DataFrame, labelled: Sequence[np.ndarray],
    resamples: int,
) -> dict[str, Any]:  # fmt: skip
    """rows: out-of-fold hip-visits; features (n, F), slices (n, D) of them; table, labelled: what was to be found."""
    value = {name: features[:, i] for i, name in enumerate(FEATURES)}
    out: dict[str, Any] = {"n_hip_visits": len(rows), "n_patients": int(rows["subject"].nunique())}
    pairs = [
        (row.subject, row.fold, wanted, found)
        for row, want, find in zip(rows.itertuples(), labelled, slices, strict=True)
        if len(want) == len(find)
        for wanted, found in zip(want, find, strict=True)
        if np.isfinite(wanted) and np.isfinite(found)
    ]
    each = pd.DataFrame(pairs, columns=["subject", "fold", "y", "p"])
    out["slice"] = _binary(each, resamples)
    out["slice"]["folds"] = {str(fold): _point(part) for fold, part in each.groupby("fold")}
    out["slice_calibration"] = metrics.calibration_bins(each["y"], each["p"])
    visit = rows[["subject", "fold"]].reset_index(drop=True).assign(y=table["lesion"].to_numpy(dtype=float))
    visit["p"] = 1 / (1 + np.exp(-value["lesion"]))
    out["hip_visit"] = _binary(visit.dropna(), resamples)
    out["heads"] = {
        name: _number(value[name], table[name].to_numpy(dtype=float), rows["subject"].to_numpy(),
                      rows["fold"].to_numpy(str), resamples)
        for name in (*ORDINAL, *NUMBERS)
    }  # fmt: skip
    out["stage_confusion"] = _confusion(value["stage"], table["stage"].to_numpy(dtype=float))
    return out


def _binary(each: pd.DataFrame, resamples: int) -> dict[str, Any]:
    out: dict[str, Any] = {"n": len(each), "n_patients": int(each["subject"].nunique())}
    out["prevalence"] = none_if_nan(each["y"].mean()) if len(each) else None
    for name in ("auc", "accuracy", "recall", "specificity", "brier"):
        found = metrics.clustered_bootstrap(
            [each["y"], each["p"]], each["subject"], getattr(metrics, name), resamples,
            strata=each["fold"] if name == "auc" else None,
        )  # fmt: skip
        out |= {name: none_if_nan(found.value), f"{name}_low": none_if_nan(found.low)}
        out |= {f"{name}_high": none_if_nan(found.high)}
    return out | {"auc_pooled": none_if_nan(metrics.auc(each["y"], each["p"]))}


def _point(each: pd.DataFrame) -> dict[str, Any]:
    return {
        "n": len(each),
        "auc": none_if_nan(metrics.auc(each["y"], each["p"])),
        "recall": none_if_nan(metrics.recall(each["y"], each["p"])),
    }


def _number(
    found: np.ndarray, wanted: np.ndarray, subjects: np.ndarray, folds: np.ndarray, resamples: int
) -> dict[str, Any]:
    """Correlation and mean absolute error, in the head's unit, with intervals that resample patients."""
    both = np.isfinite(found) & np.isfinite(wanted)
    found, wanted, subjects, folds = (one[both] for one in (found, wanted, subjects, folds))
    out: dict[str, Any] = {"n": len(found), "n_patients": len(np.unique(subjects))}
    related = partial(correlation, folds=folds)
    together = metrics.clustered_bootstrap([wanted, found], subjects, related, resamples)
    error = metrics.clustered_bootstrap([np.abs(wanted - found)], subjects, metrics.mean, resamples)
    for name, one in {"correlation": together, "absolute_error": error}.items():
        out |= {name: none_if_nan(one.value), f"{name}_low": none_if_nan(one.low)}
        out |= {f"{name}_high": none_if_nan(one.high)}
    pooled = correlation(wanted, found, np.zeros(len(found)))
    return out | {"correlation_pooled": none_if_nan(pooled)}


def correlation(x: np.ndarray, y: np.ndarray, folds: np.ndarray, w: np.ndarray | None = None) -> Any:
    """Pearson's of what is left of x and y without their folds' means, over rows of weights as tasks.training.metrics
    has them."""
    weight = np.ones((1, len(x))) if w is None else np.atleast_2d(w)
    covariance, of_x, of_y = np.zeros((3, len(weight)))
    for fold in np.unique(folds):
        at = folds == fold
        own, a, b = weight[:, at], x[at], y[at]
        total = np.maximum(own.sum(1), 1e-12)
        mean_a, mean_b = own @ a / total, own @ b / total
        covariance += own @ (a * b) - total * mean_a * mean_b
        of_x += np.clip(own @ a**2 - total * mean_a**2, 0, None)
        of_y += np.clip(own @ b**2 - total * mean_b**2, 0, None)
    rows = np.maximum(weight.sum(1), 1e-12)
    spread = np.sqrt(of_x * of_y) / rows
    out = np.divide(covariance / rows, spread, out=np.full(len(weight), np.nan), where=spread > 1e-9)
    return float(out[0]) if w is None else out


def _confusion(found: np.ndarray, wanted: np.ndarray) -> dict[str, Any]:
    """Counts of hip-visits: rows as the readers said, columns as the networks did (expected level, rounded)."""
    names = ["none", *ARCO]
    both = np.isfinite(found) & np.isfinite(wanted)
    counts = np.zeros((len(names), len(names)), dtype=int)
    called = np.clip(np.round(found[both]), 0, len(ARCO)).astype(int)
    np.add.at(counts, (wanted[both].astype(int), called), 1)
    return {"levels": names, "counts": counts.tolist(), "n": int(both.sum())}
