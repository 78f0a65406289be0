"""Predictions of slices to one table over networks and units, with intervals that resample patients.

What stands in a row is out of fold: each fold was judged by another network, so AUC and its differences are taken
within folds (`metrics.within`); auc_pooled is over all folds together, where their own shares of lesions bias it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pandas as pd

from tasks.domain.errors import Differs
from tasks.training import metrics

UNITS = ("slice", "hip_visit", "patient")
NUMBERS: dict[str, Callable[..., Any]] = {
    "auc": metrics.auc, "accuracy": metrics.accuracy, "recall": metrics.recall, "specificity": metrics.specificity,
    "f1": metrics.f1, "brier": metrics.brier,
}  # fmt: skip
COLUMNS = ["network", "unit", "n", "n_patients", "prevalence", "threshold"]
COLUMNS += [name + end for name in NUMBERS for end in ("", "_low", "_high")] + ["auc_pooled"]
PAIRED = ["best", "auc_minus_best", "auc_minus_best_low", "auc_minus_best_high", "p_vs_best"]
THRESHOLDED = ("accuracy", "recall", "specificity", "f1")


def to_unit(predictions: pd.DataFrame, unit: str, top_slices: int) -> pd.DataFrame:
    """predictions (hip_visit, subject, slice, label, fold, p; one row a slice) -> subject, label, fold, p by `unit`.

    A hip-visit scores the mean of its highest slices and has a lesion where a slice has; a patient the highest visit.
    With folds of slices several networks speak of one hip-visit, which is then of no fold.
    """
    if unit == "slice":
        return predictions[["subject", "label", "fold", "p"]]
    if predictions.groupby("subject")["fold"].nunique().gt(1).any():
        predictions = predictions.assign(fold="")
    top = predictions.sort_values("p", ascending=False).groupby("hip_visit").head(top_slices)
    of_visit = predictions.groupby("hip_visit")
    visits = of_visit.agg(subject=("subject", "first"), label=("label", "max"), fold=("fold", "first"))
    visits["p"] = top.groupby("hip_visit")["p"].mean()
    if unit == "hip_visit":
        return visits.reset_index(drop=True)
    return visits.groupby("subject").agg(label=("label", "max"), fold=("fold", "first"), p=("p", "max")).reset_index()


def rows_of(work: tuple[str, pd.DataFrame, int, float, int]) -> list[dict[str, Any]]:
    """The rows of one network (name, predictions, top_slices, threshold, resamples)."""
    network, predictions, top_slices, threshold, resamples = work
    rows = []
    for unit in UNITS:
        one = to_unit(predictions, unit, top_slices)
        row: dict[str, Any] = {
            "network": network, "unit": unit, "n": len(one), "n_patients": one["subject"].nunique(),
            "prevalence": one["label"].mean(), "threshold": threshold,
        }  # fmt: skip
        for name, number in NUMBERS.items():
            statistic = partial(number, threshold=threshold) if name in THRESHOLDED else number
            found = metrics.clustered_bootstrap(
                [one["label"], one["p"]], one["subject"], statistic, resamples,
                strata=one["fold"] if name == "auc" else None,
            )  # fmt: skip
            row |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
        rows.append(row | {"auc_pooled": metrics.auc(one["label"], one["p"])})
    return rows


def leakage(
    honest: dict[str, pd.DataFrame],
    leaky: dict[str, pd.DataFrame],
    top_slices: int,
    threshold: float,
    resamples: int,
) -> pd.DataFrame:
    """network, unit, auc and accuracy with folds of patients, the same with folds of slices, and the inflation of AUC
    with an interval that resamples the same patients for both."""
    rows = []
    for network in (network for network in honest if network in leaky):
        for unit in UNITS:
            a, b = (to_unit(one[network], unit, top_slices) for one in (honest, leaky))
            if not (a["subject"].tolist() == b["subject"].tolist() and a["label"].tolist() == b["label"].tolist()):
                raise Differs(
                    f"{network}: {unit} rows with folds of patients and of slices differ; run both protocols again"
                )
            honest_auc, leaky_auc = (metrics.within(metrics.auc, one["fold"]) for one in (a, b))
            arrays = [a["label"].to_numpy(float), a["p"].to_numpy(float), b["p"].to_numpy(float)]
            gain = metrics.clustered_bootstrap(arrays, a["subject"], _gain(honest_auc, leaky_auc), resamples)
            row: dict[str, Any] = {"network": network, "unit": unit, "n": len(a), "n_patients": a["subject"].nunique()}
            for end, one, auc in (("", a, honest_auc), ("_slice_split", b, leaky_auc)):
                row[f"auc{end}"] = auc(one["label"].to_numpy(float), one["p"].to_numpy(float))
                row[f"accuracy{end}"] = metrics.accuracy(one["label"], one["p"], threshold=threshold)
            rows.append(row | {"inflation": gain.value, "inflation_low": gain.low, "inflation_high": gain.high})
    columns = ["network", "unit", "n", "n_patients", "auc", "auc_slice_split", "inflation", "inflation_low"]
    return pd.DataFrame(rows, columns=[*columns, "inflation_high", "accuracy", "accuracy_slice_split"])


def _gain(honest: metrics.Statistic, leaky: metrics.Statistic) -> metrics.Statistic:
    """By how much the second protocol's AUC is higher: the same slices, each protocol within its own folds."""

    def gain(y: metrics.Array, p_honest: metrics.Array, p_leaky: metrics.Array, w: metrics.Array | None = None) -> Any:
        return leaky(y, p_leaky, w=w) - honest(y, p_honest, w=w)

    return gain


def against_best(
    table: pd.DataFrame, predictions: dict[str, pd.DataFrame], top_slices: int, resamples: int
) -> pd.DataFrame:
    """Columns best, auc_minus_best with its interval, p_vs_best and p_holm_vs_best, within each unit.

    The best is the network of highest AUC by slice; a difference resamples the same patients for both.
    """
    by_slice = table[table["unit"] == "slice"].dropna(subset=["auc"])
    if by_slice.empty:
        return table.assign(best=None, p_vs_best=float("nan"), p_holm_vs_best=float("nan"))
    best = by_slice.sort_values(["auc", "network"], ascending=[False, True])["network"].iloc[0]
    out = []
    for unit, part in table.groupby("unit", sort=False):
        rival = to_unit(predictions[best], str(unit), top_slices)
        found = []
        for network in part["network"]:
            one = to_unit(predictions[network], str(unit), top_slices)
            row = {"best": best}
            if network != best:
                pair = metrics.paired_bootstrap(
                    rival["label"], one["p"], rival["p"], rival["subject"], n=resamples, strata=rival["fold"]
                )
                row |= {"auc_minus_best": pair.value, "auc_minus_best_low": pair.low, "auc_minus_best_high": pair.high}
                row |= {"p_vs_best": pair.p_value}
            found.append(row)
        added = pd.DataFrame(found, index=part.index).reindex(columns=PAIRED)
        added["p_holm_vs_best"] = metrics.holm(added["p_vs_best"].astype(float).to_numpy())
        out.append(part.join(added))
    return pd.concat(out).sort_index()
