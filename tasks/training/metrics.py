"""Measures of discrimination and calibration, with intervals that resample patients.

A statistic is a function `statistic(*arrays, w=None)`: without `w` it returns one float; with `w` of shape (B, n), one
row of weights per resample, it returns (B,). So a bootstrap is one vectorized call: a resample of patients is nothing
but how often each patient was drawn. A resample on which a statistic is not defined (no event drawn) gives NaN; it is
left out of the interval and counted. Needs numpy alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import erf, sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Statistic = Callable[..., Any]

_CHUNK = 4_000_000  # weights held at a time: 32 MB
_EPS = 1e-6  # risks are kept this far from 0 and 1 before their logit is taken


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


# ---- statistics of (y, p): y is 0/1, p is a risk or score; higher means more likely 1 ----


def auc(y: ArrayLike, p: ArrayLike, w: ArrayLike | None = None) -> Any:
    """Area under the ROC curve; a tie between a 1 and a 0 counts one half."""
    y, p, w, single = _ready(y, p, w)
    positive, negative = _per_score(y, p, w)
    below = np.cumsum(negative, axis=1) - negative
    pairs = positive.sum(axis=1) * negative.sum(axis=1)
    return _out(_divide((positive * (below + negative / 2)).sum(axis=1), pairs), single)


def average_precision(y: ArrayLike, p: ArrayLike, w: ArrayLike | None = None) -> Any:
    """Area under the precision-recall curve by steps; its chance level is the prevalence."""
    y, p, w, single = _ready(y, p, w)
    positive, negative = (side[:, ::-1] for side in _per_score(y, p, w))
    found, called = np.cumsum(positive, axis=1), np.cumsum(positive + negative, axis=1)
    return _out(_divide((positive * _divide(found, called, 0.0)).sum(axis=1), positive.sum(axis=1)), single)


def brier(y: ArrayLike, p: ArrayLike, w: ArrayLike | None = None) -> Any:
    """Mean squared difference of risk and outcome, 0 (best) to 1."""
    y, p, w, single = _ready(y, p, w)
    return _out(_divide(w @ (p - y) ** 2, w.sum(axis=1)), single)


def log_loss(y: ArrayLike, p: ArrayLike, w: ArrayLike | None = None) -> Any:
    y, p, w, single = _ready(y, p, w)
    q = np.clip(p, _EPS, 1 - _EPS)
    return _out(_divide(w @ -(y * np.log(q) + (1 - y) * np.log(1 - q)), w.sum(axis=1)), single)


def prevalence(y: ArrayLike, p: ArrayLike | None = None, w: ArrayLike | None = None) -> Any:
    y, _, w, single = _ready(y, y if p is None else p, w)
    return _out(_divide(w @ y, w.sum(axis=1)), single)


def accuracy(y: ArrayLike, p: ArrayLike, w: ArrayLike | None = None, threshold: float = 0.5) -> Any:
    """Of all, how many are called right, where p >= threshold is called 1."""
    y, p, w, single = _ready(y, p, w)
    return _out(_divide(w @ ((p >= threshold) == (y == 1)).astype(float), w.sum(axis=1)), single)


def recall(y: ArrayLike, p: ArrayLike, w: ArrayLike | None = None, threshold: float = 0.5) -> Any:
    """Sensitivity: of the ones, how many are called 1."""
    y, p, w, single = _ready(y, p, w)
    return _out(_divide(w @ ((p >= threshold) * y), w @ y), single)


def specificity(y: ArrayLike, p: ArrayLike, w: ArrayLike | None = None, threshold: float = 0.5) -> Any:
    """Of the zeros, how many are called 0."""
    y, p, w, single = _ready(y, p, w)
    return _out(_divide(w @ ((p < threshold) * (1 - y)), w @ (1 - y)), single)


def precision(y: ArrayLike, p: ArrayLike, w: ArrayLike | None = None, threshold: float = 0.5) -> Any:
    """Of those called 1, how many are."""
    y, p, w, single = _ready(y, p, w)
    called = (p >= threshold).astype(float)
    return _out(_divide(w @ (called * y), w @ called), single)


def f1(y: ArrayLike, p: ArrayLike, w: ArrayLike | None = None, threshold: float = 0.5) -> Any:
    y, p, w, single = _ready(y, p, w)
    called = (p >= threshold).astype(float)
    return _out(_divide(2 * (w @ (called * y)), w @ called + w @ y), single)


def balanced_accuracy(y: ArrayLike, p: ArrayLike, w: ArrayLike | None = None, threshold: float = 0.5) -> Any:
    return (recall(y, p, w, threshold) + specificity(y, p, w, threshold)) / 2


def net_benefit(y: ArrayLike, p: ArrayLike, w: ArrayLike | None = None, threshold: float = 0.5) -> Any:
    """Decision curve analysis: (true positives - false positives x odds of the threshold) / n."""
    y, p, w, single = _ready(y, p, w)
    called = (p >= threshold).astype(float)
    value = w @ (called * y) - w @ (called * (1 - y)) * threshold / (1 - threshold)
    return _out(_divide(value, w.sum(axis=1)), single)


def slope(y: ArrayLike, p: ArrayLike, w: ArrayLike | None = None) -> Any:
    """Calibration slope: of y on logit(p) by logistic regression; 1 is ideal, below 1 is overconfident."""
    return calibration(y, p, w)[1]


def intercept(y: ArrayLike, p: ArrayLike, w: ArrayLike | None = None) -> Any:
    """Calibration intercept of the same regression; 0 is ideal. `in_the_large` holds the slope at 1 instead."""
    return calibration(y, p, w)[0]


def calibration(y: ArrayLike, p: ArrayLike, w: ArrayLike | None = None) -> tuple[Any, Any]:
    """(intercept, slope) of logit P(y=1) = intercept + slope * logit(p), by Newton's method over all rows of `w`.

    NaN where there is no maximum: one class only, one risk for all, or classes that the risk separates wholly.
    """
    y, p, w, single = _ready(y, p, w)
    x = _logit(p)
    a, b, good = np.zeros(len(w)), np.ones(len(w)), np.zeros(len(w), dtype=bool)
    left = np.arange(len(w))  # resamples that are still climbing
    likelihood = _likelihood(a, b, x, y, w)
    for _ in range(40):
        v, q = w[left], _expit(a[left, None] + b[left, None] * x)
        g0, g1 = (v * (y - q)).sum(axis=1), (v * (y - q)) @ x
        v = v * q * (1 - q)
        h00, h01, h11 = v.sum(axis=1), v @ x, v @ x**2
        determinant = h00 * h11 - h01**2
        da, db = _divide(h11 * g0 - h01 * g1, determinant), _divide(h00 * g1 - h01 * g0, determinant)
        # Halve a step that makes the fit worse: Newton's first step overshoots on near-separated resamples.
        for _ in range(8):
            trial = _likelihood(a[left] + da, b[left] + db, x, y, w[left])
            worse = trial < likelihood[left] - 1e-9
            if not worse.any():
                break
            da, db = np.where(worse, da / 2, da), np.where(worse, db / 2, db)
        climbing = np.isfinite(da) & np.isfinite(db)
        a[left], b[left], likelihood[left] = a[left] + da, b[left] + db, trial
        size = np.maximum(np.abs(da), np.abs(db))
        good[left[climbing]] = size[climbing] < 1e-6
        left = left[climbing & (size >= 1e-8) & (np.abs(b[left]) < 50)]
        if not len(left):
            break
    good &= np.abs(b) < 50
    return _out(np.where(good, a, np.nan), single), _out(np.where(good, b, np.nan), single)


def in_the_large(y: ArrayLike, p: ArrayLike, w: ArrayLike | None = None) -> Any:
    """Calibration-in-the-large: the shift of logit(p) that makes the mean risk the event rate; 0 is ideal."""
    y, p, w, single = _ready(y, p, w)
    x, a = _logit(p), np.zeros(len(w))
    rate = _divide(w @ y, w.sum(axis=1))
    for _ in range(50):
        q = _expit(a[:, None] + x)
        step = _divide((w * (y - q)).sum(axis=1), (w * q * (1 - q)).sum(axis=1))
        a = a + np.clip(step, -2, 2)
        if not (np.abs(step) > 1e-9).any():
            break
    return _out(np.where((rate > 0) & (rate < 1), a, np.nan), single)


def ece(y: ArrayLike, p: ArrayLike, w: ArrayLike | None = None, bins: int = 10) -> Any:
    """Expected calibration error over `bins` of equal width: mean |event rate - mean risk|, weighted by bin."""
    y, p, w, single = _ready(y, p, w)
    which = np.clip((p * bins).astype(int), 0, bins - 1)
    member = np.eye(bins)[which]
    return _out(_divide(np.abs((w * (y - p)) @ member).sum(axis=1), w.sum(axis=1)), single)


def mean(x: ArrayLike, w: ArrayLike | None = None) -> Any:
    """The mean of one array, for the same bootstrap."""
    return prevalence(x, None, w)


# ---- tables behind figures ----


def roc_curve(y: ArrayLike, p: ArrayLike) -> tuple[Array, Array, Array]:
    """(false positive rate, true positive rate, threshold), from (0, 0) to (1, 1)."""
    y, p, w, _ = _ready(y, p, None)
    positive, negative = (side[0, ::-1] for side in _per_score(y, p, w))
    tpr = np.concatenate([[0.0], _divide(np.cumsum(positive), positive.sum())])
    fpr = np.concatenate([[0.0], _divide(np.cumsum(negative), negative.sum())])
    return fpr, tpr, np.concatenate([[np.inf], np.unique(p)[::-1]])


def calibration_bins(y: ArrayLike, p: ArrayLike, bins: int = 10) -> list[dict[str, float]]:
    """Bins of about equal size in order of risk: {risk, rate, low, high (Wilson 95%), n, events}.

    Rows of the same risk stay together. The Wilson interval takes rows as independent: it is drawn, not tested.
    """
    y, p, _, _ = _ready(y, p, None)
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
) -> Estimate:
    """`statistic(*arrays)` with its percentile interval over `n` resamples of whole clusters (patients).

    Rows where an array is not finite are left out first. The interval is NaN with one cluster, or where fewer than
    half of the resamples define the statistic.
    """
    kept, codes, n_clusters = _complete(arrays, clusters)
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
) -> Estimate:
    """`statistic(y, first) - statistic(y, second)` on the same rows and the same resampled patients.

    p_value: twice the smaller share of resamples on either side of 0, never below 1 / resamples.
    """
    (y_, a, b), codes, n_clusters = _complete([y, first, second], clusters)

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


def delong(y: ArrayLike, p: ArrayLike, clusters: ArrayLike, level: float = 0.95) -> Estimate:
    """AUC with the clustered DeLong interval of Obuchowski (Biometrics 1997; 53:567), normal on the AUC's scale."""
    (y_, p_), codes, n_clusters = _complete([y, p], clusters)
    value = float(auc(y_, p_)) if len(codes) else float("nan")
    ones, zeros = y_ == 1, y_ == 0
    m, k = int(ones.sum()), int(zeros.sum())
    estimate = partial(Estimate, n=len(codes), n_patients=n_clusters, n_events=m)
    if m == 0 or k == 0:
        return estimate(float("nan"), float("nan"), float("nan"))
    negatives, positives = np.sort(p_[zeros]), np.sort(p_[ones])
    v10 = (np.searchsorted(negatives, p_[ones], "left") + np.searchsorted(negatives, p_[ones], "right")) / (2 * k)
    v01 = 1 - (np.searchsorted(positives, p_[zeros], "left") + np.searchsorted(positives, p_[zeros], "right")) / (2 * m)
    count = partial(np.bincount, minlength=n_clusters)
    d10 = count(codes[ones], v10) - count(codes[ones]) * value
    d01 = count(codes[zeros], v01) - count(codes[zeros]) * value
    i10, i01 = len(np.unique(codes[ones])), len(np.unique(codes[zeros]))
    if min(i10, i01, n_clusters) < 2:
        return estimate(value, float("nan"), float("nan"))
    s10 = i10 / ((i10 - 1) * m) * (d10**2).sum()
    s01 = i01 / ((i01 - 1) * k) * (d01**2).sum()
    s11 = n_clusters / (n_clusters - 1) * (d10 * d01).sum()
    error = sqrt(max(0.0, s10 / m + s01 / k + 2 * s11 / (m * k)))
    half = _normal_quantile(0.5 + level / 2) * error
    return estimate(value, max(0.0, value - half), min(1.0, value + half))


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


