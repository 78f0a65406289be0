"""Parquet tables with the columns of tasks.domain.tables, written the same way every time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.domain.errors import WrongUse
from tasks.domain.tables import COLUMNS
from tasks.store.files import replacing

_TYPES = {"str": pa.string(), "float": pa.float64(), "vector": pa.list_(pa.float64())}


def empty(name: str) -> pd.DataFrame:
    """An empty table of kind `name` with all its columns."""
    return _arrow(name, pd.DataFrame({column: [] for column in COLUMNS[name]})).to_pandas()


def read(name: str, path: Path) -> pd.DataFrame:
    """Read the table of kind `name`; raises WrongUse when the file or one of its columns is missing."""
    if not path.exists():
        raise WrongUse(f"{path} is not there; run the stage that makes it (osteoflow retrain, or dvc repro)")
    frame = pq.read_table(path).to_pandas()
    missing = [column for column in COLUMNS[name] if column not in frame]
    if missing:
        raise WrongUse(f"{path} lacks the columns {', '.join(missing)}")
    return frame


def write(name: str, path: Path, frame: pd.DataFrame, sort_by: list[str] | None = None) -> None:
    """Write `frame` as table `name`: known columns first and typed, the rest after them in order of name.

    Missing columns are filled with nulls; rows are sorted by `sort_by`, so that equal content is equal bytes.
    """
    if sort_by:
        frame = frame.sort_values(sort_by, kind="stable", ignore_index=True)
    table = _arrow(name, frame)
    with replacing(path) as partial:
        pq.write_table(table, partial, compression="zstd")


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as dictionaries, column names as strings."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def _arrow(name: str, frame: pd.DataFrame) -> pa.Table:
    known = COLUMNS[name]
    arrays: dict[str, pa.Array] = {}
    for column, kind in known.items():
        values = frame[column] if column in frame else pd.Series([None] * len(frame), dtype=object)
        arrays[column] = _column(values, kind)
    for column in sorted(set(frame.columns) - set(known)):
        values = frame[column]
        numeric = pd.api.types.is_numeric_dtype(values)
        is_vector = not numeric and values.map(lambda v: isinstance(v, (list, tuple)) or hasattr(v, "__array__")).any()
        arrays[column] = _column(values, "float" if numeric else "vector" if is_vector else "str")
    return pa.table(arrays)


def _column(values: pd.Series, kind: str) -> pa.Array:
    if kind == "float":
        return pa.array(pd.to_numeric(values).astype("float64"), type=pa.float64(), from_pandas=True)
    if kind == "vector":
        return pa.array([None if _is_null(v) else [float(x) for x in v] for v in values], type=_TYPES["vector"])
    return pa.array([None if _is_null(v) else str(v) for v in values], type=pa.string())


def _is_null(value: object) -> bool:
    return value is None or (isinstance(value, float) and value != value) or value is pd.NA or value is pd.NaT
