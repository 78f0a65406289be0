"""Estimates with hips nested in patients: bootstrap of patients, doubly robust contrast, GEE and mixed model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    value: float
    low: float
    high: float
    p: float
    error: float = np.nan


NOTHING = Interval(np.nan, np.nan, np.nan, np.nan)


def t_interval(value: float, error: float, freedom: float, level: float) -> Interval:
    from scipy.stats import t

    reach = float(t.ppf((1 + level) / 2, freedom)) * error
    p = float(2 * t.sf(abs(value) / error, freedom)) if error > 0 else np.nan
    return Interval(value, value - reach, value + reach, p, error)


def mean_change(values: Array, patients: NDArray, resamples: int, level: float, seed: int) -> Interval:
    """Mean over hips; percentile interval over resampled patients; p from the patient-clustered t."""
    from scipy.stats import t

    names, codes = np.unique(patients, return_inverse=True)
    totals, counts = np.bincount(codes, values), np.bincount(codes).astype(float)
    value = float(values.mean())
    if len(names) < 2:
        return Interval(value, np.nan, np.nan, np.nan)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    low, high = np.quantile((drawn @ totals) / (drawn @ counts), [(1 - level) / 2, (1 + level) / 2])
    error = _clustered_error(values - value, codes)
    p = float(2 * t.sf(abs(value) / error, len(names) - 1)) if error > 0 else np.nan
    return Interval(value, float(low), float(high), p)


def _clustered_error(influence: Array, codes: NDArray) -> float:
    """Standard error of a mean whose influences within a patient go together."""
    sums = np.bincount(codes, influence)
    n = len(sums)
    return float(np.sqrt((sums**2).sum() * n / (n - 1)) / len(influence))


@dataclass(frozen=True)
class Contrast:
    """treated: mean were all treated; difference: that minus the mean were none treated; propensity of each hip."""

    treated: Interval
    difference: Interval
    untreated: float
    propensity: Array


@dataclass(frozen=True)
class Weighted:
    """values, errors: of the mean were all treated, and of its difference from the mean were none."""

    values: Array
    errors: Array
    propensity: Array


def doubly_robust(
    y: Array, treated: NDArray[np.bool_], x: Array, patients: NDArray, limits: tuple[float, float], level: float
) -> Contrast:
    _, codes = np.unique(patients, return_inverse=True)
    found = weighted(y, treated, x, codes, limits)
    mean, difference = (
        t_interval(float(v), float(e), codes.max(), level) for v, e in zip(found.values, found.errors, strict=True)
    )
    return Contrast(mean, difference, mean.value - difference.value, found.propensity)


def weighted(
    y: Array, treated: NDArray[np.bool_], x: Array, codes: NDArray, limits: tuple[float, float]
) -> Weighted:  # fmt: skip
    """Augmented inverse probability weighting: right if either the propensity or the outcome model is.

    The error comes from the influence function, summed within patients (`codes`), its residuals enlarged by each hip's
    leverage on the outcome model (as HC3 does): without that it is too small in arms of few hips.
    """
    z = standardized(x)
    propensity = np.clip(_logistic(z, treated.astype(float)), *limits)
    one, none = _linear(z[treated], y[treated], z), _linear(z[~treated], y[~treated], z)
    if set(np.unique(y)) <= {0.0, 1.0}:
        one, none = np.clip(one, 0, 1), np.clip(none, 0, 1)

    def influence(free: Array | float) -> Array:
        if_treated = one + treated * (y - one) / propensity / free
        if_not = none + ~treated * (y - none) / (1 - propensity) / free
        return np.stack([if_treated, if_treated - if_not])

    enlarged = influence(1 - _leverage(z, treated))
    errors = [_clustered_error(row - row.mean(), codes) for row in enlarged]
    return Weighted(influence(1.0).mean(axis=1), np.array(errors), propensity)


def standardized(x: Array) -> Array:
    """Columns at mean 0 and SD 1; what was not measured is at the mean, with a flag of its own."""
    missing = ~np.isfinite(x)
    mean = np.nanmean(np.where(missing.all(axis=0), 0.0, x), axis=0)
    filled = np.where(missing, mean, x)
    spread = filled.std(axis=0)
    flags = missing[:, missing.any(axis=0) & ~missing.all(axis=0)].astype(float)
    return np.column_stack([(filled - mean) / np.where(spread > 1e-9, spread, 1.0), flags])


def _linear(x: Array, y: Array, at: Array, ridge: float = 0.5) -> Array:
    design, there = (np.column_stack([np.ones(len(a)), a]) for a in (x, at))
    penalty = np.diag([0.0] + [ridge] * x.shape[1])
    return there @ np.linalg.solve(design.T @ design + penalty, design.T @ y)


def _leverage(x: Array, treated: NDArray[np.bool_], ridge: float = 0.5) -> Array:
    """Of each hip on the outcome model of its own arm, at most 0.5."""
    out, penalty = np.zeros(len(x)), np.diag([0.0] + [ridge] * x.shape[1])
    for arm in (treated, ~treated):
        design = np.column_stack([np.ones(arm.sum()), x[arm]])
        out[arm] = np.einsum("ij,jk,ik->i", design, np.linalg.inv(design.T @ design + penalty), design)
    return np.minimum(out, 0.5)


def _logistic(x: Array, y: Array, ridge: float = 0.5) -> Array:
    design = np.column_stack([np.ones(len(x)), x])
    penalty = np.diag([1e-6] + [ridge] * x.shape[1])
    weight = np.zeros(design.shape[1])
    for _ in range(25):
        p = 1 / (1 + np.exp(-np.clip(design @ weight, -30, 30)))
        hessian = (design.T * (p * (1 - p))) @ design + penalty
        move = np.linalg.solve(hessian, design.T @ (y - p) - penalty @ weight)
        weight = weight + move
        if float(np.abs(move).max()) < 1e-8:
            break
    return 1 / (1 + np.exp(-np.clip(design @ weight, -30, 30)))


def e_value(difference: float, scale: float, treated: float, untreated: float, is_risk: bool) -> float:
    """How strongly an unmeasured confounder would have to go with treatment and outcome to explain the difference
    away, as a risk ratio (VanderWeele & Ding 2017; for means by exp(0.91 d))."""
    if is_risk:
        ratio = max(treated, 1e-3) / max(untreated, 1e-3)
    else:
        ratio = float(np.exp(0.91 * difference / scale)) if scale > 0 else np.nan
    if not np.isfinite(ratio):
        return np.nan
    ratio = max(ratio, 1 / ratio)
    return float(ratio + np.sqrt(ratio * (ratio - 1)))


def holm(p_values: list[float]) -> list[float]:
    """Holm's step-down adjusted p-values; NaN stays NaN and does not count."""
    known = sorted((p, i) for i, p in enumerate(p_values) if np.isfinite(p))
    out, highest = [float("nan")] * len(p_values), 0.0
    for rank, (p, place) in enumerate(known):
        highest = max(highest, min(1.0, p * (len(known) - rank)))
        out[place] = highest
    return out
