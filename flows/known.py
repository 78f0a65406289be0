"""What is known of the de-identified zone right now: the dataset's tables and what the arrival loop made since.

The dataset loop alone writes data/; a study that arrived after the last run is under OSTEOFLOW_HOME/arrived/. Scoring
needs both: a hip's history is in the one, its new visit in the other.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pandas as pd

from tasks.domain.settings import Settings
from tasks.store import tables
from tasks.store.files import read_json

STUDIES, HIPS = Path("data/studies"), Path("data/hips")


def studies(of: Collection[str] | None = None) -> pd.DataFrame:
    """Rows of studies.parquet and of what arrived since, the newest released version of each study; `archive` is where
    the archive lies now. With `of`: only those of the subjects that these studies are of."""
    frame = _all("studies", Path("data/studies.parquet"), STUDIES, "archive", "archive", _arrived("anonymize"), of)
    frame = frame[frame["status"].isin(["released", "frozen"])]
    newest = frame.sort_values("version", kind="stable").drop_duplicates("study", keep="last")
    return newest.reset_index(drop=True)


def hips(of: Collection[str] | None = None) -> pd.DataFrame:
    """Rows of hips.parquet and of what arrived since; `path` is where the hip file lies now. `days` count from the
    subject's first visit among all of them. With `of`: only those of the subjects that these studies are of."""
    arrived = [(row, folder) for row, folder in _arrived("standardize") if row.get("table") == "hips"]
    frame = _all("hips", Path("data/hips.parquet"), HIPS, "file", "path", arrived, of)
    frame = frame.drop_duplicates("hip_visit", keep="last").reset_index(drop=True)
    dates = pd.to_datetime(frame["date"].astype(str).str.replace("-", ""), format="%Y%m%d", errors="coerce")
    frame["days"] = (dates - dates.groupby(frame["subject"]).transform("min")).dt.days.fillna(0.0).astype(float)
    return frame


def table(name: str) -> pd.DataFrame:
    """data/<name>.parquet, or an empty one before the first run."""
    path = Path("data") / f"{name}.parquet"
    return tables.read(name, path) if path.exists() else tables.empty(name)


def forget_adopted() -> int:
    """Remove what the arrival loop made and the dataset has now; returns how many entries went."""
    gone = 0
    for room, name in (("anonymize", "studies"), ("standardize", "hips")):
        frame = table(name)
        known = set(frame["item"]) if "item" in frame else set()
        for folder in _folders(room):
            if folder.name in known:
                shutil.rmtree(folder)
                gone += 1
    return gone


def _all(
    name: str, path: Path, folder: Path, column: str, target: str, arrived: list[tuple[dict[str, Any], Path]],
    of: Collection[str] | None,
) -> pd.DataFrame:  # fmt: skip
    """Rows of the table and then of `arrived`; column `target` says where the file of a row lies, '' without one."""
    frame = table(name)
    if of is not None:  # first: what follows is work for each row
        wanted = set(frame.loc[frame["study"].isin(of), "subject"])
        wanted |= {row["subject"] for row, _ in arrived if row["study"] in of}
        frame = frame[frame["subject"].isin(wanted)]
        arrived = [(row, place) for row, place in arrived if row["subject"] in wanted]
    top = folder.resolve()
    rows = tables.records(frame.assign(**{target: [str(top / value) if value else "" for value in frame[column]]}))
    rows += [row | {target: str(place / row["owns"]) if row["owns"] else ""} for row, place in arrived]
    return pd.DataFrame(rows) if rows else tables.empty(name).assign(**{target: ""})


def _arrived(room: str) -> list[tuple[dict[str, Any], Path]]:
    return [
        (row, folder / "files")
        for folder in _folders(room)
        if (folder / "rows.json").exists()
        for row in read_json(folder / "rows.json")["rows"]
    ]


def _folders(room: str) -> list[Path]:
    place = Settings().home / "arrived" / room
    return sorted(path for path in place.iterdir() if path.is_dir()) if place.exists() else []
