"""data/imports: what one import holds, and how it is read. Imports are immutable, and numbered as they came."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.store.files import read_json, replacing

VERSION = 1

FOLDER = Path("data/imports")

COLUMNS: dict[str, tuple[str, ...]] = {
    "labels": ("subject", "study", "date", "side", "reader", "name", "value", "row", "kind"),
    "treatments": ("subject", "side", "date", "treatment", "replaces", "status", "row"),
    "outcomes": ("subject", "side", "date", "event", "replaces", "status", "row"),
    "merges": ("subject", "same_as", "shift_days", "row"),
    "consent": ("subject", "status", "date", "row"),
    "masks": (
        "file", "label", "reader", "side", "subject", "study", "series", "frame", "sop", "kind", "index", "thick",
        "voxels", "row", "document",
    ),
}  # fmt: skip
"""Tables of an import. `date` is the shifted day (ISO); `shift_days` are to be added to a day of `same_as` to stand on
the calendar of `subject`; `row` is that of the hospital's table, or of a measurement report (`kind` tid1500) its group;
`index` is the slice a plane was drawn on; masks of one `document` came in one file (none in older imports)."""

NUMBERS = ("row", "index", "voxels", "shift_days", "document")
"""Columns that are float64; all others are text."""


def write_table(path: Path, name: str, rows: list[dict[str, Any]]) -> None:
    types = {column: pa.float64() if column in NUMBERS else pa.string() for column in COLUMNS[name]}
    table = pa.table({c: pa.array([row.get(c) for row in rows], type=kind) for c, kind in types.items()})
    with replacing(path) as partial:
        pq.write_table(table, partial, compression="zstd")


def listed(folder: Path = FOLDER) -> list[Path]:
    """The imports below `folder`, the earliest first."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.name[:4].isdigit() and (path / "import.json").is_file())


def about(folder: Path) -> dict[str, Any]:
    return read_json(folder / "import.json")


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    """The rows of table `name` of one import; nulls are None. An erased table is an empty one."""
    path = folder / f"{name}.parquet"
    if not path.exists():
        return []
    frame = pq.read_table(path).to_pandas().astype(object)
    return frame.where(pd.notna(frame), None).to_dict("records")
