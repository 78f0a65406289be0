"""PSI and KS of each column, recent against reference, and what they add up to."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from tasks.domain.hip import RESEARCH_ONLY
from tasks.drift.params import Params
from tasks.drift.rows import NOT_COMPARED
from tasks.training.metrics import holm

Row = dict[str, Any]
FLOOR = 1e-4  # share of an empty bin: PSI has no logarithm of nothing


def drift(reference: pd.DataFrame, recent: pd.DataFrame, params: Params) -> Row:
    """{"status": stable | watch | alarm | too_few, "reason", "n_reference", "n_recent", patients, "columns": [..]}.

    Both tables are of `rows`. Columns are those that both have; each entry holds psi, ks, p, p_holm, n and status,
    the worst first.
    """
    columns = [c for c in map(str, reference) if c in recent and c not in NOT_COMPARED and not c.startswith("feature_")]
    table = [_column(reference, recent, name, params) for name in (*columns, *_features(reference, recent, params))]
    table = [row for row in table if row["status"] != "not_compared"]
    adjusted = holm([np.nan if row["p"] is None else row["p"] for row in table])
    for row, p_value in zip(table, adjusted, strict=True):
        row["p_holm"] = None if np.isnan(p_value) else float(p_value)
        if row["status"] != "too_few":
            row["status"] = _status(row, params)
    order = {"alarm": 0, "watch": 1, "stable": 2, "too_few": 3}
    table.sort(key=lambda row: (order[row["status"]], -(row["psi"] or 0), row["column"]))
    found = [row["status"] for row in table]
    status = next((word for word in ("alarm", "watch", "stable") if word in found), "too_few")
    worst = [row["column"] for row in table if row["status"] == status]
    return {
        "status": status,
        "reason": _reason(status, worst, params),
        "n_reference": len(reference),
        "n_recent": len(recent),
        "n_reference_patients": int(reference["subject"].nunique()),
        "n_recent_patients": int(recent["subject"].nunique()),
        "unit": "hip-visit",
        "columns": table,
        "note": RESEARCH_ONLY,
    }


def psi(reference: ArrayLike, recent: ArrayLike, bins: int) -> float:
    """Population stability index over the reference's quantile bins; unknown values are a bin of their own."""
    a, b = np.asarray(reference, dtype=float), np.asarray(recent, dtype=float)
    known = a[np.isfinite(a)]
    edges = np.unique(np.quantile(known, np.linspace(0, 1, bins + 1)[1:-1])) if len(known) else np.zeros(0)

    def shares(values: NDArray[np.float64]) -> NDArray[np.float64]:
        which = np.where(np.isfinite(values), np.searchsorted(edges, values, side="right"), len(edges) + 1)
        return np.bincount(which, minlength=len(edges) + 2) / max(len(values), 1)

    return _index(shares(a), shares(b))


def psi_words(reference: pd.Series, recent: pd.Series) -> float:
    """The same over the levels of words; null is a level."""
    a, b = (one.fillna("unknown").astype(str).value_counts(normalize=True) for one in (reference, recent))
    levels = sorted(set(a.index) | set(b.index))
    p, q = (np.array([one.get(level, 0.0) for level in levels], dtype=np.float64) for one in (a, b))
    return _index(p, q)


def ks(reference: ArrayLike, recent: ArrayLike, n: float | None = None, m: float | None = None) -> tuple[float, float]:
    """(largest distance of the two distributions, asymptotic p-value for sample sizes `n` and `m`).

    By default the sizes are those of the arrays; for clustered rows hand in the numbers of patients.
    """
    a, b = np.sort(np.asarray(reference, dtype=float)), np.sort(np.asarray(recent, dtype=float))
    both = np.concatenate([a, b])
    distance = np.abs(np.searchsorted(a, both, "right") / len(a) - np.searchsorted(b, both, "right") / len(b)).max()
    size_a, size_b = n or len(a), m or len(b)
    root = math.sqrt(size_a * size_b / (size_a + size_b))
    # Stephens' small-sample form of Kolmogorov's limit, as in Press et al., Numerical Recipes 14.3.
    scaled = (root + 0.12 + 0.11 / root) * distance
    if scaled < 0.2:
        return float(distance), 1.0
    series = sum((-1) ** (k - 1) * math.exp(-2 * k * k * scaled * scaled) for k in range(1, 101))
    return float(distance), float(min(1.0, max(0.0, 2 * series)))


def _column(reference: pd.DataFrame, recent: pd.DataFrame, name: str, params: Params) -> Row:
    a, b = reference[name], recent[name]
    row: Row = {"column": name, "psi": None, "ks": None, "p": None, "status": "stable"}
    numeric = pd.api.types.is_numeric_dtype(a) and pd.api.types.is_numeric_dtype(b)
    if not numeric and a.map(lambda one: isinstance(one, (list, tuple, np.ndarray))).any():
        return row | {"status": "not_compared"}
    known = [frame.loc[frame[name].notna() if numeric else slice(None), "subject"] for frame in (reference, recent)]
    n, m = (int(one.nunique()) for one in known)
    row |= {"n_reference": len(known[0]), "n_recent": len(known[1]), "n_reference_patients": n, "n_recent_patients": m}
    if min(n, m) < params.min_patients:
        return row | {"status": "too_few"}
    if not numeric:
        if a.nunique() > max(20, len(a) / 4):
            return row | {"status": "not_compared"}  # a key or free text, not a property
        return row | {"psi": psi_words(a, b), "kind": "words"}
    distance, p_value = ks(a.dropna(), b.dropna(), n, m)
    means = {"mean_reference": float(a.mean()), "mean_recent": float(b.mean())}
    return row | {"psi": psi(a, b, params.bins), "ks": distance, "p": p_value, "kind": "number", **means}


def _features(reference: pd.DataFrame, recent: pd.DataFrame, params: Params) -> list[str]:
    names = [c for c in map(str, reference) if c.startswith("feature_") and c in recent]
    spread = reference[names].std().fillna(0.0) if names else pd.Series(dtype=float)
    return sorted(spread.sort_values(ascending=False, kind="stable").index[: params.features])


def _status(row: Row, params: Params) -> str:
    # PSI alone is large by chance in small samples: of numbers the KS test has to agree.
    chance = row["p_holm"] is not None and row["p_holm"] >= params.alpha
    if row["psi"] >= params.psi_alarm and not chance and not _few_words(row, params):
        return "alarm"
    return "watch" if row["psi"] >= params.psi_watch and not chance else "stable"


def _few_words(row: Row, params: Params) -> bool:
    """Words have no test here: they raise an alarm only with several times the least number of patients."""
    return row["kind"] == "words" and row["n_recent_patients"] < 3 * params.min_patients


def _index(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    p, q = np.maximum(a, FLOOR), np.maximum(b, FLOOR)
    return float(((q - p) * np.log(q / p)).sum())


def _reason(status: str, columns: list[str], params: Params) -> str:
    named = ", ".join(columns[:5]) + (f" and {len(columns) - 5} more" if len(columns) > 5 else "")
    return {
        "alarm": f"recent hip-visits differ from the training data in {named} (PSI >= {params.psi_alarm})",
        "watch": f"a shift worth watching in {named} (PSI >= {params.psi_watch})",
        "stable": "no column differs more than chance allows",
        "too_few": f"fewer than {params.min_patients} patients on one side: nothing can be said yet",
    }[status]
