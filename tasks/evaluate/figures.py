"""Figures of the primary population, as SVG: ROC, calibration, decision curve, distribution of risk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks.domain.hip import RESEARCH_ONLY
from tasks.evaluate import scores
from tasks.evaluate.chart import COLOURS, INK, Chart
from tasks.evaluate.params import Params
from tasks.evaluate.rows import SCORES
from tasks.store.files import write_text
from tasks.training import metrics

Row = dict[str, Any]
NAMES = {
    "lr_last": "logistic, last visit", "lesion_size": "lesion size", "jic": "JIC type", "kerboul": "Kerboul angle",
    "cox": "Cox",
}  # fmt: skip
"""Baselines as a legend says them."""


def draw(rows: pd.DataFrame, primary: Row, table: dict[str, Row], curve: list[Row], params: Params, out: Path) -> None:
    """Write roc.svg, calibration.svg, decision.svg and risk.svg below `out`."""
    for name, chart in (
        ("roc", roc(rows, primary, table)),
        ("calibration", calibration(rows, primary, params)),
        ("decision", decision(curve, primary)),
        ("risk", distribution(rows, primary)),
    ):
        write_text(out / f"{name}.svg", chart.svg())


def interval(row: Row, name: str) -> str:
    """'0.81 (0.70 to 0.90)', or 'not defined'."""
    if row.get(name) is None:
        return "not defined"
    if row.get(f"{name}_low") is None:
        return f"{row[name]:.2f} (no interval)"
    return f"{row[name]:.2f} ({row[f'{name}_low']:.2f} to {row[f'{name}_high']:.2f})"


def basis(primary: Row) -> str:
    """The line under every figure: n, unit, population."""
    names = {"test": "frozen test patients", "out_of_fold": "out of fold", "external": "external site"}
    which = names.get(primary["population"], "none")
    few = "Few events or non-events: read the interval, not the number.\n" if primary["small"] else ""
    return (
        f"{primary['n']} hip-visits, {primary['n_events']} events, {primary['n_patients']} patients ({which}).\n"
        f"{few}{RESEARCH_ONLY}"
    )


def roc(rows: pd.DataFrame, primary: Row, table: dict[str, Row]) -> Chart:
    chart = Chart(
        "Receiver operating characteristic",
        "1 - specificity",
        "sensitivity",
        note="AUC with 95% interval, patients resampled.\n" + basis(primary),
    )
    chart.line([(0, 0), (1, 1)], "#999999", width=1, dash="4 4")
    label_of = {label: column for column, label in SCORES.items()}
    for index, (name, row) in enumerate(reversed(list(table.items()))):
        column = f"risk_{name}" if f"risk_{name}" in rows else label_of[name]
        known = rows[np.isfinite(rows[column].astype(float))]
        if known["label"].nunique() == 2:
            colour = COLOURS[1 + (len(table) - 1 - index) % (len(COLOURS) - 1)]
            chart.line(
                _curve(known, column),
                colour,
                f"{NAMES.get(name, name)} {interval(row, 'auc')}",
                width=1.2,
            )
    if rows["label"].nunique() == 2:
        label = f"model {interval(primary, 'auc')}"
        chart.line(_curve(rows, "risk"), COLOURS[0], label, width=2.6)
    return chart


def calibration(rows: pd.DataFrame, primary: Row, params: Params) -> Chart:
    chart = Chart(
        "Calibration",
        "estimated risk (mean of bin)",
        "observed share with progression",
        note=f"slope {interval(primary, 'slope')}, intercept {interval(primary, 'intercept')},\n"
        f"Brier {interval(primary, 'brier')}. Bars: 95% Wilson.\n" + basis(primary),
    )
    chart.line([(0, 0), (1, 1)], "#999999", "ideal", width=1, dash="4 4")
    bins = scores.calibration(rows, params)
    spans = [(b["low"], b["high"]) for b in bins]
    places = [(b["risk"], b["rate"]) for b in bins]
    return chart.points(places, COLOURS[0], spans, "model, bins of about equal n").line(places, COLOURS[0], width=1)


def decision(curve: list[Row], primary: Row) -> Chart:
    values = [v for row in curve for v in (row["net_benefit"], row["net_benefit_low"], row["net_benefit_high"]) if v]
    top = max([0.05, *values]) * 1.1
    xs = [row["threshold"] for row in curve] or [0.0, 1.0]
    chart = Chart(
        "Decision curve",
        "threshold of estimated risk",
        "net benefit per hip-visit",
        xlim=(min(xs), max(xs)),
        ylim=(-top / 4, top),
        note=basis(primary),
    )
    known = [row for row in curve if row["net_benefit"] is not None]
    banded = [row for row in known if row["net_benefit_low"] is not None]
    chart.band(
        [(r["threshold"], r["net_benefit_low"]) for r in banded],
        [(r["threshold"], r["net_benefit_high"]) for r in banded],
        COLOURS[0],
    )
    all_treated = [(r["threshold"], r["treat_all"]) for r in known if (r["treat_all"] or -1) > -top / 4]
    chart.line(all_treated, "#777777", "all treated", width=1.2, dash="6 3")
    chart.line([(min(xs), 0), (max(xs), 0)], INK, "none treated", width=1.2)
    names = sorted({key for row in known for key in row if key.startswith("baseline_")})
    for place, name in enumerate(names):
        points = [(r["threshold"], r[name]) for r in known if r.get(name) is not None and r[name] > -top / 4]
        short = name.removeprefix("baseline_")
        chart.line(points, COLOURS[1 + place], NAMES.get(short, short), width=1.2)
    return chart.line([(r["threshold"], r["net_benefit"]) for r in known], COLOURS[0], "model (95% band)", width=2.4)


def distribution(rows: pd.DataFrame, primary: Row) -> Chart:
    edges = np.linspace(0, 1, 11).tolist()
    counted = {one: np.histogram(rows.loc[rows["label"] == one, "risk"], edges)[0].tolist() for one in (0.0, 1.0)}
    top = max([1, *counted[0.0], *counted[1.0]])
    chart = Chart(
        "Estimated risk by outcome",
        "estimated risk",
        "hip-visits",
        ylim=(0, float(top) * 1.05),
        note=basis(primary),
    )
    chart.bars(edges, counted[0.0], "#7a93a8", "no progression within the horizon")
    return chart.bars(edges, counted[1.0], COLOURS[1], "progression within the horizon")


def _curve(rows: pd.DataFrame, column: str) -> list[tuple[float, float]]:
    """Of several folds the mean of their curves, each with its weight in the AUC (`metrics.within`)."""
    parts = [one for _, one in rows.groupby("fold") if one["label"].nunique() == 2]
    if len(parts) < 2:
        fpr, tpr, _ = metrics.roc_curve(rows["label"], rows[column].astype(float))
        return list(zip(fpr.tolist(), tpr.tolist(), strict=True))
    grid = np.linspace(0, 1, 201)
    curves = [metrics.roc_curve(one["label"], one[column].astype(float)) for one in parts]
    weights = [one["label"].sum() * (1 - one["label"]).sum() / len(one) for one in parts]
    mean = np.average([np.interp(grid, fpr, tpr) for fpr, tpr, _ in curves], axis=0, weights=weights)
    return [(0.0, 0.0), *zip(grid.tolist(), mean.tolist(), strict=True)]