def _ready(y: ArrayLike, p: ArrayLike, w: ArrayLike | None) -> tuple[Array, Array, Array, bool]:
    """As float arrays (n,), (n,), (B, n), and whether the answer is one number."""
    y_, p_ = np.asarray(y, dtype=float), np.asarray(p, dtype=float)
    w_ = np.ones((1, len(y_))) if w is None else np.asarray(w, dtype=float)
    return y_, p_, np.atleast_2d(w_), w_.ndim == 1 or w is None


def _out(values: Array, single: bool) -> Any:
    return float(values[0]) if single else values


def _divide(a: Any, b: Any, otherwise: float = np.nan) -> Any:
    a, b = np.broadcast_arrays(np.asarray(a, dtype=float), np.asarray(b, dtype=float))
    return np.divide(a, b, out=np.full(a.shape, otherwise), where=np.abs(b) > 1e-12)


def _logit(p: Array) -> Array:
    q = np.clip(p, _EPS, 1 - _EPS)
    return np.log(q / (1 - q))


def _expit(x: Array) -> Array:
    return 1 / (1 + np.exp(-np.clip(x, -60, 60)))


def _likelihood(a: Array, b: Array, x: Array, y: Array, w: Array) -> Array:
    z = a[:, None] + b[:, None] * x
    return (w * (y * z - np.logaddexp(0, np.nan_to_num(z)))).sum(axis=1)


