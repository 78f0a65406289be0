"""One network a fold, everybody's features, and the report."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks.classify import reading, report, targets
from tasks.classify.fold import Job, fit_fold
from tasks.classify.params import Params
from tasks.domain.hip import ROLES
from tasks.store import tables
from tasks.store.digests import code_digest, combine
from tasks.store.files import write_json
from tasks.store.items import Mapper
from tasks.training import curves, data, pictures
from tasks.training.progress import Progress

MODELS, FEATURES_TABLE, REPORTS = Path("models/classify"), Path("data/features.parquet"), Path("reports/classify")
_NOT_LEARNED = {"bootstrap", "warm_start", "warm_epochs"}
"""Parameters that do not make an existing network another one."""
_log = logging.getLogger("osteoflow.classify")


def run(params: Params, mapper: Mapper) -> None:
    for folder in (MODELS, REPORTS):
        folder.mkdir(parents=True, exist_ok=True)
    rows, labels = data.cohort(), data.labels()
    folds = data.folds(rows)
    with Progress(REPORTS / "run.jsonl", params) as progress:
        reason = _unfit(rows, labels, folds)
        results: list[dict[str, Any]] = []
        if reason:
            _log.warning("no encoder is trained: %s", reason)
        else:
            identity = combine(params.model_dump_json(exclude=_NOT_LEARNED), code_digest("classify"))
            jobs = [Job(params, fold, rows, labels, identity, str(MODELS)) for fold in folds]
            for result in mapper(fit_fold, jobs):
                progress.curve(f"fold{result['fold']}", result["record"]["history"])
                results.append(result)
        about = {"features": reading.FEATURES, "roles": list(ROLES), "folds": [one["fold"] for one in results]}
        write_json(MODELS / "features.json", about | {"reason": reason})
        _sweep(about["folds"])
        features, slices = _gather(rows, results)
        _write(rows, features)
        found = _report(params, rows, labels, features, slices) if results else {}
        write_json(REPORTS / "metrics.json", found | {"reason": reason, "networks": _networks(results)})
        for name in ("auc", "auc_pooled", "recall"):
            if found.get("slice", {}).get(name) is not None:
                progress.metric("out_of_fold", f"slice_{name}", found["slice"][name])
        for name, head in found.get("heads", {}).items():
            if head["correlation"] is not None:
                progress.metric("out_of_fold", f"correlation_{name}", head["correlation"])
        for path in _figures(found):
            progress.figure(path)
        histories = {f"fold {one['fold']}": [row["loss"] for row in one["record"]["history"]] for one in results}
        curves.write(REPORTS / "curves.svg", "Training loss of the visit encoder", histories)
        progress.figure(REPORTS / "curves.svg")


def _unfit(rows: pd.DataFrame, labels: pd.DataFrame, folds: list[str]) -> str:
    if rows.empty:
        return "there is no usable hip-visit"
    if len(folds) < 2:
        return "all training hip-visits lie in one fold"
    if not rows["mask"].any() and labels.reindex(rows["hip_visit"]).isna().all(axis=None):
        return "no hip-visit has a label or a mask"
    return ""


def _gather(rows: pd.DataFrame, results: list[dict[str, Any]]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Features (n, F) and slice probabilities of each row: from its own fold's network, or the mean over networks."""
    own = {key: (one["features"][i], one["slices"][i]) for one in results for i, key in enumerate(one["keys"])}
    every: dict[str, list[np.ndarray]] = {}
    for one in results:
        for i, key in enumerate(one["keys"]):
            every.setdefault(key, []).append(one["features"][i])
    features, slices = [], []
    for key, learnt in zip(rows["hip_visit"].astype(str), data.learnt_from(rows), strict=True):
        features.append(reading.mean(every.get(key, [])))
        slices.append(own[key][1] if key in own and learnt else np.zeros(0))
    return np.array(features).reshape(-1, len(reading.FEATURES)), slices


def _write(rows: pd.DataFrame, features: np.ndarray) -> None:
    table = rows[["hip_visit", "subject", "side", "fold"]].copy()
    table["features"] = [list(vector) for vector in features]
    tables.write("features", FEATURES_TABLE, table, sort_by=["hip_visit"])


def _report(
    params: Params, rows: pd.DataFrame, labels: pd.DataFrame, features: np.ndarray, slices: list[np.ndarray]
) -> dict[str, Any]:
    inside = data.learnt_from(rows).to_numpy()
    mine = rows[inside].reset_index(drop=True)
    table, labelled = targets.of_visits(mine, labels, params.min_lesion_mm2)
    read = np.array([one for one, keep in zip(slices, inside, strict=True) if keep])
    return report.metrics_of(mine, features[inside], read, table, labelled, params.bootstrap)


def _figures(found: dict[str, Any]) -> list[Path]:
    """Confusion of stages and calibration of slices, where there is something to show."""
    drawn = []
    confusion, bins = found.get("stage_confusion"), found.get("slice_calibration")
    if confusion and confusion["n"]:
        drawn.append(REPORTS / "confusion.svg")
        title = "ARCO stage, patients not seen"
        pictures.confusion(drawn[-1], title, confusion["levels"], confusion["counts"], "hip-visits")
    if bins:
        drawn.append(REPORTS / "calibration.svg")
        note = f"n = {found['slice']['n']} slices of {found['slice']['n_patients']} patients"
        pictures.calibration(drawn[-1], "Lesion on a slice, patients not seen", bins, note)
    return drawn


def _networks(results: list[dict[str, Any]]) -> dict[str, Any]:
    keys = ("weights", "warm_started_from", "hip_visits", "steps", "taught")
    return {f"fold{one['fold']}": {key: one["record"][key] for key in keys} for one in results}


def _sweep(folds: list[str]) -> None:
    wanted = {f"fold{fold}{end}" for fold in folds for end in (".safetensors", ".json")} | {"features.json"}
    for path in MODELS.iterdir():
        if path.name not in wanted:
            path.unlink()
