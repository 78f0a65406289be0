"""The stage: rows, primary population, numbers, tables, figures."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import pandas as pd

from tasks.domain.hip import RESEARCH_ONLY
from tasks.evaluate import cohort, figures, rows, scores
from tasks.evaluate.params import Params
from tasks.store.files import replacing, write_json
from tasks.store.items import Mapper

REPORT, FOLDER = Path("reports/evaluate.json"), Path("reports/evaluate")
MODEL = "onfh-progression"
log = logging.getLogger("osteoflow.evaluate")


def run(params: Params, mapper: Mapper) -> None:
    """Write reports/evaluate.json and reports/evaluate/."""
    frame = rows.load()
    report, tables, primary_rows = evaluate(frame, params)
    shutil.rmtree(FOLDER, ignore_errors=True)
    write_json(REPORT, report)
    for name, table in tables.items():
        _csv(FOLDER / f"{name}.csv", table)
    figures.draw(primary_rows, report, report["baselines"], tables["decision"], params, FOLDER)
    log.info(
        "%s: AUC %s, %d events in %d hip-visits of %d patients. %s",
        report["population"],
        figures.interval(report, "auc"),
        report["n_events"],
        report["n"],
        report["n_patients"],
        RESEARCH_ONLY,
    )


def evaluate(
    frame: pd.DataFrame, params: Params
) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]], pd.DataFrame]:
    """The report, the tables by file name, and the rows of the primary population."""
    name, note = rows.primary(frame)
    groups = rows.populations(frame)
    known = {group: rows.scored(one) for group, one in groups.items()}
    described = {group: scores.describe(one, params) for group, one in known.items()}
    compared = {group: scores.baselines(one, params) for group, one in known.items()}
    used = name if name in known else "test"
    chosen, primary, against = known[used], described[used], compared[used]
    origins = sorted(frame["origin"].dropna().unique().tolist())
    horizon = frame["horizon_days"].dropna()
    report = {
        "model": MODEL,
        "population": name,
        "population_note": note,
        "horizon_days": float(horizon.iloc[0]) if len(horizon) else None,
        "origin": "+".join(origins) or "unknown",
        **primary,
        "baselines": against,
        "populations": {group: described[group] | {"baselines": compared[group]} for group in known},
        "units": scores.units(chosen, params),
        "subgroups": scores.subgroups(chosen, params),
        "operating_point": scores.operating_point(known["test"], known["out_of_fold"], params),
        "abstentions": scores.abstentions(groups.get(name, frame), params),
        "interval": f"{params.level:.0%} percentile, {params.resamples} resamples of patients",
        "note": RESEARCH_ONLY,
    }
    baseline_rows = [{"baseline": baseline, **row} for baseline, row in against.items()]
    tables = {
        "cohort": cohort.suppress(cohort.cohort(frame), ["all", "out_of_fold", "test"], params.suppress_below),
        "baselines": baseline_rows,
        "units": report["units"],
        "subgroups": cohort.suppress(report["subgroups"], ["n_patients", "n_events"], params.suppress_below),
        "decision": scores.decision_curve(chosen, params),
        "calibration": scores.metrics.calibration_bins(chosen["label"], chosen["risk"], params.bins),
    }
    return report, tables, chosen


def _csv(path: Path, table: list[dict[str, Any]]) -> None:
    with replacing(path) as partial:
        pd.DataFrame(table).to_csv(partial, index=False, float_format="%.6g", lineterminator="\n")
