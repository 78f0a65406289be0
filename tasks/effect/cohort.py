"""Who was treated with what, when, and what was measured before and after: one row a hip."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from tasks.domain.disease import ARCO
from tasks.effect.params import Params

OBSERVATION = "observation"
Key = tuple[str, str]
Visit = Mapping[Any, Any]


@dataclass
class History:
    """What was noted of one hip, each list in order of days: treatments, readings by consensus, events."""

    treatments: list[tuple[float, str]] = field(default_factory=list)
    labels: list[tuple[float, str, str]] = field(default_factory=list)
    outcomes: list[tuple[float, str]] = field(default_factory=list)


def cohort(
    measures: pd.DataFrame, annotations: pd.DataFrame, hips: pd.DataFrame, params: Params
) -> tuple[pd.DataFrame, dict[str, int]]:
    """One row for each hip with a lesion: subject, side, treatment, start, follow_up_after, covariates `x_<name>` with
    their errors `x_<name>_se`, changes `<outcome>` with theirs, `<outcome>_se`, and `progression`. And counts of who
    was left out, and why."""
    histories = _histories(annotations)
    left_out: Counter[str] = Counter()
    rows = []
    for key, own in _visits(measures, hips).items():
        history = histories.get(key, History())
        if _no_lesion(history, own):
            left_out["no lesion"] += 1
            continue
        row = _hip(own, history, params)
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
    histories = _histories(annotations)
    left_out: Counter[str] = Counter()
    rows = []
    for key, own in _visits(measures, hips).items():
        history = histories.get(key, History())
        first = float(own[0]["days"])
        at = first + params.landmark_days
        begun = [one for one in history.treatments if one[1] != OBSERVATION and one[0] <= at]
        events = _events(history, first, params)
        if _no_lesion(history, own):
            left_out["no lesion"] += 1
        elif (events and events[0] <= at) or any(name == "arthroplasty" for _, name in begun):
            left_out["event before the landmark"] += 1
        else:
            start = begun[0][0] if begun else at
            before = [visit for visit in own if visit["days"] <= start]
            if not before:
                left_out["no visit before the treatment"] += 1
                continue
            row: dict[str, Any] = {"subject": key[0], "side": key[1]}
            row["treatment"] = begun[0][1] if begun else OBSERVATION
            row |= _covariates(before[-1], params)
            row["progression"] = _progression(_events(history, at, params), history, at, params)
            if np.isnan(row["progression"]):
                left_out["not followed long enough"] += 1
                continue
            rows.append(row)
    return pd.DataFrame(rows), dict(left_out)


def _visits(measures: pd.DataFrame, hips: pd.DataFrame) -> dict[Key, list[Visit]]:
    """Measurements of each hip's usable visits, in order of days."""
    usable = set(hips.loc[hips["status"] == "ok", "hip_visit"])
    kept = measures[measures["hip_visit"].isin(usable)].sort_values(["subject", "side", "days"], kind="stable")
    found: dict[Key, list[Visit]] = defaultdict(list)
    for visit in kept.to_dict("records"):
        found[str(visit["subject"]), str(visit["side"])].append(visit)
    return found


def _histories(annotations: pd.DataFrame) -> dict[Key, History]:
    found: dict[Key, History] = defaultdict(History)
    columns = ("subject", "side", "kind", "reader", "name", "value", "days")
    table = annotations.sort_values("days", kind="stable")
    for subject, side, kind, reader, name, value, days in zip(*(table[c] for c in columns), strict=True):
        own = found[str(subject), str(side)]
        if kind == "treatment":
            own.treatments.append((float(days), str(name)))
            if name == "arthroplasty":  # an outcome as well, as in tasks.assemble
                own.outcomes.append((float(days), "arthroplasty"))
        elif kind == "outcome":
            own.outcomes.append((float(days), str(name)))
        elif kind == "label" and reader == "consensus":
            own.labels.append((float(days), str(name), str(value)))
    return found


def _no_lesion(history: History, visits: list[Visit]) -> bool:
    read = [value == "1" or name == "arco" for _, name, value in history.labels if name in ("lesion", "arco")]
    return not any(read) if read else not any(_number(visit.get("lesion_fraction")) > 0 for visit in visits)


