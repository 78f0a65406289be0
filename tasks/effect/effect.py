"""The table of treatment response, beside the paper's."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks.domain.disease import TREATMENTS
from tasks.domain.hip import RESEARCH_ONLY
from tasks.effect.cohort import OBSERVATION, cohort, landmark
from tasks.effect.drawing import forest, overlap
from tasks.effect.estimate import NOTHING, Array, Interval, e_value, holm, mean_change, t_interval, weighted
from tasks.effect.models import regressions
from tasks.effect.params import Params
from tasks.effect.propagate import simex
from tasks.store import tables
from tasks.store.files import write_json, write_text
from tasks.store.items import Mapper

DATA, TABLE, FOLDER = Path("data"), Path("reports/effect.csv"), Path("reports/effect")
PAPER = [
    {"treatment": "vascularized_bone_graft", "outcome": "vessel_length_mm", "change": 12.4, "low": 11.2, "high": 13.6},
    {"treatment": "vascularized_bone_graft", "outcome": "vessel_branches", "change": 2.7, "low": 2.3, "high": 3.1},
]
"""medinform.jmir.org/2025/1/e66727, among 30 patients of one centre; unadjusted, the interval's method not given."""
UNITS = {"vessel_length_mm": "mm", "vessel_branches": "branches", "lesion_fraction": "fraction of the head",
         "progression": "risk"}  # fmt: skip
COLUMNS = [
    "treatment", "outcome", "unit", "change", "low", "high", "n_hips", "n_patients", "adjusted", "p", "p_holm",
    "versus_observation", "versus_low", "versus_high", "p_versus", "e_value", "e_value_limit", "measurement_se",
    "sd", "sd_without_error", "n_same_place", "method", "reason",
]  # fmt: skip

log = logging.getLogger("osteoflow.effect")


def run(params: Params, mapper: Mapper) -> None:
    read = {name: tables.read(name, DATA / f"{name}.parquet") for name in ("measures", "annotations", "hips")}
    hips, left_out = cohort(**read, params=params)
    outcomes = [*params.outcomes, "progression"]
    rows: list[dict[str, Any]] = []
    propensities: dict[str, dict[str, list[float]]] = {}
    models: dict[str, Any] = {}
    for outcome in outcomes:
        known = hips[hips[outcome].notna()] if len(hips) else hips
        arms = [name for name in TREATMENTS if len(known) and (known["treatment"] == name).any()]
        rows += _corrected([_unadjusted(known[known["treatment"] == arm], arm, outcome, params) for arm in arms])
        rows += _corrected([_adjusted(known, arm, outcome, params, propensities) for arm in arms if arm != OBSERVATION])
        models[outcome] = _models(known, outcome, params)
    rows = [_shown(row, params) for row in rows]
    table = pd.DataFrame(rows, columns=COLUMNS)
    table[["n_hips", "n_patients"]] = table[["n_hips", "n_patients"]].astype(float)
    shutil.rmtree(FOLDER, ignore_errors=True)
    write_text(TABLE, table.to_csv(index=False, float_format="%.6g"))
    early, not_at_risk = landmark(read["measures"], read["annotations"], read["hips"], params)
    from_landmark = [_shown(row, params) for row in _landmark(early, params)]
    write_text(FOLDER / "landmark.csv", pd.DataFrame(from_landmark, columns=COLUMNS).to_csv(index=False))
    write_text(FOLDER / "paper.csv", _beside(rows).to_csv(index=False, float_format="%.6g"))
    write_text(FOLDER / "models.csv", _modelled(models))
    facts = _facts(table, hips, left_out, models, propensities, params)
    write_json(FOLDER / "effect.json", facts | {"landmark_left_out": _few(not_at_risk, params.suppress_below)})
    write_text(FOLDER / "effect.svg", forest(rows, PAPER))
    write_text(FOLDER / "overlap.svg", overlap(propensities))
    for paper in PAPER:
        ours = [r for r in rows if all(r[k] == paper[k] for k in ("treatment", "outcome"))]
        for row in ours:
            if not np.isfinite(row["change"]):
                continue
            log.info(
                "%s is associated with a change of %+.2f %s (%.2f to %.2f; %d hips, %d patients%s); the paper: %+.1f",
                row["treatment"], row["change"], row["unit"], row["low"], row["high"], row["n_hips"],
                row["n_patients"], ", adjusted" if row["adjusted"] else "", paper["change"],
            )  # fmt: skip
    log.info("%d hips in the table; left out: %s", len(hips), left_out or "none")