def _per_score(y: Array, p: Array, w: Array) -> tuple[Array, Array]:
    """Weight of ones and of zeros at each distinct score in rising order: two arrays (B, distinct scores)."""
    if not len(p):
        return np.zeros((len(w), 0)), np.zeros((len(w), 0))
    order = np.argsort(p, kind="stable")
    starts = np.flatnonzero(np.concatenate([[True], np.diff(p[order]) > 0]))
    return (
        np.add.reduceat((w * y)[:, order], starts, axis=1),
        np.add.reduceat((w * (1 - y))[:, order], starts, axis=1),
    )


def _complete(arrays: Sequence[ArrayLike], clusters: ArrayLike) -> tuple[list[Array], NDArray[np.intp], int]:
    columns = [np.asarray(array, dtype=float) for array in arrays]
    finite = np.all([np.isfinite(column) for column in columns], axis=0)
    names, codes = np.unique(np.asarray(clusters, dtype=str)[finite], return_inverse=True)
    return [column[finite] for column in columns], codes, len(names)


def _resample(statistic: Statistic, codes: NDArray[np.intp], n_clusters: int, n: int, seed: int) -> Array:
    if n_clusters < 2:
        return np.full(n, np.nan)
    draw = np.random.default_rng(seed)
    chance = np.full(n_clusters, 1 / n_clusters)
    size = max(1, min(n, _CHUNK // max(len(codes), n_clusters)))
    parts = []
    for start in range(0, n, size):
        counts = draw.multinomial(n_clusters, chance, size=min(size, n - start))
        parts.append(np.asarray(statistic(w=counts[:, codes].astype(float)), dtype=float))
    return np.concatenate(parts) if parts else np.zeros(0)


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
