"""Numbers of one population: the model, each baseline beside it, units and subgroups. Each with n, unit, interval."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from tasks.evaluate.params import Params
from tasks.evaluate.rows import SCORES, SUBGROUPS, by_unit, scored
from tasks.training import metrics

Row = dict[str, Any]

MEASURES: dict[str, Callable[..., Any]] = {
    "auc": metrics.auc,
    "average_precision": metrics.average_precision,
    "brier": metrics.brier,
    "slope": metrics.slope,
    "intercept": metrics.intercept,
    "in_the_large": metrics.in_the_large,
    "ece": metrics.ece,
}
WITHIN_FOLDS = (metrics.auc, metrics.slope)
"""Measures that are taken within folds, see `metrics.within`; frozen test and external patients are one fold each."""


def describe(rows: pd.DataFrame, params: Params) -> Row:
    """Counts and every measure with `_low` and `_high` of the model's risk over scored rows (one a hip-visit). AUC and
    slope are taken within folds; auc_pooled is over all rows together."""
    out = counts(rows, params)
    for name, statistic in MEASURES.items():
        found = _bootstrap(rows, "risk", statistic, params)
        out |= {k: v for k, v in found.as_dict(name).items() if k.startswith(name)}
        if name == "auc":
            out["degenerate_resamples"] = found.degenerate
    out["auc_pooled"] = metrics.none_if_nan(metrics.auc(rows["label"], rows["risk"]))
    analytic = metrics.delong(rows["label"], rows["risk"], rows["subject"], params.level, rows["fold"].astype(str))
    out["auc_delong_low"], out["auc_delong_high"] = (
        metrics.none_if_nan(analytic.low),
        metrics.none_if_nan(analytic.high),
    )
    return out


def counts(rows: pd.DataFrame, params: Params) -> Row:
    events = int(rows["label"].sum())
    few = min(events, len(rows) - events) < params.small_events
    return {
        "unit": "hip-visit",
        "n": len(rows),
        "n_patients": int(rows["subject"].nunique()),
        "n_hips": int(rows["hip"].nunique()) if "hip" in rows else int(rows["subject"].nunique()),
        "n_events": events,
        "prevalence": metrics.none_if_nan(rows["label"].mean()) if len(rows) else None,
        "small": few,
        "small_note": f"{events} events and {len(rows) - events} non-events: few; read the interval, not the number."
        if few
        else "",
    }


def baselines(rows: pd.DataFrame, params: Params) -> dict[str, Row]:
    """Each baseline on the rows where it has a value: AUC, Brier (probabilities only), and model minus baseline there.

    p_holm: the paired difference's p-value, Holm-adjusted over the baselines of this table.
    """
    columns = [str(column) for column in rows]
    names = {c: c[5:] for c in columns if c.startswith("risk_") and c not in ("risk_low", "risk_high")}
    names |= {c: label for c, label in SCORES.items() if c in rows and label not in names.values()}
    table: dict[str, Row] = {}
    for column, name in names.items():
        known = rows[np.isfinite(rows[column].astype(float))]
        if not len(known):
            continue
        found = _bootstrap(known, column, metrics.auc, params)
        difference = _paired(known, column, metrics.auc, params)
        row: Row = {"kind": "probability" if column.startswith("risk_") else "rank", "unit": "hip-visit"}
        row |= found.as_dict("auc")
        row |= {f"difference_{k}": v for k, v in zip(("auc", "low", "high"), _plain(difference), strict=True)}
        row["p_value"] = metrics.none_if_nan(difference.p_value if difference.p_value is not None else np.nan)
        if column.startswith("risk_"):
            score = _bootstrap(known, column, metrics.brier, params)
            row |= {k: v for k, v in score.as_dict("brier").items() if k.startswith("brier")}
            gain = _paired(known, column, metrics.brier, params)
            row |= {f"difference_brier{k}": v for k, v in zip(("", "_low", "_high"), _plain(gain), strict=True)}
        table[name] = row
    adjusted = metrics.holm([np.nan if r["p_value"] is None else r["p_value"] for r in table.values()])
    for row, p_value in zip(table.values(), adjusted, strict=True):
        row["p_holm"] = metrics.none_if_nan(p_value)
    return table


def units(rows: pd.DataFrame, params: Params) -> list[Row]:
    """AUC and Brier per hip-visit, per hip and per patient."""
    table = []
    for unit, one in by_unit(rows, ["risk"]).items():
        found = _bootstrap(one, "risk", metrics.auc, params).as_dict("auc")
        score = _bootstrap(one, "risk", metrics.brier, params).as_dict("brier")
        table.append({"unit": unit, **found, **{k: v for k, v in score.items() if k.startswith("brier")}})
    return table


def subgroups(rows: pd.DataFrame, params: Params) -> list[Row]:
    """AUC and Brier in each level of each subgroup that the cohort knows; unknown is a level of its own."""
    table = []
    for column in SUBGROUPS:
        if column not in rows or not rows[column].notna().any():
            continue
        for level, one in rows.groupby(rows[column].fillna("unknown").astype(str)):
            found = _bootstrap(one, "risk", metrics.auc, params).as_dict("auc")
            score = _bootstrap(one, "risk", metrics.brier, params).as_dict("brier")
            row = {"subgroup": column, "level": level, "unit": "hip-visit", **found}
            row |= {k: v for k, v in score.items() if k.startswith("brier")}
            table.append(row | {"small": counts(one, params)["small"]})
    return table


def unseen_vendors(rows: pd.DataFrame, params: Params) -> list[Row]:
    """AUC on each maker's scanners of a forecaster that was trained without them, beside the one that knew them: the
    same out-of-fold rows, the difference paired. The encoder's networks had seen other patients of that maker."""
    table: list[Row] = []
    if "unseen_vendor_risk" not in rows:
        return table
    known = rows[np.isfinite(rows["unseen_vendor_risk"].astype(float))]
    for vendor, one in known.groupby(known["vendor"].fillna("unknown").astype(str)):
        found = _bootstrap(one, "unseen_vendor_risk", metrics.auc, params)
        usual = _bootstrap(one, "risk", metrics.auc, params).as_dict("usual_auc")
        difference = _paired(one, "unseen_vendor_risk", metrics.auc, params)
        row: Row = {"vendor": vendor, "unit": "hip-visit", **found.as_dict("auc")}
        row |= {k: v for k, v in usual.items() if k.startswith("usual_auc")}
        row |= {f"difference_{k}": v for k, v in zip(("auc", "low", "high"), _plain(difference), strict=True)}
        table.append(row)
    return table


