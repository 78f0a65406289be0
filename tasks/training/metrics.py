"""Measures of discrimination and calibration, with intervals that resample patients.

A resample of patients is nothing but how often each patient was drawn, so the statistics of tasks.training.statistics
are called once with all resamples as weights. A resample on which a statistic is not defined (no event drawn) gives
NaN; it is left out of the interval and counted. Needs numpy alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from math import erf, sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.training.statistics import (
    accuracy,
    auc,
    average_precision,
    balanced_accuracy,
    brier,
    calibration,
    divide,
    ece,
    f1,
    in_the_large,
    intercept,
    log_loss,
    mean,
    net_benefit,
    per_score,
    precision,
    prevalence,
    ready,
    recall,
    slope,
    specificity,
)

__all__ = [
    "Estimate", "accuracy", "auc", "average_precision", "balanced_accuracy", "brier", "by_rows", "calibration",
    "calibration_bins", "clustered_bootstrap", "delong", "ece", "f1", "holm", "in_the_large", "intercept", "log_loss",
    "mean", "net_benefit", "none_if_nan", "paired_bootstrap", "precision", "prevalence", "recall", "roc_curve", "slope",
    "specificity", "wilson", "within",
]  # fmt: skip

Array = NDArray[np.float64]
Statistic = Callable[..., Any]

_CHUNK = 4_000_000  # weights held at a time: 32 MB


@dataclass(frozen=True)
class Estimate:
    """A number with its interval and what it rests on; unpacks to (value, low, high).

    n rows, n_patients clusters, n_events rows with y = 1 (None where the first array is not 0/1), resamples asked for,
    degenerate resamples left out, p_value (two-sided, of a difference from 0; None where there is no such question).
    """

    value: float
    low: float
    high: float
    n: int
    n_patients: int
    n_events: int | None = None
    resamples: int = 0
    degenerate: int = 0
    p_value: float | None = None

    def __iter__(self) -> Iterator[float]:
        return iter((self.value, self.low, self.high))

    def as_dict(self, name: str = "value") -> dict[str, float | int | None]:
        """{name, name_low, name_high, n, n_patients, n_events, degenerate[, p_value]}; NaN becomes None, for JSON."""
        row: dict[str, float | int | None] = {
            name: none_if_nan(self.value),
            f"{name}_low": none_if_nan(self.low),
            f"{name}_high": none_if_nan(self.high),
            "n": self.n,
            "n_patients": self.n_patients,
            "n_events": self.n_events,
            "degenerate": self.degenerate,
        }
        return row if self.p_value is None else row | {"p_value": none_if_nan(self.p_value)}


def none_if_nan(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


# ---- tables behind figures ----


def roc_curve(y: ArrayLike, p: ArrayLike) -> tuple[Array, Array, Array]:
    """(false positive rate, true positive rate, threshold), from (0, 0) to (1, 1)."""
    y, p, w, _ = ready(y, p, None)
    positive, negative = (side[0, ::-1] for side in per_score(y, p, w))
    tpr = np.concatenate([[0.0], divide(np.cumsum(positive), positive.sum())])
    fpr = np.concatenate([[0.0], divide(np.cumsum(negative), negative.sum())])
    return fpr, tpr, np.concatenate([[np.inf], np.unique(p)[::-1]])


def calibration_bins(y: ArrayLike, p: ArrayLike, bins: int = 10) -> list[dict[str, float]]:
    """Bins of about equal size in order of risk: {risk, rate, low, high (Wilson 95%), n, events}.

    Rows of the same risk stay together. The Wilson interval takes rows as independent: it is drawn, not tested.
    """
    y, p, _, _ = ready(y, p, None)
    if not len(y):
        return []
    edges = np.quantile(p, np.linspace(0, 1, bins + 1)[1:-1])
    which = np.searchsorted(edges, p, side="left")
    rows = []
    for one in np.unique(which):
        inside = which == one
        n, events = int(inside.sum()), int(y[inside].sum())
        low, high = wilson(events, n)
        rows.append(
            {"risk": float(p[inside].mean()), "rate": events / n, "low": low, "high": high, "n": n, "events": events}
        )
    return rows


def wilson(events: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """95% interval of a proportion from independent trials (Wilson 1927)."""
    if n == 0:
        return float("nan"), float("nan")
    rate, z2 = events / n, z * z
    centre, half = rate + z2 / (2 * n), z * sqrt(rate * (1 - rate) / n + z2 / (4 * n * n))
    return max(0.0, (centre - half) / (1 + z2 / n)), min(1.0, (centre + half) / (1 + z2 / n))


# ---- intervals ----


def clustered_bootstrap(
    arrays: Sequence[ArrayLike],
    clusters: ArrayLike,
    statistic: Statistic = auc,
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    strata: ArrayLike | None = None,
) -> Estimate:
    """`statistic(*arrays)` with its percentile interval over `n` resamples of whole clusters (patients).

    Rows where an array is not finite are left out first. The interval is NaN with one cluster, or where fewer than
    half of the resamples define the statistic. With `strata` it is the mean over them, see `within`.
    """
    kept, codes, n_clusters, parts = _complete(arrays, clusters, strata)
    statistic = within(statistic, parts)
    value = float(statistic(*kept)) if len(codes) else float("nan")
    values = _resample(lambda w: statistic(*kept, w=w), codes, n_clusters, n, seed)
    low, high, degenerate = _percentiles(values, level)
    return Estimate(value, low, high, len(codes), n_clusters, _events(kept), n, degenerate)


def paired_bootstrap(
    y: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    clusters: ArrayLike,
    statistic: Statistic = auc,
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    strata: ArrayLike | None = None,
) -> Estimate:
    """`statistic(y, first) - statistic(y, second)` on the same rows and the same resampled patients.

    p_value: twice the smaller share of resamples on either side of 0, never below 1 / resamples.
    """
    (y_, a, b), codes, n_clusters, parts = _complete([y, first, second], clusters, strata)
    statistic = within(statistic, parts)

    def difference(w: Array | None = None) -> Any:
        return statistic(y_, a, w=w) - statistic(y_, b, w=w)

    value = float(difference()) if len(codes) else float("nan")
    values = _resample(difference, codes, n_clusters, n, seed)
    low, high, degenerate = _percentiles(values, level)
    good = values[np.isfinite(values)]
    if np.isnan(low):
        p_value = float("nan")
    else:
        p_value = min(1.0, max(2 * min((good <= 0).mean(), (good >= 0).mean()), 1 / len(good)))
    return Estimate(value, low, high, len(codes), n_clusters, _events([y_]), n, degenerate, p_value)


def by_rows(function: Callable[..., float]) -> Statistic:
    """Make a statistic of any `function(*arrays) -> float` by repeating rows; slow, for what has no weighted form."""

    def statistic(*arrays: Array, w: Array | None = None) -> Any:
        if w is None:
            return function(*arrays)
        rows = [np.repeat(np.arange(len(arrays[0])), one.astype(int)) for one in w]
        return np.array([function(*(array[index] for array in arrays)) if len(index) else np.nan for index in rows])

    return statistic


def within(statistic: Statistic, strata: ArrayLike) -> Statistic:
    """`statistic(y, p)` inside each stratum, averaged with the weight events x non-events / rows.

    Out-of-fold risks come from another model in each fold. The fold that happens to hold more events was learnt for on
    the rest, which holds fewer, so its risks are low: over all folds together even a good model may rank below chance,
    and one that knows nothing always does. What a model can do shows among the hip-visits that it alone is asked about.
    """
    names, codes = np.unique(np.asarray(strata), return_inverse=True)
    if len(names) < 2:
        return statistic
    places = [np.flatnonzero(codes == k) for k in range(len(names))]

    def averaged(y: Array, *more: Array, w: Array | None = None) -> Any:
        total, sum_of = np.zeros(1 if w is None else len(w)), np.zeros(1 if w is None else len(w))
        for at in places:
            part = None if w is None else w[:, at]
            value = np.atleast_1d(statistic(y[at], *(one[at] for one in more), w=part))
            rows = np.full(1, float(len(at))) if part is None else part.sum(axis=1)
            events = y[at].sum(keepdims=True) if part is None else part @ y[at]
            weight = np.where(np.isfinite(value), events * (rows - events) / np.maximum(rows, 1), 0.0)
            total, sum_of = total + weight, sum_of + weight * np.nan_to_num(value)
        mean_of = divide(sum_of, total)
        return float(mean_of[0]) if w is None else mean_of

    return averaged


def delong(
    y: ArrayLike, p: ArrayLike, clusters: ArrayLike, level: float = 0.95, strata: ArrayLike | None = None
) -> Estimate:
    """AUC with the clustered DeLong interval of Obuchowski (Biometrics 1997; 53:567), normal on the AUC's scale. With
    `strata`, between which no patient is shared, of their mean as in `within`."""
    (y_, p_), codes, n_clusters, parts = _complete([y, p], clusters, strata)
    value = float(within(auc, parts)(y_, p_)) if len(codes) else float("nan")
    estimate = partial(Estimate, n=len(codes), n_patients=n_clusters, n_events=int((y_ == 1).sum()))
    total = variance = 0.0
    for k in range(int(parts.max(initial=-1)) + 1):
        own = parts == k
        events, rows = float(y_[own].sum()), float(own.sum())
        if 0 < events < rows:
            weight = events * (rows - events) / rows
            total += weight
            variance += weight**2 * _delong_variance(y_[own], p_[own], codes[own])
    if not total:
        return estimate(float("nan"), float("nan"), float("nan"))
    half = _normal_quantile(0.5 + level / 2) * sqrt(variance) / total
    return estimate(value, max(0.0, value - half), min(1.0, value + half)) if np.isfinite(half) else estimate(
        value, float("nan"), float("nan"))  # fmt: skip


def _delong_variance(y: Array, p: Array, codes: NDArray[np.intp]) -> float:
    """Of the AUC of one stratum that holds both events and non-events; NaN with one cluster of either."""
    _, codes = np.unique(codes, return_inverse=True)
    n_clusters, value = int(codes.max()) + 1, float(auc(y, p))
    ones, zeros = y == 1, y == 0
    m, k = int(ones.sum()), int(zeros.sum())
    negatives, positives = np.sort(p[zeros]), np.sort(p[ones])
    v10 = (np.searchsorted(negatives, p[ones], "left") + np.searchsorted(negatives, p[ones], "right")) / (2 * k)
    v01 = 1 - (np.searchsorted(positives, p[zeros], "left") + np.searchsorted(positives, p[zeros], "right")) / (2 * m)
    count = partial(np.bincount, minlength=n_clusters)
    d10 = count(codes[ones], v10) - count(codes[ones]) * value
    d01 = count(codes[zeros], v01) - count(codes[zeros]) * value
    i10, i01 = len(np.unique(codes[ones])), len(np.unique(codes[zeros]))
    if min(i10, i01, n_clusters) < 2:
        return float("nan")
    s10 = i10 / ((i10 - 1) * m) * (d10**2).sum()
    s01 = i01 / ((i01 - 1) * k) * (d01**2).sum()
    s11 = n_clusters / (n_clusters - 1) * (d10 * d01).sum()
    return float(max(0.0, s10 / m + s01 / k + 2 * s11 / (m * k)))


def holm(p_values: ArrayLike) -> Array:
    """Holm's adjusted p-values, in the order given; NaN stays NaN and is not counted as a test."""
    p = np.asarray(p_values, dtype=float)
    adjusted = np.full(p.shape, np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps)) if len(order) else []
    return adjusted


