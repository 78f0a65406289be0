"""From sequences to calibrated members, predictions and their metrics."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file

from tasks.domain.hip import RESEARCH_ONLY
from tasks.forecast import checks, hazard
from tasks.forecast.hazard import Array
from tasks.forecast.member import Fitted, Table, corrections, one_column, risk_of_column, train
from tasks.forecast.params import Params
from tasks.nets.forecaster import Ensemble
from tasks.store import tables
from tasks.store.files import read_json, replacing, write_json, write_text
from tasks.store.items import Mapper
from tasks.training import metrics

SEQUENCES, NAMES = Path("data/sequences.parquet"), Path("data/sequences.json")
MODELS, PREDICTIONS, REPORTS = Path("models/forecast"), Path("data/predictions.parquet"), Path("reports/forecast")
BASELINES = {"lesion_size": "lesion_fraction", "jic": "jic_rank", "kerboul": "kerboul_deg"}
"""Baseline -> the one feature that it is made of."""
NOT_TRAINED = ("test", "none", "external")
"""Folds that nothing is fitted on: frozen test, consent withdrawn or never dealt, external sites."""
MANY_ROWS = 3000
"""Above this the folds go to other processes; below, starting torch there costs more than the folds."""

log = logging.getLogger("osteoflow.forecast")


def run(params: Params, mapper: Mapper) -> None:
    frame = tables.read("sequences", SEQUENCES)
    names = _names(frame)
    table = to_table(frame, names, params)
    order = np.lexsort((table.days, table.hips))
    frame, table = frame.iloc[order].reset_index(drop=True), table.rows(order)
    folds = frame["fold"].fillna("none").astype(str).to_numpy()
    left_out = sorted({f for f in folds if f not in NOT_TRAINED}, key=lambda f: (len(f), f))
    fitted = fit_members(table, folds, left_out, params, mapper)
    raw = {name: np.full(len(frame), np.nan) for name in ("risk", "lr_last", *BASELINES)}
    _predict_raw(raw, frame, table, folds, left_out, fitted, names, params)
    ensemble = _assemble(fitted, table, folds, names, frame, raw, params)
    predictions = _predictions(ensemble, frame, raw, folds, fitted)
    training = np.isin(folds, left_out)
    predictions["seen_risk"] = checks.seen(ensemble, frame, training)
    predictions["unseen_vendor_risk"], vendors = checks.unseen_vendor(frame, table, training, params)
    others = [name for name in map(str, predictions) if name.startswith("risk_")]
    predictions.loc[predictions["risk"].isna(), ["seen_risk", "unseen_vendor_risk", *others]] = np.nan
    _write(ensemble, fitted, predictions, vendors, params)


def _names(frame: pd.DataFrame) -> list[str]:
    """Names of the features; numbers when the table came without them."""
    width = max((len(v) for v in frame["features"] if v is not None), default=0)
    names = list(read_json(NAMES)["features"]) if NAMES.exists() else []
    return names if len(names) == width else [f"feature_{i:03d}" for i in range(width)]


def to_table(frame: pd.DataFrame, names: list[str], params: Params) -> Table:
    width = len(names)
    vectors = np.full((len(frame), width), np.nan)
    for row, vector in enumerate(frame["features"]):
        if vector is not None:
            vectors[row, : len(vector)] = vector
    label = frame["label"].to_numpy(dtype=np.float64)
    nothing = np.full(len(frame), np.nan)
    reasons = pd.Series([""] * len(frame), index=frame.index)
    for column in ("not_at_risk", "ineligible"):
        reasons = reasons + (frame[column].fillna("") if column in frame else "")
    data = hazard.exposure(
        label,
        frame["event_in_days"].to_numpy(dtype=np.float64) if "event_in_days" in frame else nothing,
        frame["followed_days"].to_numpy(dtype=np.float64) if "followed_days" in frame else nothing,
        (reasons == "").to_numpy(),
        float(frame["horizon_days"].median()) if len(frame) else 365.0,
        params.intervals,
    )
    text = {c: frame[c].fillna("").astype(str).to_numpy(dtype=str) for c in ("subject", "hip")}
    days = frame["days"].fillna(0.0).to_numpy(dtype=np.float64)
    anchors = tuple(names.index(name) for name in params.anchors if name in names)
    return Table(vectors, data, text["subject"], text["hip"], days, label, anchors)


def fit_members(
    table: Table, folds: np.ndarray, left_out: list[str], params: Params, mapper: Mapper
) -> dict[str, Fitted]:
    """One member for each fold left out; with one fold only, one member on all of it."""
    training = np.isin(folds, left_out)
    inside = {f: training & (folds != f) if len(left_out) > 1 else training for f in left_out}
    if not left_out:
        left_out, inside = ["0"], {"0": np.zeros(len(folds), dtype=bool)}
    work = [(table.rows(inside[f]), params, index) for index, f in enumerate(left_out)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        results = list((mapper if len(table.days) > MANY_ROWS else map)(train, work))
    finally:
        torch.set_num_threads(threads)
    for name, result in zip(left_out, results, strict=True):
        if result.reason:
            log.warning("fold %s: %s", name, result.reason)
    return dict(zip(left_out, results, strict=True))


def _predict_raw(
    raw: dict[str, Array], frame: pd.DataFrame, table: Table, folds: np.ndarray, left_out: list[str],
    fitted: dict[str, Fitted], names: list[str], params: Params,
) -> None:  # fmt: skip
    """Uncalibrated risks: of each training row by the member that did not see its patient, else the members' mean."""
    training = np.isin(folds, left_out)
    places = {name: names.index(feature) for name, feature in BASELINES.items() if feature in names}
    rest: dict[str, list[Array]] = {name: [] for name in raw}
    others = ~training
    for name, result in fitted.items():
        outside = folds == name
        inside = training & ~outside if len(left_out) > 1 else training
        for which, into in ((outside, None), (others, rest)):
            if not which.any():
                continue
            x = result.member.standardize(table.vectors[which])
            weight, alpha = result.last_visit
            found = {"lr_last": hazard.risk(x @ weight, alpha)}
            if into is None:
                rows, member = table.rows(which), result.member
                past = rows.past(x)
                more = member.amount * corrections(member.residual, rows, past) if member.amount else 0.0
                found["risk"] = member.risks(past @ member.weight + more)
            for baseline, place in places.items():
                kept = table.rows(inside)
                one = one_column(kept.vectors[:, place], kept.data, 1e-2, params.min_events)
                found[baseline] = risk_of_column(table.vectors[which][:, place], one)
            for key, values in found.items():
                if into is None:
                    raw[key][which] = values
                else:
                    into[key].append(values)
    for key, parts in rest.items():
        if parts:
            raw[key][others] = np.mean(parts, axis=0)


