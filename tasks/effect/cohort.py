"""Who was treated with what, when, and what was measured before and after: one row a hip."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd

from tasks.domain.disease import ARCO
from tasks.effect.params import Params

OBSERVATION = "observation"


def cohort(
    measures: pd.DataFrame, annotations: pd.DataFrame, hips: pd.DataFrame, params: Params
) -> tuple[pd.DataFrame, dict[str, int]]:
    """One row for each hip with a lesion: subject, side, treatment, start, follow_up_after, covariates `x_<name>`,
    changes `<outcome>`, their errors `<outcome>_se`, and `progression`. And counts of who was left out, and why."""
    usable = set(hips.loc[hips["status"] == "ok", "hip_visit"])
    visits = measures[measures["hip_visit"].isin(usable)].sort_values("days", kind="stable")
    treated = dict(list(annotations[annotations["kind"] == "treatment"].groupby(["subject", "side"])))
    readings = annotations[(annotations["kind"] == "label") & (annotations["reader"] == "consensus")]
    read = dict(list(readings.groupby(["subject", "side"])))
    happened = dict(list(annotations[annotations["kind"] == "outcome"].groupby(["subject", "side"])))
    none = annotations.iloc[:0]
    left_out: Counter[str] = Counter()
    rows = []
    for key, own in visits.groupby(["subject", "side"]):
        labels = read.get(key, none)
        if _no_lesion(labels, own):
            left_out["no lesion"] += 1
            continue
        row = _hip(own, treated.get(key, none), labels, happened.get(key, none), params)
        if isinstance(row, str):
            left_out[row] += 1
            continue
        rows.append({"subject": key[0], "side": key[1]} | row)
    return pd.DataFrame(rows), dict(left_out)


def landmark(
    measures: pd.DataFrame, annotations: pd.DataFrame, hips: pd.DataFrame, params: Params
) -> tuple[pd.DataFrame, dict[str, int]]:
    """One row for each hip that is there and free of events `landmark_days` after its first visit: its arm is what had
    begun by then (what comes later changes nothing), its progression is counted from then on. So nobody has to stay
    free of events in order to be called treated. Baseline is the last visit before treatment and landmark."""
    usable = set(hips.loc[hips["status"] == "ok", "hip_visit"])
    visits = measures[measures["hip_visit"].isin(usable)].sort_values("days", kind="stable")
    kinds = {kind: dict(list(annotations[annotations["kind"] == kind].groupby(["subject", "side"])))
             for kind in ("treatment", "label", "outcome")}  # fmt: skip
    none = annotations.iloc[:0]
    left_out: Counter[str] = Counter()
    rows = []
    for key, own in visits.groupby(["subject", "side"]):
        labels, outcomes = kinds["label"].get(key, none), kinds["outcome"].get(key, none)
        labels = labels[labels["reader"] == "consensus"]
        first = float(own["days"].iloc[0])
        at = first + params.landmark_days
        begun = kinds["treatment"].get(key, none).sort_values("days", kind="stable")
        begun = begun[(begun["name"] != OBSERVATION) & (begun["days"] <= at)]
        events = _events(labels, outcomes, first, params)
        if _no_lesion(labels, own):
            left_out["no lesion"] += 1
        elif (events and events[0] <= at) or (begun["name"] == "arthroplasty").any():
            left_out["event before the landmark"] += 1
        else:
            start = float(begun["days"].iloc[0]) if len(begun) else at
            before = own[own["days"] <= start]
            if before.empty:
                left_out["no visit before the treatment"] += 1
                continue
            row: dict[str, Any] = {"subject": key[0], "side": key[1]}
            row["treatment"] = str(begun["name"].iloc[0]) if len(begun) else OBSERVATION
            row |= {f"x_{name}": _number(before.iloc[-1].get(name)) for name in params.covariates}
            row["progression"] = _progression(_events(labels, outcomes, at, params), labels, outcomes, at, params)
            rows.append(row)
    frame = pd.DataFrame(rows)
    return frame[frame["progression"].notna()] if len(frame) else frame, dict(left_out)


def _no_lesion(labels: pd.DataFrame, visits: pd.DataFrame) -> bool:
    lesion = labels.loc[labels["name"] == "lesion", "value"]
    if len(lesion) or (labels["name"] == "arco").any():
        return not ((lesion == "1").any() or (labels["name"] == "arco").any())
    return not (visits["lesion_fraction"].fillna(0) > 0).any()


def _hip(
    visits: pd.DataFrame, treatments: pd.DataFrame, labels: pd.DataFrame, outcomes: pd.DataFrame, params: Params
) -> dict[str, Any] | str:
    """A row, or why there is none."""
    active = treatments[treatments["name"] != OBSERVATION].sort_values("days", kind="stable")
    if len(active):
        treatment, start = str(active["name"].iloc[0]), float(active["days"].iloc[0])
        later = active["days"].iloc[1:]
        end = float(later.min()) if len(later) else np.inf
        if treatment == "arthroplasty":
            return "arthroplasty was the first treatment"
    else:
        treatment, start, end = OBSERVATION, float(visits["days"].iloc[0]), np.inf
    events = _events(labels, outcomes, start, params)
    replaced = outcomes.loc[outcomes["name"] == "arthroplasty", "days"]
    replaced_on = float(pd.concat([replaced, treatments.loc[treatments["name"] == "arthroplasty", "days"]]).min())
    if np.isfinite(replaced_on):
        end = min(end, replaced_on)
    before = visits[(visits["days"] <= start) & (visits["days"] >= start - params.baseline_days)]
    if before.empty:
        return "no visit at or shortly before the treatment"
    baseline = before.iloc[-1]
    row: dict[str, Any] = {"treatment": treatment, "start": start, "baseline_days": float(baseline["days"])}
    row |= {f"x_{name}": _number(baseline.get(name)) for name in params.covariates}
    row["progression"] = _progression(events, labels, outcomes, start, params)
    low, high = params.follow_up_window
    after = visits[(visits["days"] >= start + low) & (visits["days"] <= start + high) & (visits["days"] < end)]
    row["follow_up_after"] = np.nan
    for name in params.outcomes:
        row[name] = row[f"{name}_se"] = np.nan
        seen = after[after[name].notna()] if name in after else after.iloc[:0]
        if seen.empty or np.isnan(_number(baseline.get(name))):
            continue
        follow = seen.iloc[int((seen["days"] - start - params.follow_up_days).abs().to_numpy().argmin())]
        row["follow_up_after"] = float(follow["days"]) - start
        row[name] = float(follow[name]) - float(baseline[name])
        row[f"{name}_se"] = float(np.hypot(_number(baseline.get(f"{name}_se")), _number(follow.get(f"{name}_se"))))
    return row


def _events(labels: pd.DataFrame, outcomes: pd.DataFrame, start: float, params: Params) -> list[float]:
    """Days of progression after `start`; a reading is an event when it was not yet so at the start."""
    days = list(outcomes.loc[outcomes["name"].isin(["collapse", "stage_up", "arthroplasty"]), "days"])
    depth = labels[labels["name"] == "collapse_mm"].sort_values("days")
    depth = depth.assign(number=pd.to_numeric(depth["value"], errors="coerce"))
    days += list(depth.loc[depth["number"] >= params.collapse_mm, "days"].iloc[:1])
    stage = labels[(labels["name"] == "arco") & labels["value"].isin(ARCO)].sort_values("days")
    rank = stage["value"].map(ARCO.index)
    known = rank[stage["days"] <= start]
    if len(known):
        days += list(stage.loc[(stage["days"] > start) & (rank > known.iloc[-1]), "days"].iloc[:1])
    return sorted(float(day) for day in days if day > start)


def _progression(
    events: list[float], labels: pd.DataFrame, outcomes: pd.DataFrame, start: float, params: Params
) -> float:
    """1, 0, or NaN when the hip was not followed long enough."""
    if events and events[0] - start <= params.progression_days:
        return 1.0
    seen = pd.concat([labels["days"], outcomes["days"]]).max()
    return 0.0 if np.isfinite(seen) and seen - start >= params.progression_days else np.nan


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)
