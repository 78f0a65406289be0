"""Who the numbers rest on: patients, hips, visits, labels, time, treatments, stages, for test and training patients."""

from __future__ import annotations

from typing import Any

import pandas as pd

from tasks.evaluate.rows import populations

Row = dict[str, Any]


def cohort(frame: pd.DataFrame) -> list[Row]:
    """Rows {item, level, unit, all, test, out_of_fold[, external]}: counts, or a median with its quartiles as text."""
    groups = {"all": frame[frame["fold"].notna()], **populations(frame)}
    table: list[Row] = []

    def add(item: str, level: str, unit: str, of: Any) -> None:
        table.append({"item": item, "level": level, "unit": unit} | {name: of(one) for name, one in groups.items()})

    add("patients", "", "patient", lambda f: int(f["subject"].nunique()))
    add("hips", "", "hip", lambda f: int(f["hip"].nunique()))
    add("hip-visits", "", "hip-visit", len)
    add("progression within the horizon", "yes", "hip-visit", lambda f: int((f["label"] == 1).sum()))
    add("progression within the horizon", "no", "hip-visit", lambda f: int((f["label"] == 0).sum()))
    add(
        "progression within the horizon", "censored or not at risk", "hip-visit", lambda f: int(f["label"].isna().sum())
    )
    add("visits", "median [quartiles]", "per hip", lambda f: _quartiles(f.groupby("hip").size()))
    add("time since first visit at last visit", "median [quartiles]", "days", _follow_up)
    for item, column, unit in (
        ("treatment", "treatment", "hip"),
        ("vendor", "vendor", "hip-visit"),
        ("sex", "sex", "patient"),
        ("age at visit, years", "age_band", "patient"),
        ("ARCO stage", "arco", "hip-visit"),
        ("origin", "origin", "hip-visit"),
    ):
        if column not in frame or not frame[column].notna().any():
            continue
        for level in sorted(frame[column].fillna("unknown").astype(str).unique()):
            last = column == "treatment"  # a hip is under observation before it is treated: it counts once
            add(item, level, unit, lambda f, c=column, v=level, u=unit, o=last: _count(_last(f) if o else f, c, v, u))
    return table


def _last(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.sort_values("days", kind="stable").drop_duplicates("hip", keep="last")


def suppress(table: list[Row], columns: list[str], below: int) -> list[Row]:
    """Counts of 1 to below `below` in `columns` become '<below', so that no small cell leaves the house."""

    def one(value: Any) -> Any:
        small = isinstance(value, int) and not isinstance(value, bool) and 0 < value < below
        return f"<{below}" if small else value

    return [row | {column: one(row[column]) for column in columns if column in row} for row in table]


def hide(table: list[Row], columns: list[str], below: int) -> list[Row]:
    """`suppress`, and no estimate either where it rests on fewer than `below` patients: it would tell who they are."""
    kept = {*columns, "small", "vendor", "subgroup", "level", "unit"}
    return suppress(
        [row if row["n_patients"] >= below else {k: v if k in kept else None for k, v in row.items()} for row in table],
        columns,
        below,
    )


def _count(frame: pd.DataFrame, column: str, level: str, unit: str) -> int:
    rows = frame[frame[column].fillna("unknown").astype(str) == level]
    key = {"hip": "hip", "patient": "subject", "hip-visit": "hip_visit"}[unit]
    return int(rows[key].nunique())


def _quartiles(values: pd.Series) -> str:
    if not len(values):
        return ""
    low, middle, high = values.quantile([0.25, 0.5, 0.75])
    digits = 0 if middle >= 20 else 1
    return f"{round(middle, digits):g} [{round(low, digits):g}, {round(high, digits):g}]"


def _follow_up(frame: pd.DataFrame) -> str:
    grouped = frame.groupby("hip")["days"]
    return _quartiles(grouped.max() - grouped.min())
