"""Discrimination and Brier score at a time after the visit when some hips were lost before it: each known hip is
weighted by how many were lost like it (inverse probability of censoring, Graf 1999; Blanche 2013).

Times are days after the visit. `event` 1: progression at `time`; 0: last seen without it at `time`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from tasks.evaluate.params import Params
from tasks.training import metrics

Array = NDArray[np.float64]
Row = dict[str, Any]


def followed(time: ArrayLike, event: ArrayLike, at: ArrayLike) -> Array:
    """Kaplan-Meier of not yet being lost just before each time of `at`; at equal times an event comes before a loss."""
    time_, event_ = np.asarray(time, dtype=float), np.asarray(event, dtype=float)
    losses = np.unique(time_[event_ == 0])
    left = np.array([((time_ > when) | ((time_ == when) & (event_ == 0))).sum() for when in losses], dtype=float)
    lost = np.array([((time_ == when) & (event_ == 0)).sum() for when in losses], dtype=float)
    curve = np.concatenate([[1.0], np.cumprod(1 - lost / np.maximum(left, 1))])
    return np.asarray(curve[np.searchsorted(losses, np.asarray(at, dtype=float), side="left")])


def weights(time: ArrayLike, event: ArrayLike, horizon: float) -> tuple[Array, Array]:
    """(outcome by `horizon` 0 or 1, weight) of each hip-visit; those lost before it weigh 0."""
    time_, event_ = np.asarray(time, dtype=float), np.asarray(event, dtype=float)
    outcome = ((time_ <= horizon) & (event_ == 1)).astype(float)
    known = (outcome == 1) | (time_ >= horizon)
    share = followed(time_, event_, np.minimum(time_, horizon))
    return outcome, np.where(known, 1 / np.maximum(share, 1e-6), 0.0)


def auc(y: Array, p: Array, weight: Array, w: Array | None = None) -> Any:
    """Cumulative/dynamic AUC: of a hip with the event by then and one without, how often the first has the higher p."""
    return metrics.auc(y, p, w=weight if w is None else w * weight)


def brier(y: Array, p: Array, weight: Array, w: Array | None = None) -> Any:
    """Mean weighted squared error over all hip-visits, those lost included."""
    each = weight * (y - p) ** 2
    return float(each.mean()) if w is None else (w @ each) / np.maximum(w.sum(axis=1), 1e-12)


def table(rows: pd.DataFrame, population: str, params: Params) -> list[Row]:
    """At each time of the parameters: model and probability baselines, with intervals over resampled patients.

    Rows at risk, followed or not. The Brier score is of the risk within the horizon, so it is given at the horizon
    alone, beside that of the observed share for everybody.
    """
    need = {"event_in_days", "followed_days", "not_at_risk"}
    if not need <= set(rows):
        return []
    rows = rows[(rows["not_at_risk"].fillna("") == "") & np.isfinite(rows["risk"]) & np.isfinite(rows["followed_days"])]
    if not len(rows):
        return []
    event = rows["event_in_days"].notna().to_numpy(dtype=float)
    time = rows["event_in_days"].fillna(rows["followed_days"]).to_numpy(dtype=float)
    horizon = float(rows["horizon_days"].median())
    names = [str(c) for c in rows if str(c).startswith("risk_") and c not in ("risk_low", "risk_high")]
    out: list[Row] = []
    for at in sorted({*params.times, horizon}):
        if not (time >= at).any():
            continue  # nobody was followed so long
        y, weight = weights(time, event, at)
        for column in ("risk", *names):
            p = rows[column].to_numpy(dtype=float)
            kept = np.isfinite(p)
            found = _bootstrap((y, p, weight), kept, rows, auc, params)
            row: Row = {
                "population": population,
                "model": "model" if column == "risk" else column[5:],
                "unit": "hip-visit",
            }
            row |= {"time_days": at, **found.as_dict("auc"), "n_lost_before": int((weight[kept] == 0).sum())}
            if at == horizon:
                score = _bootstrap((y, p, weight), kept, rows, brier, params)
                row |= {k: v for k, v in score.as_dict("brier").items() if k.startswith("brier")}
                share = float((weight[kept] * y[kept]).sum() / max(weight[kept].sum(), 1e-12))
                row["brier_of_share"] = brier(y[kept], np.full(kept.sum(), share), weight[kept]) if kept.any() else None
            out.append(row)
    return out


def _bootstrap(
    arrays: tuple[Array, Array, Array], kept: NDArray[np.bool_], rows: pd.DataFrame, statistic: Any, params: Params
) -> metrics.Estimate:
    chosen = [array[kept] for array in arrays]
    folds = rows["fold"][kept].astype(str) if statistic is auc else None  # one model's ranks, see metrics.within
    return metrics.clustered_bootstrap(
        chosen, rows["subject"][kept], statistic, params.resamples, params.seed, params.level, folds
    )  # fmt: skip
