"""Two models on the same hip-visits of the same patients: the numbers that a promotion gate asks for."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from tasks.evaluate.params import Params
from tasks.evaluate.scores import SUBGROUPS, counts
from tasks.training import metrics


def versus(challenger: pd.DataFrame, champion: pd.DataFrame, truth: pd.DataFrame, params: Params) -> dict[str, Any]:
    """Challenger minus champion where both give a risk and the label is known. It decides nothing.

    `challenger` and `champion`: hip_visit, risk. `truth`: hip_visit, hip, subject, label (and any of the subgroup
    columns), the test patients of today. A difference in AUC above 0 and in Brier below 0 speaks for the challenger.
    """
    rows = truth[truth["label"].isin((0.0, 1.0))]
    for name, frame in (("challenger", challenger), ("champion", champion)):
        risks = frame[["hip_visit", "risk"]].rename(columns={"risk": name}).drop_duplicates("hip_visit")
        rows = rows.merge(risks, on="hip_visit", how="inner")
    rows = rows[np.isfinite(rows["challenger"]) & np.isfinite(rows["champion"])]
    out: dict[str, Any] = counts(rows, params)
    for name in ("challenger", "champion"):
        for measure in ("auc", "brier", "slope", "intercept"):
            found = metrics.clustered_bootstrap(
                (rows["label"], rows[name]),
                rows["subject"],
                getattr(metrics, measure),
                params.resamples,
                params.seed,
                params.level,
            )
            values = found.as_dict(measure)
            out |= {f"{name}_{key}": values[key] for key in values if key.startswith(measure)}
    out |= {f"difference_{k}": v for k, v in _paired(rows, metrics.auc, "auc", params).items()}
    out |= {f"difference_{k}": v for k, v in _paired(rows, metrics.brier, "brier", params).items()}
    specific = _threshold_at_recall(rows, "champion", params.recall)
    if specific is not None:
        statistic = partial(metrics.recall, threshold=specific)
        out |= {f"difference_{k}": v for k, v in _paired(rows, statistic, "recall", params).items()}
        out["recall_threshold"] = specific
    out["subgroups"] = [
        {"subgroup": column, "level": str(level), "n_events": int(one["label"].sum()), "n": len(one)}
        | _paired(one, metrics.auc, "auc", params)
        for column in SUBGROUPS
        if column in rows and rows[column].notna().any()
        for level, one in rows.groupby(rows[column].fillna("unknown").astype(str))
    ]
    return out


def _paired(rows: pd.DataFrame, statistic: Any, name: str, params: Params) -> dict[str, Any]:
    found = metrics.paired_bootstrap(
        rows["label"],
        rows["challenger"],
        rows["champion"],
        rows["subject"],
        statistic,
        params.resamples,
        params.seed,
        params.level,
    )
    return {k: v for k, v in found.as_dict(name).items() if k.startswith(name) or k == "p_value"} | (
        {f"{name}_p_value": metrics.none_if_nan(np.nan if found.p_value is None else found.p_value)}
    )


def _threshold_at_recall(rows: pd.DataFrame, name: str, recall: float) -> float | None:
    events = rows.loc[rows["label"] == 1, name]
    return float(np.quantile(events, 1 - recall, method="lower")) if len(events) else None