# ---- inside ----


def _complete(
    arrays: Sequence[ArrayLike], clusters: ArrayLike, strata: ArrayLike | None
) -> tuple[list[Array], NDArray[np.intp], int, NDArray[np.intp]]:
    """The rows where every array is finite, their clusters as numbers, how many, and their strata as numbers."""
    columns = [np.asarray(array, dtype=float) for array in arrays]
    finite = np.all([np.isfinite(column) for column in columns], axis=0)
    names, codes = np.unique(np.asarray(clusters, dtype=str)[finite], return_inverse=True)
    whole = np.zeros(len(finite), dtype=str) if strata is None else np.asarray(strata, dtype=str)
    _, parts = np.unique(whole[finite], return_inverse=True)
    return [column[finite] for column in columns], codes, len(names), parts


def _resample(statistic: Statistic, codes: NDArray[np.intp], n_clusters: int, n: int, seed: int) -> Array:
    if n_clusters < 2:
        return np.full(n, np.nan)
    counts = _draws(n_clusters, n, seed)
    size = max(1, _CHUNK // max(len(codes), n_clusters))
    parts = [statistic(w=counts[start : start + size][:, codes].astype(float)) for start in range(0, n, size)]
    return np.concatenate([np.asarray(part, dtype=float) for part in parts]) if parts else np.zeros(0)


@lru_cache(maxsize=8)
def _draws(n_clusters: int, n: int, seed: int) -> NDArray[np.uint16]:
    """(n, n_clusters): how often each cluster was drawn. Kept, because a report asks for the same draws many times."""
    draw = np.random.default_rng(seed)
    counts = draw.multinomial(n_clusters, np.full(n_clusters, 1 / n_clusters), size=n)
    return counts.astype(np.uint16)


def _percentiles(values: Array, level: float) -> tuple[float, float, int]:
    good = values[np.isfinite(values)]
    degenerate = len(values) - len(good)
    if not len(good) or len(good) < len(values) / 2:
        return float("nan"), float("nan"), degenerate
    low, high = np.quantile(good, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high), degenerate


def _events(arrays: Sequence[Array]) -> int | None:
    first = arrays[0]
    return int(first.sum()) if np.isin(first, (0.0, 1.0)).all() else None


def _normal_quantile(p: float) -> float:
    """Inverse of the normal distribution by bisection: the standard library's erf, no scipy on a GPU worker."""
    low, high = -10.0, 10.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if (1 + erf(middle / sqrt(2))) / 2 < p else (low, middle)
    return (low + high) / 2