def _assemble(
    fitted: dict[str, Fitted],
    table: Table,
    folds: np.ndarray,
    names: list[str],
    frame: pd.DataFrame,
    raw: dict[str, Array],
    params: Params,
) -> Ensemble:
    training = np.isin(folds, list(fitted))
    far = [fitted[f].member.distance(table.vectors[folds == f]) for f in fitted if (folds == f).any()]
    limit = float(np.quantile(np.concatenate(far), params.distance_quantile)) if far else 0.0
    measured = np.isfinite(table.vectors[training])
    flags = {role: names.index(f"missing_{role}") for role in params.required_roles if f"missing_{role}" in names}
    usual_roles = [r for r, i in flags.items() if training.any() and np.nanmean(table.vectors[training, i]) < 0.5]
    usual = measured.mean(axis=0) > 0.5 if training.any() else np.ones(len(names), dtype=bool)
    line = hazard.platt(raw["risk"][training], table.label[training], params.min_events, folds[training])
    known = table.label[training]
    facts = {
        "kind": "onfh-progression-forecaster",
        "members": [f"fold{name}" for name in fitted],
        "features": names,
        "horizon_days": float(frame["horizon_days"].median()) if len(frame) else None,
        "amounts": {f"fold{name}": result.member.amount for name, result in fitted.items()},
        "calibration": {"intercept": line[0], "slope": line[1]},
        "interval": params.interval,
        "required_roles": usual_roles,
        "max_missing_share": params.max_missing_share,
        "usual": [bool(u) for u in usual],
        "distance_limit": max(limit * params.distance_margin, 1.0) if far else 1e9,
        "trained_on": {
            "patients": len(set(table.patients[training])), "hip_visits": int(training.sum()),
            "known_labels": int(np.isfinite(known).sum()), "progressions": int(np.nansum(known)),
        },
        "reasons": {f"fold{name}": result.reason for name, result in fitted.items() if result.reason},
        "notice": RESEARCH_ONLY,
    }  # fmt: skip
    return Ensemble({f"fold{name}": result.member for name, result in fitted.items()}, facts)


def _predictions(
    ensemble: Ensemble, frame: pd.DataFrame, raw: dict[str, Array], folds: np.ndarray, fitted: dict[str, Fitted]
) -> pd.DataFrame:
    """Of training rows by the member that did not see the patient, calibrated by what that member did see; of the
    rest by the ensemble."""
    training = np.isin(folds, list(fitted))
    parts = []
    for name, result in fitted.items():
        own = folds == name
        line = {"intercept": result.line[0], "slope": result.line[1]}
        alone = Ensemble({f"fold{name}": result.member}, ensemble.facts | {"calibration": line})
        parts.append(alone.predict(frame[own]).set_axis(frame.index[own]))
    parts.append(ensemble.predict(frame[~training]).set_axis(frame.index[~training]))
    out = pd.concat([part for part in parts if len(part)] or parts[:1]).sort_index()
    for column in ("hip", "subject", "side", "fold", "days", "label", "horizon_days"):
        out[column] = frame[column]
    for name, values in raw.items():
        if name != "risk" and np.isfinite(values).any():
            out[f"risk_{name}"] = values
    return out


