"""GEE and linear mixed model of a change on treatment and baseline, observation being the reference: as they come, and
with the error of measurement of each change (and, in the mixed model, of the covariates) carried into them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from tasks.effect.estimate import Array, Interval, standardized, t_interval
from tasks.effect.propagate import mixed, simex, steadied

GEE = "GEE, exchangeable within patient"
MIXED = "linear mixed model, random intercept of patient"
WITH_ERROR = "; measurement error carried"


def regressions(
    frame: pd.DataFrame, outcome: str, covariates: list[str], level: float, redraws: int, seed: int
) -> list[dict[str, Any]]:
    """One row for each method and arm: method, treatment, versus_observation, low, high; or method and reason."""
    arms = sorted(set(frame["treatment"]) - {"observation"})
    y = frame[outcome].to_numpy(dtype=float)
    x = frame[covariates].to_numpy(dtype=float)
    design = _design(frame["treatment"].to_numpy(), arms, x)
    groups = frame["subject"].to_numpy()
    stored = frame[f"{outcome}_se"].to_numpy(dtype=float) if f"{outcome}_se" in frame else np.full(len(y), np.nan)
    variance = steadied(stored, frame["treatment"].to_numpy())
    rows = _rows(GEE, arms, lambda: _gee(y, design, groups, level, None))
    rows += _rows(MIXED, arms, lambda: _statsmodels_mixed(y, design, groups, level))
    x_errors = np.column_stack([
        frame[f"{name}_se"].to_numpy(dtype=float) if f"{name}_se" in frame else np.full(len(y), np.nan)
        for name in covariates
    ]) if covariates else np.zeros((len(y), 0))  # fmt: skip
    if not (variance > 0).any() and not (np.nan_to_num(x_errors) > 0).any():
        return rows

    codes = np.unique(groups.astype(str), return_inverse=True)[1]

    def weighted() -> list[Interval]:
        found = mixed(y, design, codes, variance)
        return _gee(y, design, groups, level, 1 / (found.patient_sd**2 + found.hip_sd**2 + variance))

    def propagated() -> list[Interval]:
        near = mixed(y, design, codes, variance)

        def estimate(x_: Array, y_: Array) -> tuple[Array, Array]:
            found = mixed(y_, _design(frame["treatment"].to_numpy(), arms, x_), codes, variance, near)
            return found.coefficients[: len(arms)], found.errors[: len(arms)] ** 2

        in_y = covariates.index(f"x_{outcome}") if f"x_{outcome}" in covariates else None
        values, variances = simex(estimate, x, x_errors, y, in_y, redraws, seed)
        freedom = max(len(set(groups)) - design.shape[1], 1)
        return [t_interval(float(v), float(np.sqrt(e)), freedom, level) for v, e in zip(values, variances, strict=True)]

    return rows + _rows(GEE + WITH_ERROR, arms, weighted) + _rows(MIXED + WITH_ERROR, arms, propagated)


def _design(treatment: np.ndarray, arms: list[str], x: Array) -> Array:
    """Columns: arms, covariates that vary, constant."""
    adjusted = standardized(x) if x.shape[1] else x
    varying = adjusted[:, adjusted.std(axis=0) > 1e-9]
    return np.column_stack([*((treatment == arm).astype(float) for arm in arms), varying, np.ones(len(treatment))])


def _gee(y: Array, design: Array, groups: np.ndarray, level: float, weights: Array | None) -> list[Interval]:
    import statsmodels.api as sm

    found = sm.GEE(y, design, groups, cov_struct=sm.cov_struct.Exchangeable(), weights=weights).fit()
    return _intervals(found, level)


def _statsmodels_mixed(y: Array, design: Array, groups: np.ndarray, level: float) -> list[Interval]:
    import statsmodels.api as sm

    return _intervals(sm.MixedLM(y, design, groups).fit(), level)


def _intervals(found: Any, level: float) -> list[Interval]:
    values, bounds = np.asarray(found.params), np.asarray(found.conf_int(1 - level))
    return [Interval(float(v), float(low), float(high), np.nan)
            for v, (low, high) in zip(values, bounds, strict=True)]  # fmt: skip


def _rows(method: str, arms: list[str], fit: Any) -> list[dict[str, Any]]:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = fit()
        except (np.linalg.LinAlgError, ValueError) as error:
            return [{"method": method, "reason": f"not estimable: {type(error).__name__}"}]
    return [
        {"method": method, "treatment": arm}
        | {name: value if np.isfinite(value) else None
           for name, value in (("versus_observation", one.value), ("low", one.low), ("high", one.high))}
        for arm, one in zip(arms, found, strict=False)
    ]  # fmt: skip
