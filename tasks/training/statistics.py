"""Statistics of an outcome y (0 or 1) and a risk or score p; higher means more likely 1.

Each is a function `statistic(y, p, w=None)`: without `w` it returns one float; with `w` of shape (B, n), one row of
weights per resample, it returns (B,), so that a bootstrap is one vectorized call. Where it is not defined (no event,
one class only) it is NaN. Needs numpy alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

_EPS = 1e-6  # risks are kept this far from 0 and 1 before their logit is taken


def auc(y: ArrayLike, p: ArrayLike, w: ArrayLike | None = None) -> Any:
    """Area under the ROC curve; a tie between a 1 and a 0 counts one half."""
    y, p, w, single = ready(y, p, w)
    positive, negative = per_score(y, p, w)
    below = np.cumsum(negative, axis=1) - negative
    pairs = positive.sum(axis=1) * negative.sum(axis=1)
    return _out(divide((positive * (below + negative / 2)).sum(axis=1), pairs), single)


def average_precision(y: ArrayLike, p: ArrayLike, w: ArrayLike | None = None) -> Any:
    """Area under the precision-recall curve by steps; its chance level is the prevalence."""
    y, p, w, single = ready(y, p, w)
    positive, negative = (side[:, ::-1] for side in per_score(y, p, w))
    found, called = np.cumsum(positive, axis=1), np.cumsum(positive + negative, axis=1)
    return _out(divide((positive * divide(found, called, 0.0)).sum(axis=1), positive.sum(axis=1)), single)


def brier(y: ArrayLike, p: ArrayLike, w: ArrayLike | None = None) -> Any:
    """Mean squared difference of risk and outcome, 0 (best) to 1."""
    y, p, w, single = ready(y, p, w)
    return _out(divide(w @ (p - y) ** 2, w.sum(axis=1)), single)


def log_loss(y: ArrayLike, p: ArrayLike, w: ArrayLike | None = None) -> Any:
    y, p, w, single = ready(y, p, w)
    q = np.clip(p, _EPS, 1 - _EPS)
    return _out(divide(w @ -(y * np.log(q) + (1 - y) * np.log(1 - q)), w.sum(axis=1)), single)


def prevalence(y: ArrayLike, p: ArrayLike | None = None, w: ArrayLike | None = None) -> Any:
    y, _, w, single = ready(y, y if p is None else p, w)
    return _out(divide(w @ y, w.sum(axis=1)), single)


def accuracy(y: ArrayLike, p: ArrayLike, w: ArrayLike | None = None, threshold: float = 0.5) -> Any:
    """Of all, how many are called right, where p >= threshold is called 1."""
    y, p, w, single = ready(y, p, w)
    return _out(divide(w @ ((p >= threshold) == (y == 1)).astype(float), w.sum(axis=1)), single)


def recall(y: ArrayLike, p: ArrayLike, w: ArrayLike | None = None, threshold: float = 0.5) -> Any:
    """Sensitivity: of the ones, how many are called 1."""
    y, p, w, single = ready(y, p, w)
    return _out(divide(w @ ((p >= threshold) * y), w @ y), single)


def specificity(y: ArrayLike, p: ArrayLike, w: ArrayLike | None = None, threshold: float = 0.5) -> Any:
    """Of the zeros, how many are called 0."""
    y, p, w, single = ready(y, p, w)
    return _out(divide(w @ ((p < threshold) * (1 - y)), w @ (1 - y)), single)


def precision(y: ArrayLike, p: ArrayLike, w: ArrayLike | None = None, threshold: float = 0.5) -> Any:
    """Of those called 1, how many are."""
    y, p, w, single = ready(y, p, w)
    called = (p >= threshold).astype(float)
    return _out(divide(w @ (called * y), w @ called), single)


def f1(y: ArrayLike, p: ArrayLike, w: ArrayLike | None = None, threshold: float = 0.5) -> Any:
    y, p, w, single = ready(y, p, w)
    called = (p >= threshold).astype(float)
    return _out(divide(2 * (w @ (called * y)), w @ called + w @ y), single)


def balanced_accuracy(y: ArrayLike, p: ArrayLike, w: ArrayLike | None = None, threshold: float = 0.5) -> Any:
    return (recall(y, p, w, threshold) + specificity(y, p, w, threshold)) / 2


def net_benefit(y: ArrayLike, p: ArrayLike, w: ArrayLike | None = None, threshold: float = 0.5) -> Any:
    """Decision curve analysis: (true positives - false positives x odds of the threshold) / n."""
    y, p, w, single = ready(y, p, w)
    called = (p >= threshold).astype(float)
    value = w @ (called * y) - w @ (called * (1 - y)) * threshold / (1 - threshold)
    return _out(divide(value, w.sum(axis=1)), single)


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
    y, p, w, single = ready(y, p, w)
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
        da, db = divide(h11 * g0 - h01 * g1, determinant), divide(h00 * g1 - h01 * g0, determinant)
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
    y, p, w, single = ready(y, p, w)
    x, a = _logit(p), np.zeros(len(w))
    rate = divide(w @ y, w.sum(axis=1))
    for _ in range(50):
        q = _expit(a[:, None] + x)
        step = divide((w * (y - q)).sum(axis=1), (w * q * (1 - q)).sum(axis=1))
        a = a + np.clip(step, -2, 2)
        if not (np.abs(step) > 1e-9).any():
            break
    return _out(np.where((rate > 0) & (rate < 1), a, np.nan), single)


def ece(y: ArrayLike, p: ArrayLike, w: ArrayLike | None = None, bins: int = 10) -> Any:
    """Expected calibration error over `bins` of equal width: mean |event rate - mean risk|, weighted by bin."""
    y, p, w, single = ready(y, p, w)
    which = np.clip((p * bins).astype(int), 0, bins - 1)
    member = np.eye(bins)[which]
    return _out(divide(np.abs((w * (y - p)) @ member).sum(axis=1), w.sum(axis=1)), single)


def mean(x: ArrayLike, w: ArrayLike | None = None) -> Any:
    """The mean of one array, for the same bootstrap."""
    return prevalence(x, None, w)


# ---- inside ----


def ready(y: ArrayLike, p: ArrayLike, w: ArrayLike | None) -> tuple[Array, Array, Array, bool]:
    """As float arrays (n,), (n,), (B, n), and whether the answer is one number."""
    y_, p_ = np.asarray(y, dtype=float), np.asarray(p, dtype=float)
    w_ = np.ones((1, len(y_))) if w is None else np.asarray(w, dtype=float)
    return y_, p_, np.atleast_2d(w_), w_.ndim == 1 or w is None


def _out(values: Array, single: bool) -> Any:
    return float(values[0]) if single else values


def divide(a: Any, b: Any, otherwise: float = np.nan) -> Any:
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


def per_score(y: Array, p: Array, w: Array) -> tuple[Array, Array]:
    """Weight of ones and of zeros at each distinct score in rising order: two arrays (B, distinct scores)."""
    if not len(p):
        return np.zeros((len(w), 0)), np.zeros((len(w), 0))
    order = np.argsort(p, kind="stable")
    starts = np.flatnonzero(np.concatenate([[True], np.diff(p[order]) > 0]))
    return (
        np.add.reduceat((w * y)[:, order], starts, axis=1),
        np.add.reduceat((w * (1 - y))[:, order], starts, axis=1),
    )
