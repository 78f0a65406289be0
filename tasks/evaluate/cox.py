"""A baseline that keeps the time of the event: Cox regression (lifelines) on the measurements of the last visit.

Fitted like the forecaster: for each fold without its patients, for test and external patients on all training patients.
"""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks.evaluate.params import Params

Array = NDArray[np.float64]


def risk(frame: pd.DataFrame, params: Params) -> Array:
    """Risk of the event within the horizon for every row that has a risk of the model; NaN where nothing was fitted."""
    out = np.full(len(frame), np.nan)
    need = {"event_in_days", "followed_days", "not_at_risk"}
    columns = [name for name in params.cox.covariates if name in frame and frame[name].notna().any()]
    if not need <= set(frame) or not columns or not len(frame):
        return out
    folds = frame["fold"].fillna("none").astype(str).to_numpy()
    training = np.char.isdigit(folds.astype(str))
    usable = training & (frame["not_at_risk"].fillna("") == "").to_numpy()
    if "ineligible" in frame:
        usable &= (frame["ineligible"].fillna("") == "").to_numpy()
    asked = np.isfinite(frame["risk"].to_numpy(dtype=float))
    for fold in [*sorted(set(folds[training])), ""]:
        own = asked & ((folds == fold) if fold else ~training)
        inside = usable & (folds != fold) if len(set(folds[training])) > 1 else usable
        if own.any():
            out[own] = _fit(frame[inside], columns, frame[own], params)
    return out


def _fit(rows: pd.DataFrame, columns: list[str], at: pd.DataFrame, params: Params) -> Array:
    from lifelines import CoxPHFitter
    from lifelines.exceptions import ConvergenceError

    nothing = np.full(len(at), np.nan)
    event = rows["event_in_days"].notna().to_numpy()
    time = rows["event_in_days"].fillna(rows["followed_days"]).to_numpy(dtype=float)
    rows, event, time = rows[time > 0], event[time > 0], time[time > 0]
    if event.sum() < params.cox.min_events:
        return nothing
    centre, spread = rows[columns].mean(), rows[columns].std()
    kept = [name for name in columns if spread[name] > 1e-9]
    if not kept:
        return nothing
    scaled = [((one[kept] - centre[kept]) / spread[kept]).fillna(0.0).clip(-4, 4) for one in (rows, at)]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fitted = CoxPHFitter(penalizer=params.cox.penalizer).fit(
                scaled[0].assign(_time=time, _event=event.astype(float)), "_time", "_event"
            )
            alive = fitted.predict_survival_function(scaled[1], times=[float(at["horizon_days"].median())])
    except (ConvergenceError, np.linalg.LinAlgError, ValueError):
        return nothing
    return 1 - np.asarray(alive, dtype=float)[0]
