"""The stage: visits that are new or changed through `process`, then the two tables."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks.domain.tables import COLUMNS
from tasks.standardize import align
from tasks.standardize.params import Params
from tasks.standardize.visit import process
from tasks.store import items, tables
from tasks.store.digests import code_digest, combine, sha256_file
from tasks.store.items import Item, Mapper

STUDIES, STUDIES_TABLE = Path("data/studies"), Path("data/studies.parquet")
HIPS, HIPS_TABLE, SERIES_TABLE = Path("data/hips"), Path("data/hips.parquet"), Path("data/series.parquet")

log = logging.getLogger("osteoflow.standardize")


def run(params: Params, mapper: Mapper) -> None:
    todo, before = pending(params), previous()
    rows = items.run("standardize", todo, process, params, previous=before, out=HIPS, mapper=mapper)
    HIPS.mkdir(parents=True, exist_ok=True)
    items.sweep(HIPS, rows)
    if params.align.enabled:
        align_visits(rows, params, mapper)
    finish(rows, params)


def align_visits(rows: list[dict[str, Any]], params: Params, mapper: Mapper) -> None:
    """Lay each hip's visits onto its first one: columns of their rows. A pair whose images, params and code are those
    of the last run is not done again."""
    usable = [row for row in rows if row["table"] == "hips" and row["status"] == "ok"]
    usable.sort(key=lambda row: (row["subject"], row["side"], day(row["date"]), row["hip_visit"]))
    first: dict[tuple[str, str], dict[str, Any]] = {}
    todo = []
    for row in usable:
        earliest = first.setdefault((row["subject"], row["side"]), row)
        mark = combine(row["digest"], earliest["digest"], params.align.digest(), code_digest("standardize"))
        if row.get("align_digest") == mark:
            continue
        for column in [name for name in row if name.startswith("align_")]:
            del row[column]
        row["align_digest"] = mark
        if earliest is row:
            itself = {"align_status": "first", "to_first": np.eye(4).ravel().tolist(), "align_residual_mm": 0.0}
            row |= {"first_visit": row["hip_visit"], **itself}
        else:
            todo.append((row, (str(HIPS / row["owns"]), str(HIPS / earliest["owns"]), earliest["hip_visit"])))
    for (row, _), found in zip(todo, mapper(align.row_of, [(*work, params.align) for _, work in todo]), strict=True):
        row |= found


def pending(params: Params) -> list[Item]:
    """One item a visit, in the order of subject and date."""
    studies = tables.read("studies", STUDIES_TABLE)
    studies = studies[studies["status"].isin(["released", "frozen"])]
    found = []
    for _, group in studies.groupby("subject", sort=True):
        for visit in visits(group.to_dict("records"), params):
            found.append(visit_item(visit))
    return found


def visits(studies: Sequence[Mapping[Any, Any]], params: Params) -> list[list[Mapping[Any, Any]]]:
    """One subject's studies, grouped by the date of the first of each group."""
    ordered = sorted(studies, key=lambda s: (day(s["date"]), str(s["study"])))
    groups: list[list[Mapping[Any, Any]]] = []
    for study in ordered:
        if groups and day(study["date"]) - day(groups[-1][0]["date"]) <= params.visit_window_days:
            groups[-1].append(study)
        else:
            groups.append([study])
    return groups


def visit_item(studies: Sequence[Mapping[Any, Any]], root: Path = STUDIES) -> Item:
    """The item of one visit from its rows of studies.parquet, first study first.

    Archives are found as given, or below `root` (data/studies, or where the arrival loop keeps what it made), so that
    an item made on arrival is adopted by the stage: key and digest do not depend on where the archives lie.
    """
    first = studies[0]
    paths = [located(str(study["archive"]), root) for study in studies]
    digests = [str(study.get("digest") or "") or sha256_file(path) for study, path in zip(studies, paths, strict=True)]
    return Item(
        key=str(first["study"]),
        digest=combine(*digests),
        payload={
            "study": str(first["study"]),
            "subject": str(first["subject"]),
            "archives": [path.as_posix() for path in paths],
        },
        folder=str(first.get("batch") or ""),
        columns={"date": str(first["date"]), "origin": str(first.get("origin") or "")},
    )


def located(archive: str, root: Path) -> Path:
    given = Path(archive)
    for path in (given, root / given, root / given.name):
        if path.exists():
            return path
    return root / given


def day(date: object) -> float:
    """Days since 1970 of '20240131' or '2024-01-31'; no date: 0, so that a study without one starts a visit."""
    text = str(date or "").replace("-", "")[:8]
    stamp = pd.to_datetime(text, format="%Y%m%d", errors="coerce")
    return 0.0 if pd.isna(stamp) else float(stamp.timestamp() // 86400)


def previous() -> pd.DataFrame:
    """The manifest of the last run: both tables, as `items.run` compares them."""
    frames = [
        tables.read(name, path).assign(table=name)
        for name, path in (("hips", HIPS_TABLE), ("series", SERIES_TABLE))
        if path.exists()
    ]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def finish(rows: list[dict[str, Any]], params: Params) -> None:
    """Split the rows by `table`, count days from each subject's first visit, write both tables."""
    hips, series = part(rows, "hips"), part(rows, "series")
    dates = hips["date"].map(day)
    hips["days"] = dates - dates.groupby(hips["subject"]).transform("min")
    hips["file"] = hips["owns"]
    tables.write("hips", HIPS_TABLE, hips, sort_by=["hip_visit"])
    tables.write("series", SERIES_TABLE, series, sort_by=["item", "study", "series", "role", "reason"])
    for table, frame in (("hips", hips), ("series", series)):
        counts = ", ".join(f"{count} {status}" for status, count in frame["status"].value_counts().items())
        log.info("%s: %s", table, counts or "none")


def part(rows: list[dict[str, Any]], table: str) -> pd.DataFrame:
    """The rows of one table without the columns that only the other one fills (a previous run's rows have both)."""
    frame = pd.DataFrame([row for row in rows if row["table"] == table])
    known = set(COLUMNS[table]) | {"item", "input_digest", "params_digest", "code_digest", "owns", "date"}
    for column in known - set(frame.columns):
        frame[column] = pd.Series(None, index=frame.index, dtype=object)
    empty = [column for column in frame if column not in known and frame[column].isna().all()]
    return frame.drop(columns=[*empty, *({"table"} & set(frame.columns))])
