"""What the model takes and gives, as MLflow's signature JSON, and an example that holds no patient's row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks.domain.tables import COLUMNS
from tasks.store.files import read_json

REQUIRED = ("hip", "hip_visit")
"""Whatever else is null or left out, the model answers, if only by abstaining."""
OUTPUTS = {"hip_visit": "string", "risk": "double", "risk_low": "double", "risk_high": "double", "abstain": "string"}


def signature(sequences: pd.DataFrame) -> dict[str, Any]:
    """{"inputs", "outputs", "params"} with one column each; all but REQUIRED may be null or missing."""
    inputs = []
    for name in map(str, sequences.columns):
        inputs.append({**_type(sequences, name), "name": name, "required": name in REQUIRED})
    outputs = [{"type": kind, "name": name, "required": name == "hip_visit"} for name, kind in OUTPUTS.items()]
    return {"inputs": inputs, "outputs": outputs, "params": None}


def example(sequences: pd.DataFrame, example_patients: int) -> list[dict[str, Any]]:
    """Three rows of one made-up hip: all known, nulls inside and beside the features, and no features at all.

    Values are medians over the training hip-visits; with fewer than `example_patients` patients they are null.
    """
    training = sequences[sequences["fold"].fillna("").str.isdigit()]
    vectors = [np.asarray(one, dtype=float) for one in training["features"].dropna()]
    middle: list[float | None] = []
    if vectors:
        table = np.stack(vectors)
        known = np.isfinite(table).any(axis=0)
        middle = [None] * table.shape[1]
        if training["subject"].nunique() >= example_patients:
            medians = np.nanmedian(np.where(known, table, 0.0), axis=0)
            middle = [float(m) if k else None for m, k in zip(medians, known, strict=True)]
    horizon = sequences["horizon_days"].dropna()
    shared = {
        "hip": "EXAMPLE-L",
        "subject": "EXAMPLE",
        "side": "L",
        "horizon_days": float(horizon.iloc[0]) if len(horizon) else None,
    }
    rows = [
        {"hip_visit": "1-L", "days": 0.0, "treatment": "observation", "days_since_treatment": 0.0, "features": middle},
        {"hip_visit": "2-L", "days": 180.0, "delta_days": 180.0, "features": [None, *middle[1:]] if middle else None},
        {"hip_visit": "3-L", "days": 365.0, "delta_days": 185.0, "features": None},
    ]
    empty = {str(name): None for name in sequences.columns}
    return [empty | shared | row for row in rows]


def signature_json(package: Path) -> dict[str, Any]:
    """The signature as `mlflow.models.ModelSignature.from_dict` takes it."""
    found = read_json(package / "signature.json")
    return {side: None if found[side] is None else json.dumps(found[side]) for side in ("inputs", "outputs", "params")}


def input_example(package: Path) -> pd.DataFrame:
    """The example as a frame: numbers float64 with NaN, words with None, features arrays or None."""
    types = {column["name"]: column["type"] for column in read_json(package / "signature.json")["inputs"]}
    rows = read_json(package / "input_example.json")
    columns: dict[str, pd.Series] = {}
    for name, kind in types.items():
        values = [row.get(name) for row in rows]
        if kind == "double":
            columns[name] = pd.Series([np.nan if v is None else float(v) for v in values], dtype="float64")
        elif kind == "array":
            vectors = [None if v is None else np.array(v, dtype=float) for v in values]
            columns[name] = pd.Series(vectors, dtype=object)
        else:
            columns[name] = pd.Series(values, dtype=object)
    return pd.DataFrame(columns)


def _type(sequences: pd.DataFrame, name: str) -> dict[str, Any]:
    kind = COLUMNS["sequences"].get(name)
    if kind is None:
        numeric = pd.api.types.is_numeric_dtype(sequences[name])
        arrays = not numeric and sequences[name].map(lambda one: hasattr(one, "__array__")).any()
        kind = "float" if numeric else "vector" if arrays else "str"
    if kind == "vector":
        return {"type": "array", "items": {"type": "double"}}
    return {"type": "double" if kind == "float" else "string"}