def _row(part: pd.DataFrame, arm: str, outcome: str, adjusted: int) -> dict[str, Any]:
    errors = part[f"{outcome}_se"].to_numpy(dtype=float) if f"{outcome}_se" in part else np.array([np.nan])
    known = np.isfinite(errors)
    spread = float(part[outcome].std(ddof=1)) if len(part) > 1 else np.nan
    noise = float((errors[known] ** 2).mean()) if known.any() else np.nan
    without = float(np.sqrt(max(spread**2 - noise, 0.0))) if np.isfinite(noise) else np.nan
    measured = float(np.sqrt((errors[known] ** 2).sum()) / known.sum()) if known.any() else np.nan
    return dict.fromkeys(COLUMNS) | {
        "treatment": arm, "outcome": outcome, "unit": UNITS.get(outcome, ""), "adjusted": adjusted,
        "n_hips": len(part), "n_patients": int(part["subject"].nunique()),
        "change": np.nan, "low": np.nan, "high": np.nan, "p": np.nan, "reason": "",
        # What the measurement alone adds to the error of the mean; an interval over resampled patients holds it. And
        # the SD of the hips' changes, as observed and with the variance of the measurement taken away.
        "measurement_se": measured, "sd": spread, "sd_without_error": without,
        # Hips whose change was measured within what both visits show, laid onto each other.
        "n_same_place": float(part[f"{outcome}_same_place"].sum()) if f"{outcome}_same_place" in part else np.nan,
    }  # fmt: skip


def _unadjusted(part: pd.DataFrame, arm: str, outcome: str, params: Params) -> dict[str, Any]:
    row = _row(part, arm, outcome, 0)
    found = mean_change(
        part[outcome].to_numpy(dtype=float), part["subject"].to_numpy(), params.resamples, params.level, params.seed
    )
    row |= {"change": found.value, "method": "mean; bootstrap of patients"}
    if row["n_patients"] < params.min_patients:
        return row | {"reason": f"{row['n_patients']} patients: at least {params.min_patients} for an interval"}
    return row | {"low": found.low, "high": found.high, "p": found.p}


def _adjusted(
    known: pd.DataFrame, arm: str, outcome: str, params: Params, propensities: dict[str, dict[str, list[float]]]
) -> dict[str, Any]:
    part = known[known["treatment"].isin([arm, OBSERVATION])]
    treated = (part["treatment"] == arm).to_numpy()
    row = _row(part[treated], arm, outcome, 1) | {"method": "doubly robust (AIPW) on baseline severity"}
    patients = [int(part.loc[which, "subject"].nunique()) for which in (treated, ~treated)]
    if min(patients) < params.min_adjusted:
        reason = f"{patients[0]} treated and {patients[1]} observed patients: at least {params.min_adjusted} of each"
        return row | {"reason": reason}
    y = part[outcome].to_numpy(dtype=float)
    x = part[[f"x_{name}" for name in params.covariates]].to_numpy(dtype=float)
    _, codes = np.unique(part["subject"].astype(str), return_inverse=True)

    def estimate(x_: Array, y_: Array) -> tuple[Array, Array]:
        one = weighted(y_, treated, x_, codes, params.propensity_limits)
        return one.values, one.errors**2

    found = weighted(y, treated, x, codes, params.propensity_limits)
    errors = part[[f"x_{name}_se" for name in params.covariates]].to_numpy(dtype=float)
    in_y = params.covariates.index(outcome) if outcome in params.covariates else None
    values, variances = simex(estimate, x, errors, y, in_y, params.redraws, params.seed)
    mean, versus = (
        t_interval(float(v), float(np.sqrt(e)), codes.max(), params.level)
        for v, e in zip(values, variances, strict=True)
    )
    carried = params.redraws > 1 and bool((np.nan_to_num(errors) > 0).any())
    row["method"] += "; error of measurement by SIMEX" if carried else "; no error of measurement stored"
    is_risk = outcome == "progression"
    propensities.setdefault(arm, {
        "treated": found.propensity[treated].tolist(), "observed": found.propensity[~treated].tolist()})  # fmt: skip
    difference = versus if np.isfinite(versus.value) else NOTHING
    return row | {
        "change": mean.value, "low": mean.low, "high": mean.high, "p": mean.p,
        "versus_uncorrected": float(found.values[1]) if carried else np.nan,
        "versus_observation": difference.value, "versus_low": difference.low, "versus_high": difference.high,
        "p_versus": difference.p,
        "e_value": e_value(difference.value, float(y.std()), mean.value, mean.value - difference.value, is_risk),
        "e_value_limit": _e_value_limit(difference, float(y.std()), mean.value - difference.value, is_risk),
    }  # fmt: skip


def _e_value_limit(difference: Interval, scale: float, untreated: float, is_risk: bool) -> float:
    """Of the end of the interval that is nearer to no difference; 1 where the interval holds none."""
    if not np.isfinite(difference.low) or difference.low <= 0 <= difference.high:
        return 1.0 if np.isfinite(difference.low) else np.nan
    near = difference.low if difference.low > 0 else difference.high
    return e_value(near, scale, untreated + near, untreated, is_risk)