def _hip(visits: list[Visit], history: History, params: Params) -> dict[str, Any] | str:
    """A row, or why there is none."""
    active = [one for one in history.treatments if one[1] != OBSERVATION]
    start, treatment = active[0] if active else (float(visits[0]["days"]), OBSERVATION)
    end = active[1][0] if len(active) > 1 else np.inf
    if treatment == "arthroplasty":
        return "arthroplasty was the first treatment"
    replaced = [day for day, name in history.outcomes if name == "arthroplasty"]
    end = min([end, *replaced])
    before = [visit for visit in visits if start - params.baseline_days <= visit["days"] <= start]
    if not before:
        return "no visit at or shortly before the treatment"
    baseline = before[-1]
    row: dict[str, Any] = {"treatment": treatment, "start": start, "baseline_days": float(baseline["days"])}
    row |= _covariates(baseline, params)
    row["progression"] = _progression(_events(history, start, params), history, start, params)
    low, high = params.follow_up_window
    after = [visit for visit in visits if start + low <= visit["days"] <= start + high and visit["days"] < end]
    row["follow_up_after"] = np.nan
    for name in params.outcomes:
        row[name] = row[f"{name}_se"] = row[f"{name}_same_place"] = np.nan
        seen = [visit for visit in after if np.isfinite(_number(visit.get(name)))]
        if not seen or np.isnan(_number(baseline.get(name))):
            continue
        follow = min(seen, key=lambda visit: abs(visit["days"] - start - params.follow_up_days))
        row["follow_up_after"] = float(follow["days"]) - start
        row[name], row[f"{name}_same_place"] = _change(baseline, follow, name)
        row[f"{name}_se"] = _error(baseline, follow, name, row[f"{name}_same_place"] == 1)
    return row


def _change(baseline: Visit, follow: Visit, name: str) -> tuple[float, float]:
    """Follow-up less baseline, and 1 where both were measured at the same place, each against the hip's first visit
    within what both show; else 0, and whole pictures are compared."""
    placed = _number(follow.get(f"{name}_change")) - _number(baseline.get(f"{name}_change"))
    return (placed, 1.0) if np.isfinite(placed) else (float(follow[name]) - float(baseline[name]), 0.0)


def _error(baseline: Visit, follow: Visit, name: str, placed: bool) -> float:
    """Standard error of the change: of both measurements, and of both registrations where it rests on them."""
    parts = [_number(visit.get(f"{name}_se")) for visit in (baseline, follow)]
    if placed:
        parts += [np.nan_to_num(_number(visit.get(f"{name}_change_registration_se"))) for visit in (baseline, follow)]
    return float(np.sqrt(np.sum(np.square(parts))))


def _covariates(visit: Visit, params: Params) -> dict[str, float]:
    wanted = [name + end for name in params.covariates for end in ("", "_se")]
    return {f"x_{name}": _number(visit.get(name)) for name in wanted}


def _events(history: History, start: float, params: Params) -> list[float]:
    """Days of progression after `start`; a reading is an event when it was not yet so at the start."""
    days = [day for day, name in history.outcomes if name in ("collapse", "stage_up", "arthroplasty")]
    depths = [(day, float(value)) for day, name, value in history.labels if name == "collapse_mm" and _is_number(value)]
    days += [day for day, depth in depths if depth >= params.collapse_mm][:1]
    ranks = [(day, ARCO.index(value)) for day, name, value in history.labels if name == "arco" and value in ARCO]
    known = [rank for day, rank in ranks if day <= start]
    if known:
        days += [day for day, rank in ranks if day > start and rank > known[-1]][:1]
    return sorted(day for day in days if day > start)


def _progression(events: list[float], history: History, start: float, params: Params) -> float:
    """1, 0, or NaN when the hip was not followed long enough."""
    if events and events[0] - start <= params.progression_days:
        return 1.0
    read = [day for day, _, _ in history.labels] + [day for day, _ in history.outcomes]
    seen = [day for day in read if np.isfinite(day)]
    return 0.0 if seen and max(seen) - start >= params.progression_days else np.nan


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)
