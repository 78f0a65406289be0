"""The stage: rows, primary population, numbers, tables, figures."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks.domain.hip import RESEARCH_ONLY
from tasks.evaluate import attribution, censoring, cohort, cox, exclusions, figures, needed, privacy, rows, scores
from tasks.evaluate.params import Params
from tasks.store.files import replacing, write_json, write_text
from tasks.store.items import Mapper
from tasks.store.tables import read as read_table

REPORT, FOLDER = Path("reports/evaluate.json"), Path("reports/evaluate")
MODEL = "onfh-progression"
COUNTED = ["n", "n_patients", "n_events", "n_lost_before", "there_patients", "there_hip_visits", "there_events"]
"""Columns of exported tables that count people, their hips or what befell them."""
COUNTS = ["n", "n_patients", "n_events"]
log = logging.getLogger("osteoflow.evaluate")


def run(params: Params, mapper: Mapper) -> None:
    """Write reports/evaluate.json and reports/evaluate/."""
    frame = rows.load(params.age_bands)
    frame["risk_cox"] = cox.risk(frame, params)
    if not np.isfinite(frame["risk_cox"]).any():
        frame = frame.drop(columns="risk_cox")
    report, tables, primary_rows = evaluate(frame, params)
    entries = exclusions.flow(read_table("hips", rows.DATA / "hips.parquet"), frame)
    tables["flow"] = exclusions.shown(entries, params.suppress_below)
    shutil.rmtree(FOLDER, ignore_errors=True)
    write_json(REPORT, report)
    for name, table in tables.items():
        _csv(FOLDER / f"{name}.csv", cohort.suppress(table, COUNTED, params.suppress_below))
    write_text(FOLDER / "flow.svg", exclusions.diagram(entries, params.suppress_below))
    figures.draw(primary_rows, report, report["baselines"], tables["decision"], params, FOLDER)
    attribution.write(params.explain_hips, params.resamples, FOLDER)
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
    inputs = int(frame["inputs"].max()) if "inputs" in frame and len(frame) else 0
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
        "subgroups": cohort.hide(scores.subgroups(chosen, params), COUNTS, params.suppress_below, "subgroup"),
        "survival": [row for group, one in groups.items() for row in censoring.table(one, group, params)],
        "vendors": cohort.hide(
            scores.unseen_vendors(known["out_of_fold"], params), COUNTS, params.suppress_below, "unit"
        ),
        "required": needed.beside(primary, inputs, described["out_of_fold"], params.r2_share),
        "privacy": {
            "anonymity": privacy.anonymity(frame, params),
            "membership": privacy.membership(frame, params),
        },
        "operating_point": scores.operating_point(known["test"], known["out_of_fold"], params),
        "abstentions": scores.abstentions(groups.get(name, frame), params),
        "interval": f"{params.level:.0%} percentile, {params.resamples} resamples of patients",
        "note": RESEARCH_ONLY,
    }
    counted = cohort.cohort(frame)
    baseline_rows = [{"baseline": baseline, **row} for baseline, row in against.items()]
    tables = {
        "cohort": cohort.protect(
            counted, cohort.POPULATIONS, params.suppress_below, cohort.cohort_sums(counted, cohort.POPULATIONS)
        ),
        "baselines": baseline_rows,
        "units": report["units"],
        "subgroups": report["subgroups"],
        "survival": report["survival"],
        "vendors": report["vendors"],
        "required": report["required"],
        "populations": [
            {
                "population": group,
                "measure": name,
                "value": one.get(name),
                "low": one.get(f"{name}_low"),
                "high": one.get(f"{name}_high"),
                "unit": "hip-visit",
                "n": one["n"],
                "n_patients": one["n_patients"],
                "n_events": one["n_events"],
            }
            for group, one in described.items()
            for name in scores.MEASURES
        ],
        "decision": scores.decision_curve(chosen, params),
        "calibration": scores.calibration(chosen, params),
    }
    return report, tables, chosen


def _csv(path: Path, table: list[dict[str, Any]]) -> None:
    with replacing(path) as partial:
        pd.DataFrame(table).to_csv(partial, index=False, float_format="%.6g", lineterminator="\n")