def _landmark(early: pd.DataFrame, params: Params) -> list[dict[str, Any]]:
    """Progression from the landmark on: each arm, and adjusted against observation."""
    arms = [name for name in TREATMENTS if len(early) and (early["treatment"] == name).any()]
    rows = _corrected([_unadjusted(early[early["treatment"] == arm], arm, "progression", params) for arm in arms])
    rows += _corrected([_adjusted(early, arm, "progression", params, {}) for arm in arms if arm != OBSERVATION])
    return [row | {"method": f"{row['method']}; landmark {params.landmark_days:g} days"} for row in rows]


def _shown(row: dict[str, Any], params: Params) -> dict[str, Any]:
    """The row as it may leave the house: an arm of few patients keeps its name and nothing else."""
    if row["n_patients"] >= params.suppress_below:
        return row
    kept = {name: row[name] for name in ("treatment", "outcome", "unit", "adjusted", "method")}
    empty: dict[str, Any] = dict.fromkeys(COLUMNS, np.nan)
    return empty | kept | {"reason": f"fewer than {params.suppress_below} patients: not shown"}


def _few(counts: dict[str, int], below: int) -> dict[str, int | str]:
    return {reason: n if n >= below else f"<{below}" for reason, n in counts.items()}


def _beside(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The paper's table and ours, a row an outcome: change with its interval and what it rests on."""
    table = []
    for paper in PAPER:
        row: dict[str, Any] = {"treatment": paper["treatment"], "outcome": paper["outcome"]}
        row |= {"unit": UNITS[str(paper["outcome"])], "paper_patients": 30}
        row |= {f"paper_{name}": paper[name] for name in ("change", "low", "high")}
        for adjusted, name in ((0, "ours"), (1, "ours_adjusted")):
            keys = {"treatment": paper["treatment"], "outcome": paper["outcome"], "adjusted": adjusted}
            own = next((r for r in rows if all(r[k] == v for k, v in keys.items())), {})
            row |= {f"{name}_{k}": own.get(k) for k in ("change", "low", "high", "n_hips", "n_patients", "reason")}
        table.append(row)
    return pd.DataFrame(table)


def _corrected(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Holm over the treatments of one outcome; of the contrast where there is one."""
    p = [row["p_versus"] if row["adjusted"] else row["p"] for row in rows]
    return [
        row | {"p_holm": value} for row, value in zip(rows, holm([np.nan if v is None else v for v in p]), strict=True)
    ]


def _models(known: pd.DataFrame, outcome: str, params: Params) -> Any:
    """GEE and mixed model over the arms that may be shown, or why there is none."""
    patients = int(known["subject"].nunique()) if len(known) else 0
    if patients >= params.min_modelled:
        of_arm = known.groupby("treatment")["subject"].nunique()
        kept = of_arm.index[of_arm >= max(params.suppress_below, 1)]
        known = known[known["treatment"].isin(kept)]
        if OBSERVATION in set(kept) and len(kept) > 1:
            covariates = [f"x_{name}" for name in params.covariates]
            n = {str(arm): {"n_hips": len(own), "n_patients": int(own["subject"].nunique())}
                 for arm, own in known.groupby("treatment")}  # fmt: skip
            found = regressions(known, outcome, covariates, params.level, params.redraws, params.seed)
            return [row | n.get(str(row.get("treatment")), {}) for row in found]
    return {
        "reason": f"{patients} patients; mixed model and GEE need {params.min_modelled}, and observation and another "
        f"arm of at least {params.suppress_below}"
    }


def _modelled(models: dict[str, Any]) -> str:
    """The models as CSV, a row a method, outcome and arm."""
    columns = ["outcome", "unit", "method", "treatment", "versus_observation", "low", "high", "n_hips", "n_patients",
               "reason"]  # fmt: skip
    rows = [
        {"outcome": outcome, "unit": UNITS.get(outcome, "")} | row
        for outcome, found in models.items() for row in ([found] if isinstance(found, dict) else found)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns).to_csv(index=False, float_format="%.6g")


def _facts(
    table: pd.DataFrame, hips: pd.DataFrame, left_out: dict[str, int], models: dict[str, Any],
    propensities: dict[str, dict[str, list[float]]], params: Params,
) -> dict[str, Any]:  # fmt: skip
    rows = [{k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in row.items()}
            for row in table.astype(object).to_dict("records")]  # fmt: skip
    shared = {
        arm: {
            "treated": len(found["treated"]), "observed": len(found["observed"]),
            "treated_within_observed": float(np.mean([min(found["observed"]) <= p <= max(found["observed"])
                                                      for p in found["treated"]])),
        } for arm, found in propensities.items()
    }  # fmt: skip
    return {
        "rows": rows, "paper": PAPER, "overlap": shared, "models": models,
        "left_out": _few(left_out, params.suppress_below),
        "hips": {
            str(arm): len(own) if own["subject"].nunique() >= params.suppress_below else None
            for arm, own in hips.groupby("treatment")
        } if len(hips) else {},
        "reading": "Each figure is a change associated with a treatment in hips that were not randomized; the adjusted "
        "ones hold baseline severity alike and nothing else. " + RESEARCH_ONLY,
    }  # fmt: skip