def _write(
    ensemble: Ensemble,
    fitted: dict[str, Fitted],
    predictions: pd.DataFrame,
    vendors: dict[str, Any],
    params: Params,
) -> None:
    for folder in (MODELS, REPORTS):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    for name, result in fitted.items():
        write_member(MODELS, f"fold{name}", result)
    write_json(MODELS / "ensemble.json", ensemble.facts)
    write_json(
        MODELS / "inputs.json",
        {k: ensemble.facts[k] for k in ("features", "horizon_days", "required_roles")}
        | {"columns": ["hip", "hip_visit", "days", "features", "not_at_risk", "ineligible"]},
    )
    tables.write("predictions", PREDICTIONS, predictions, sort_by=["subject", "side", "days", "hip_visit"])
    found = measure(predictions, params)
    kept = ("amounts", "calibration", "distance_limit", "trained_on", "reasons")
    found["ensemble"] = {name: ensemble.facts[name] for name in kept}
    found |= {"folds": {f"fold{name}": result.facts for name, result in fitted.items()}, "notice": RESEARCH_ONLY}
    found["vendors_left_out"] = vendors
    write_json(REPORTS / "metrics.json", found)
    _write_run(fitted, found, params)
    for part, row in found["sets"].items():
        model = row["model"]
        auc = [float("nan") if model[name] is None else model[name] for name in ("auc", "auc_low", "auc_high")]
        log.info(
            "%s: AUC of the estimated risk %.3f (%.3f to %.3f), %d labels, %s events, %d patients",
            part, *auc, model["n"], model["n_events"], model["n_patients"],
        )  # fmt: skip


def write_member(folder: Path, name: str, result: Fitted) -> None:
    member = result.member
    arrays = ("impute", "centre", "scale", "weight", "alpha", "spread", "whiten")
    tensors = {key: torch.from_numpy(np.ascontiguousarray(getattr(member, key))) for key in arrays}
    tensors |= {f"residual.{key}": value.contiguous() for key, value in member.residual.state_dict().items()}
    with replacing(folder / f"{name}.safetensors") as partial:
        save_file(tensors, str(partial))
    facts = {"hidden": member.residual.fade.numel(), "amount": member.amount, "reason": result.reason} | result.facts
    write_json(folder / f"{name}.json", facts)


def measure(predictions: pd.DataFrame, params: Params) -> dict[str, Any]:
    """{sets: {out_of_fold | test: {model | <baseline>: {auc, auc_low, auc_high, brier, ..., n, n_patients}}}}"""
    fold = predictions["fold"].fillna("none")
    sets: dict[str, Any] = {}
    for part, which in (("out_of_fold", ~fold.isin(NOT_TRAINED)), ("test", fold == "test")):
        known = predictions[which & predictions["label"].notna()]
        if known.empty:
            continue
        sets[part] = {}
        names = [str(name) for name in known.columns]
        for column in ["risk", *(n for n in names if n.startswith("risk_") and n not in ("risk_low", "risk_high"))]:
            row: dict[str, Any] = {}
            for name, statistic in (("auc", metrics.auc), ("brier", metrics.brier)):
                row |= metrics.clustered_bootstrap(
                    [known["label"], known[column]], known["subject"], statistic, params.metric_resamples, params.seed,
                    strata=known["fold"].astype(str) if name == "auc" else None,
                ).as_dict(name)  # fmt: skip
            sets[part]["model" if column == "risk" else column.removeprefix("risk_")] = row
    return {"sets": sets}


def _write_run(fitted: dict[str, Fitted], found: dict[str, Any], params: Params) -> None:
    import json

    lines: list[dict[str, Any]] = [{"event": "params", "params": params.model_dump(mode="json")}]
    for name, result in fitted.items():
        lines += [
            {"event": "metric", "model": f"fold{name}", "name": "loss", "step": step, "value": loss}
            for step, loss in enumerate(result.losses) if step % 10 == 0 or step == len(result.losses) - 1
        ]  # fmt: skip
    for part, rows in found["sets"].items():
        for model, row in rows.items():
            for name in ("auc", "brier"):
                if row[name] is not None:
                    lines.append(
                        {"event": "metric", "model": model, "name": f"{part}_{name}", "step": 0, "value": row[name]}
                    )
    lines.append({"event": "end", "status": "finished"})
    write_text(REPORTS / "run.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
