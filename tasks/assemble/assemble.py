"""Rows of sequences: the vector of a visit, what had been done to the hip by then, and its label."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks.assemble.labels import Course, courses, ineligible, label
from tasks.assemble.params import Params
from tasks.domain.disease import TREATMENTS
from tasks.domain.hip import ROLES, hip
from tasks.store import tables
from tasks.store.files import write_json
from tasks.store.items import Mapper

DATA = Path("data")
SEQUENCES, NAMES = DATA / "sequences.parquet", DATA / "sequences.json"
YEAR = 365.25

log = logging.getLogger("osteoflow.assemble")


def run(params: Params, mapper: Mapper) -> None:
    read = {name: tables.read(name, DATA / f"{name}.parquet")
            for name in ("hips", "features", "measures", "annotations", "split")}  # fmt: skip
    frame = rows_for(**read, params=params)
    tables.write("sequences", SEQUENCES, frame, sort_by=["subject", "side", "days", "hip_visit"])
    write_json(
        NAMES, {"features": feature_names(read["features"], params), "horizon_days": params.horizon_days}
    )  # fmt: skip
    known = frame["label"].dropna()
    log.info(
        "%d hip-visits of %d hips: %d labels known, %d with progression within %g days",
        len(frame), frame["hip"].nunique(), len(known), int(known.sum()), params.horizon_days,
    )  # fmt: skip


def feature_names(features: pd.DataFrame, params: Params) -> list[str]:
    """Names of the vector `features`, in order: what the encoder sees, what is measured, times, treatment, flags."""
    measured = [name + end for name in params.measures for end in (("", "_se") if params.errors else ("",))]
    return [
        *(f"encoder_{i:03d}" for i in range(_width(features))),
        *measured,
        "years_since_first_visit", "years_since_last_visit", "years_since_treatment",
        *(f"treatment_{name}" for name in TREATMENTS),
        *(f"missing_{role}" for role in ROLES), "missing_encoder", "missing_masks", "missing_vessels",
    ]  # fmt: skip


def _width(features: pd.DataFrame) -> int:
    return max((len(v) for v in features["features"] if v is not None), default=0)


def rows_for(
    hips: pd.DataFrame, features: pd.DataFrame, measures: pd.DataFrame, annotations: pd.DataFrame,
    split: pd.DataFrame, params: Params,
) -> pd.DataFrame:  # fmt: skip
    """Sequences of the usable hip-visits in `hips`: the whole data set, or one hip with its history when scoring.

    A subject that is not in `split` gets no fold. A row depends on nothing dated after its visit except in its label
    columns, so any later rows of the tables may be there or not.
    """
    usable = hips[hips["status"] == "ok"].sort_values(["subject", "side", "days", "hip_visit"], kind="stable")
    vectors = dict(zip(features["hip_visit"], features["features"], strict=True))
    measured = {row["hip_visit"]: row for row in measures.to_dict("records")}
    folds = dict(zip(split["subject"], split["fold"], strict=True))
    known = courses(annotations)
    width = _width(features)
    rows: list[dict[str, Any]] = []
    for (subject, side), visits in usable.groupby(["subject", "side"], sort=False):
        course = known.get((str(subject), str(side)), Course())
        first = before = None
        lesion = born = np.nan
        for visit in visits.to_dict("records"):
            days = float(visit["days"])
            first = days if first is None else first
            sizes: Mapping[Any, Any] = measured.get(visit["hip_visit"], {})
            lesion = float(np.fmax(lesion, _number(sizes.get("lesion_fraction"))))
            age = _number(visit.get("age_years"))
            born = born if np.isnan(age) else days - age * YEAR
            age = (days - born) / YEAR  # of an earlier visit where this one does not say it
            done = [(day, name) for day, name in course.treatments if day <= days]
            row = {
                "hip": hip(str(subject), str(side)),  # type: ignore[arg-type]
                "hip_visit": visit["hip_visit"], "subject": subject, "side": side,
                "days": days, "delta_days": 0.0 if before is None else days - before,
                "treatment": done[-1][1] if done else None,
                "days_since_treatment": days - done[-1][0] if done else np.nan,
                "horizon_days": params.horizon_days, "fold": folds.get(subject), "roles": visit.get("roles"),
                "origin": visit.get("origin"), "sex": visit.get("sex"), "age_years": age, "vendor": visit.get("vendor"),
            }  # fmt: skip
            found = label(course, days, lesion, params)
            row |= {
                "ineligible": ineligible(course, days, age, params.eligibility),
                "label": found.value, "event": found.event, "event_in_days": found.event_in_days,
                "followed_days": found.followed_days, "not_at_risk": found.not_at_risk,
            }  # fmt: skip
            if row["ineligible"]:
                row["label"] = np.nan
            row["features"] = _vector(row, days - first, vectors.get(visit["hip_visit"]), width, sizes, params)
            rows.append(row)
            before = days
    return pd.DataFrame(rows) if rows else tables.empty("sequences")


def _vector(
    row: dict[str, Any], since_first: float, encoded: Any, width: int, sizes: Mapping[Any, Any], params: Params
) -> list[float]:
    """The vector of one visit in the order of `feature_names`; what was not measured is NaN, and flagged."""
    vector = [np.nan] * width if encoded is None else [_number(v) for v in encoded]
    vector += [np.nan] * (width - len(vector))
    for name in params.measures:
        vector.append(_number(sizes.get(name)))
        if params.errors:
            vector.append(_number(sizes.get(f"{name}_se")))
    treated = row["treatment"] not in (None, "observation")
    vector += [since_first / YEAR, row["delta_days"] / YEAR, row["days_since_treatment"] / YEAR if treated else 0.0]
    vector += [float(row["treatment"] == name) for name in TREATMENTS]
    roles = str(row["roles"] or "").split("+")
    vector += [float(role not in roles) for role in ROLES]
    vector += [
        float(encoded is None),
        float(np.isnan(_number(sizes.get("lesion_fraction")))),
        float(np.isnan(_number(sizes.get("vessel_length_mm")))),
    ]  # fmt: skip
    return vector


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)
