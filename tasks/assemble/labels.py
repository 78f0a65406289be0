"""What happened to a hip: readings, events and follow-up, and from them a label for each visit."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from tasks.assemble.params import Eligibility, Params
from tasks.domain.disease import ARCO, FICAT, STEINBERG

STAGES = {"arco": ARCO, "steinberg": STEINBERG, "ficat": FICAT}

Reading = tuple[float, float]
"""(days, value)"""


@dataclass
class Course:
    """One hip's readings and events, each list in order of days. Lesion is 1.0 or 0.0; a stage is its rank."""

    collapse: list[Reading] = field(default_factory=list)
    stages: dict[str, list[Reading]] = field(default_factory=dict)
    lesion: list[Reading] = field(default_factory=list)
    outcomes: list[tuple[float, str]] = field(default_factory=list)
    treatments: list[tuple[float, str]] = field(default_factory=list)
    aetiology: list[tuple[float, str]] = field(default_factory=list)
    followed: list[float] = field(default_factory=list)
    """Days on which someone looked: a stage or collapse was read, or an outcome was recorded."""


@dataclass(frozen=True)
class Label:
    """value: 1 progression, 0 followed over the horizon without, NaN unknown. not_at_risk: why, or ''."""

    value: float
    event: str | None
    event_in_days: float
    followed_days: float
    not_at_risk: str


def courses(annotations: pd.DataFrame) -> dict[tuple[str, str], Course]:
    """(subject, side) -> Course, from consensus readings, outcomes and treatments."""
    found: dict[tuple[str, str], Course] = {}
    wanted = annotations[
        annotations["kind"].isin(["outcome", "treatment"])
        | ((annotations["kind"] == "label") & (annotations["reader"] == "consensus"))
    ].sort_values("days", kind="stable")
    for row in wanted.itertuples(index=False):
        course = found.setdefault((str(row.subject), str(row.side)), Course())
        days = float(row.days)  # type: ignore[arg-type]
        if np.isnan(days) or (row.value is None and row.kind == "label"):
            continue
        if row.kind == "outcome":
            course.outcomes.append((days, str(row.name)))
            course.followed.append(days)
        elif row.kind == "treatment":
            course.treatments.append((days, str(row.name)))
            if row.name == "arthroplasty":
                course.outcomes.append((days, "arthroplasty"))
        else:
            _read(course, days, str(row.name), str(row.value))
    for course in found.values():
        course.outcomes.sort()
    return found


def _read(course: Course, days: float, name: str, value: str) -> None:
    if name in STAGES and value in STAGES[name]:
        rank = float(STAGES[name].index(value))
        course.stages.setdefault(name, []).append((days, rank))
        course.followed.append(days)
        if name == "arco":
            course.lesion.append((days, 1.0))  # every ARCO stage has a lesion
    elif name == "collapse_mm":
        course.collapse.append((days, float(value)))
        course.followed.append(days)
    elif name == "aetiology":
        course.aetiology.append((days, value))
    elif name == "lesion":
        course.lesion.append((days, float(value)))
        course.followed.append(days)


def _upto(readings: list[Reading], days: float) -> list[Reading]:
    return [reading for reading in readings if reading[0] <= days]


def not_at_risk(course: Course, days: float, measured: float, params: Params) -> str:
    """Why a hip is not at risk on a day, known on that day; '' when it is. `measured`: lesion fraction so far."""
    past = [name for day, name in course.outcomes if day <= days]
    if "arthroplasty" in past:
        return "arthroplasty before this visit"
    collapse = _upto(course.collapse, days)
    incident = bool(collapse) and collapse[0][1] < params.collapse_mm <= max(value for _, value in collapse)
    if "collapse" in params.ends_risk and (incident or "collapse" in past):
        return "collapse before this visit"
    rises = any(
        max(r for _, r in known) > known[0][1] for s in course.stages.values() if (known := _upto(s, days))
    )  # fmt: skip
    if "stage_up" in params.ends_risk and (rises or "stage_up" in past):
        return "stage progression before this visit"
    if params.at_risk == "lesion":
        read = _upto(course.lesion, days)
        if read and not any(value for _, value in read):
            return "no lesion read at or before this visit"
        if not read and measured < params.min_lesion_fraction:
            return "no lesion measured at or before this visit"
    return ""


def ineligible(course: Course, days: float, age_years: float, rule: Eligibility) -> str:
    """Why the estimate is not meant for this hip on this day, known on that day; '' when it is."""
    if np.isnan(age_years):
        if rule.unknown_age == "exclude":
            return "age not known"
    elif age_years < rule.min_age_years:
        return f"younger than {rule.min_age_years:g} years"
    elif rule.max_age_years is not None and age_years > rule.max_age_years:
        return f"older than {rule.max_age_years:g} years"
    if rule.aetiologies:
        said = [value for day, value in course.aetiology if day <= days]
        if not said and rule.unknown_aetiology == "exclude":
            return "aetiology not known"
        if said and said[-1] not in {name.upper() for name in rule.aetiologies}:
            return f"aetiology {said[-1].lower()}"
    return ""


def label(course: Course, days: float, measured: float, params: Params) -> Label:
    """The landmark label of a visit: the first event after it, and whether it lies within the horizon."""
    events = [(day, name) for day, name in course.outcomes if day > days and name in ("collapse", "stage_up")]
    for readings in course.stages.values():
        known, later = _upto(readings, days), [r for r in readings if r[0] > days]
        if known:
            events += [(day, "stage_up") for day, rank in later if rank > known[-1][1]][:1]
    known, later = _upto(course.collapse, days), [r for r in course.collapse if r[0] > days]
    now = known[-1][1] if known else np.nan
    limit = now + params.collapse_mm if now >= params.collapse_mm else params.collapse_mm
    if known:
        events += [(day, "collapse") for day, depth in later if depth >= limit][:1]
    replaced = [day for day, name in course.outcomes if name == "arthroplasty" and day > days]
    end = max([day for day in course.followed if day > days], default=days)
    if replaced:
        if params.arthroplasty == "event":
            events.append((replaced[0], "arthroplasty"))
        else:  # nothing that is dated later can be this head's
            events = [event for event in events if event[0] <= replaced[0]]
            end = np.inf if params.arthroplasty == "competing" else replaced[0]
    first = min(events, default=None)
    reason = not_at_risk(course, days, measured, params)
    if first is not None:
        end = max(end, first[0]) if np.isfinite(end) else end
    in_time = first is not None and first[0] - days <= params.horizon_days
    value = 1.0 if in_time else 0.0 if end - days >= params.horizon_days else np.nan
    followed = first[0] - days if first is not None else end - days
    return Label(
        value=np.nan if reason else value,
        event=None if first is None else first[1],
        event_in_days=np.nan if first is None else first[0] - days,
        followed_days=float(followed) if np.isfinite(followed) else float(params.horizon_days),
        not_at_risk=reason,
    )
