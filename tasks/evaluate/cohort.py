"""Who the numbers rest on: patients, hips, visits, labels, time, treatments, stages, for test and training patients."""

from __future__ import annotations

from typing import Any

import pandas as pd

from tasks.evaluate.rows import populations

Row = dict[str, Any]
POPULATIONS = ["all", "out_of_fold", "test", "external"]
"""Columns of counts of `cohort`."""


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


Cell = tuple[int, str]
"""Place in a table: row and column."""


def protect(table: list[Row], columns: list[str], below: int, sums: list[list[Cell]]) -> list[Row]:
    """`suppress`, and so many larger counts ('>=below') that no small one follows from a total. Each of `sums` is a
    total and then its parts: of those cells none may be hidden alone, nor parts that are together fewer than `below`.
    """
    value = {(i, c): row[c] for i, row in enumerate(table) for c in columns if isinstance(row.get(c), int)}
    hidden = {cell for cell, count in value.items() if 0 < count < below}
    changed = True
    while changed:
        changed = False
        for equation in sums:
            cells = [cell for cell in equation if cell in value]
            away = [cell for cell in cells if cell in hidden]
            few = len(away) == 1 or sum(value[cell] for cell in away if cell != equation[0]) < below
            shown = [cell for cell in cells if cell not in hidden and value[cell] > 0]
            parts = [cell for cell in shown if cell != equation[0]]
            if away and few and shown:
                hidden.add(min(parts or shown, key=lambda cell: value[cell]))
                changed = True
    secondary = {cell for cell in hidden if value[cell] >= below}
    return [
        row | {c: f">={below}" if (i, c) in secondary else row[c] for c in columns if c in row}
        for i, row in enumerate(suppress(table, columns, below))
    ]


def cohort_sums(table: list[Row], columns: list[str]) -> list[list[Cell]]:
    """What adds up in `cohort`: populations to all, levels of an item to all patients, hips or hip-visits."""
    total = {row["unit"]: i for i, row in enumerate(table) if row["item"] in ("patients", "hips", "hip-visits")}
    found = [[(i, "all"), *((i, c) for c in columns if c != "all")] for i in range(len(table))]
    for item in dict.fromkeys(row["item"] for i, row in enumerate(table) if i not in total.values()):
        places = [i for i, row in enumerate(table) if row["item"] == item]
        found += [[(total.get(table[places[0]]["unit"], -1), c), *((i, c) for i in places)] for c in columns]
    return found


def hide(table: list[Row], columns: list[str], below: int, by: str) -> list[Row]:
    """Rows of groups that make up a whole within each level of `by`: `protect`, and no estimate either where it rests
    on fewer than `below` patients or has lost its n: it would tell who they are."""
    kept = {*columns, "small", "vendor", "subgroup", "level", "unit"}
    sums = [
        [(-1, c), *((i, c) for i, row in enumerate(table) if row.get(by) == group)]
        for group in dict.fromkeys(row.get(by) for row in table) for c in columns
    ]  # fmt: skip
    counted = protect(table, columns, below, sums)
    bare = [row["n_patients"] < below or isinstance(shown["n_patients"], str) or isinstance(shown["n"], str)
            for row, shown in zip(table, counted, strict=True)]  # fmt: skip
    return [{k: v if k in kept or not empty else None for k, v in row.items()}
            for row, empty in zip(counted, bare, strict=True)]  # fmt: skip


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
