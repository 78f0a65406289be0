"""The error of measurement, carried into the estimates.

Error of the outcome widens what varies between hips, so an interval that resamples hips holds it already; a model that
gives all hips one variance does not, where some were measured worse than others. There the known error variance of each
change is added to what the model estimates. Error of the covariates does more harm than width: hips that only look
alike are compared, and part of the confounding stays. SIMEX (Cook & Stefanski 1994) takes it away: the measurements are
drawn again with more error than they have, and the estimate is followed back to where there would be none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

ENLARGED = (0.5, 1.0, 1.5, 2.0)
"""Variances of added error, in units of that of the measurement."""
OWN, POOLED = 2.0, 4.0
"""Weights of a hip's own variance, which a few repeats give, and of its arm's."""


def steadied(errors: Array, arms: NDArray) -> Array:
    """Error variance of each hip, drawn towards its arm's: an SD of three repeats is no more than a guess. Where no
    error is stored it is the arm's, and 0 where the arm has none."""
    variance = errors**2
    out = np.zeros(len(errors))
    for arm in np.unique(arms):
        own = arms == arm
        known = own & np.isfinite(variance)
        if known.any():
            pooled = float(variance[known].mean())
            out[own] = pooled
            out[known] = (OWN * variance[known] + POOLED * pooled) / (OWN + POOLED)
    return out


def simex(
    estimate: Callable[[Array, Array], tuple[Array, Array]], x: Array, x_errors: Array, y: Array, in_y: int | None,
    redraws: int, seed: int,
) -> tuple[Array, Array]:  # fmt: skip
    """(values, variances) of `estimate(x, y)`, which gives both too, as they would be without the error in x.

    `x_errors`: standard error of each measurement, NaN or 0 where there is none. `in_y`: the column of x that is the
    baseline within y (a change) too, whose error is therefore in both. Values and variances go back to no error along a
    parabola; the variance as in Stefanski & Cook 1995: the mean of the estimates' own less that between the redraws.
    """
    values, variances = estimate(x, y)
    spread = np.nan_to_num(x_errors)
    if redraws < 2 or not (spread > 0).any() or not np.isfinite(values).all():
        return values, variances
    rng = np.random.default_rng(seed)
    # In pairs of opposite signs: what one redraw shifts by chance the other takes back.
    half = [rng.normal(size=x.shape) * spread for _ in range((redraws + 1) // 2)]
    draws = [sign * noise for noise in half for sign in (1.0, -1.0)]
    means, own = [values], [variances]
    for enlarged in ENLARGED:
        moved = [np.sqrt(enlarged) * noise for noise in draws]
        found = np.array([estimate(x + m, y if in_y is None else y - m[:, in_y]) for m in moved])
        means.append(found[:, 0].mean(axis=0))
        own.append(found[:, 1].mean(axis=0) - found[:, 0].var(axis=0, ddof=1))
    return _back(means), np.maximum(_back(own), variances)


def _back(along: list[Array]) -> Array:
    """Parabola through the values at 0 and at the enlarged variances, read at -1."""
    return np.asarray(np.array([1.0, -1.0, 1.0]) @ np.polyfit([0.0, *ENLARGED], np.array(along), 2))


@dataclass(frozen=True)
class Mixed:
    """Coefficients of a linear mixed model and their standard errors; SDs between patients and of the rest of a hip."""

    coefficients: Array
    errors: Array
    patient_sd: float
    hip_sd: float


def mixed(y: Array, design: Array, patients: NDArray, error_variance: Array, near: Mixed | None = None) -> Mixed:
    """Random intercept of each patient, residual of each hip, and beside it the known error variance of its
    measurement; both unknown variances by restricted maximum likelihood, looked for from those of `near`."""
    from scipy.optimize import minimize

    _, codes = np.unique(patients, return_inverse=True)
    scale = max(float(y.std()), 1e-9)

    def solved(logs: Array) -> tuple[float, Array, Array]:
        between, within = scale**2 * np.exp(2 * np.clip(logs, -8, 4))
        weight = 1 / (within + error_variance)
        total = np.bincount(codes, weight)
        shrink = between / (1 + between * total)
        sums = np.column_stack([np.bincount(codes, weight * column) for column in design.T])
        information = (design.T * weight) @ design - (sums.T * shrink) @ sums
        weighted = np.bincount(codes, weight * y)
        right = design.T @ (weight * y) - sums.T @ (shrink * weighted)
        coefficients = np.linalg.solve(information, right)
        rest = y - design @ coefficients
        squares = float(weight @ rest**2 - shrink @ np.bincount(codes, weight * rest) ** 2)
        determinant = float(-np.log(weight).sum() + np.log1p(between * total).sum())
        return 0.5 * (determinant + np.linalg.slogdet(information)[1] + squares), coefficients, information

    start = np.array([-1.0, -0.5])
    if near is not None:
        start = np.clip(np.log(np.maximum([near.patient_sd, near.hip_sd], 1e-9) / scale), -6, 4)
    found = minimize(lambda logs: solved(logs)[0], start, method="Nelder-Mead",
                     options={"xatol": 1e-3, "fatol": 1e-5, "maxiter": 200})  # fmt: skip
    _, coefficients, information = solved(found.x)
    between, within = scale * np.exp(np.clip(found.x, -8, 4))
    return Mixed(coefficients, np.sqrt(np.diag(np.linalg.inv(information))), float(between), float(within))