def operating_point(test: pd.DataFrame, training: pd.DataFrame, params: Params) -> Row | None:
    """Threshold set out of fold, then recall, specificity and precision on the test; None where it cannot be set."""
    events = training.loc[training["label"] == 1, "risk"]
    if not len(events) or not len(test):
        return None
    threshold = float(np.quantile(events, 1 - params.recall, method="lower"))
    row: Row = {"threshold": threshold, "set_on": "out_of_fold", "set_on_events": len(events), "unit": "hip-visit"}
    for name in ("recall", "specificity", "precision", "f1", "accuracy"):
        statistic = partial(getattr(metrics, name), threshold=threshold)
        found = _bootstrap(test, "risk", statistic, params)
        row |= {k: v for k, v in found.as_dict(name).items() if k not in ("degenerate",)}
    return row


def calibration(rows: pd.DataFrame, params: Params) -> list[Row]:
    """Bins of about equal n along the risk, so many that each holds enough hip-visits to be shown."""
    bins = max(1, min(params.bins, len(rows) // max(params.suppress_below, 1)))
    return [dict(one) for one in metrics.calibration_bins(rows["label"], rows["risk"], bins)]


def decision_curve(rows: pd.DataFrame, params: Params) -> list[Row]:
    """Net benefit per hip-visit at each threshold: by the model, if all were treated, if none were (0)."""
    low, high, step = params.thresholds
    others = {c[5:]: rows[c] for c in map(str, rows) if c in ("risk_jic", "risk_kerboul", "risk_lesion_size")}
    table = []
    for threshold in np.arange(low, high + step / 2, step):
        one = _bootstrap(rows, "risk", partial(metrics.net_benefit, threshold=threshold), params)
        everyone = metrics.net_benefit(rows["label"], np.ones(len(rows)), threshold=threshold)
        table.append(
            {
                "threshold": round(float(threshold), 4),
                **one.as_dict("net_benefit"),
                "treat_all": metrics.none_if_nan(everyone),
                "treat_none": 0.0,
                **{
                    f"baseline_{name}": metrics.none_if_nan(metrics.net_benefit(rows["label"], p, threshold=threshold))
                    for name, p in others.items()
                    if np.isfinite(p).all()
                },
                "unit": "hip-visit",
            }
        )
    return table


def abstentions(frame: pd.DataFrame, params: Params) -> Row:
    """How many hip-visits get no answer, and why; and the AUC over those that do.

    Reasons are counted without their numbers. A hip that has progressed already is not at risk, and one the estimate
    is not meant for is not eligible: neither is an abstention.
    """
    said = (
        frame.loc[frame["abstain"] != "", "abstain"].str.replace(r"\s*\([^)]*\)|[\d.]+ ?%", "", regex=True).str.strip()
    )
    settled = said.str.startswith("not at risk") | said.str.startswith("not eligible")
    answered = scored(frame[frame["abstain"] == ""])
    found = _bootstrap(answered, "risk", metrics.auc, params)
    return {
        "unit": "hip-visit",
        "n": len(frame),
        "abstained": int((~settled).sum()),
        "not_at_risk": int(said.str.startswith("not at risk").sum()),
        "not_eligible": int(said.str.startswith("not eligible").sum()),
        "without_risk": int((~np.isfinite(frame["risk"])).sum()),
        "reasons": {str(reason): int(n) for reason, n in said.value_counts().sort_index().items()},
        "answered": found.as_dict("auc"),
    }


def _bootstrap(rows: pd.DataFrame, column: str, statistic: Callable[..., Any], params: Params) -> metrics.Estimate:
    return metrics.clustered_bootstrap(
        (rows["label"], rows[column]), rows["subject"], statistic, params.resamples, params.seed, params.level,
        _strata(rows, statistic),
    )  # fmt: skip


def _strata(rows: pd.DataFrame, statistic: Callable[..., Any]) -> pd.Series | None:
    """Rank and slope compare what one model said: out-of-fold risks of different folds are those of different ones."""
    return rows["fold"].astype(str) if statistic in WITHIN_FOLDS else None


def _paired(rows: pd.DataFrame, column: str, statistic: Callable[..., Any], params: Params) -> metrics.Estimate:
    return metrics.paired_bootstrap(
        rows["label"],
        rows["risk"],
        rows[column],
        rows["subject"],
        statistic,
        params.resamples,
        params.seed,
        params.level,
        _strata(rows, statistic),
    )


def _plain(found: metrics.Estimate) -> list[float | None]:
    return [metrics.none_if_nan(one) for one in found]
