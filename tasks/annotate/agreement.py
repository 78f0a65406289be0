"""How well readers agree: weighted kappa for stages, ICC(2,1) for measurements, Dice and distance for masks.

Intervals are 95%, over resamples of patients (both hips and all visits of one stay together), and for the ICC also by
McGraw and Wong 1996.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import f as f_distribution

from tasks.annotate.params import Agreement
from tasks.domain.disease import LABELS, MEASURED_LABELS

SKIP = ("consensus", "adjudicator", "computed", "converted")
"""Not readers: what follows from them, and whoever decides between them."""

MOST_READERS = 8
"""Blocks are looked for among those who read most."""


def weighted_kappa(one: ArrayLike, two: ArrayLike, categories: int) -> float:
    """Cohen's kappa with quadratic weights (Cohen 1968); NaN when nobody used a second category."""
    table = np.zeros((categories, categories))
    np.add.at(table, (np.asarray(one), np.asarray(two)), 1.0)
    weights = np.subtract.outer(np.arange(categories), np.arange(categories)).astype(float) ** 2
    expected = np.outer(table.sum(1), table.sum(0)) / max(table.sum(), 1.0)
    chance = float((weights * expected).sum())
    return 1.0 - float((weights * table).sum()) / chance if chance else float("nan")


def icc21(values: NDArray[np.float64], level: float = 0.95) -> tuple[float, float, float]:
    """ICC(2,1) of (n targets, k readers), two-way random, absolute agreement, single reader, with its interval."""
    n, k = values.shape
    rows, columns, error = _mean_squares(values)
    icc = _icc21(values)
    if not np.isfinite(icc) or error <= 0:
        return icc, icc, icc
    a, b = k * icc / (n * (1 - icc)), 1 + k * icc * (n - 1) / (n * (1 - icc))
    freedom = (a * columns + b * error) ** 2 / ((a * columns) ** 2 / (k - 1) + (b * error) ** 2 / ((n - 1) * (k - 1)))
    tail = 1 - (1 - level) / 2
    upper_f, lower_f = f_distribution.ppf(tail, n - 1, freedom), f_distribution.ppf(tail, freedom, n - 1)
    spread = k * columns + (k * n - k - n) * error
    low = n * (rows - upper_f * error) / (upper_f * spread + n * rows)
    high = n * (lower_f * rows - error) / (spread + n * lower_f * rows)
    return icc, float(low), float(high)


def _icc21(values: NDArray[np.float64]) -> float:
    n, k = values.shape
    rows, columns, error = _mean_squares(values)
    below = rows + (k - 1) * error + k * (columns - error) / n
    return (rows - error) / below if below > 0 else float("nan")


def _mean_squares(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """Between targets, between readers, and what is left."""
    n, k = values.shape
    if n < 2 or k < 2:
        return float("nan"), float("nan"), float("nan")
    grand = values.mean()
    rows = k * float(((values.mean(1) - grand) ** 2).sum()) / (n - 1)
    columns = n * float(((values.mean(0) - grand) ** 2).sum()) / (k - 1)
    rest = values - values.mean(1, keepdims=True) - values.mean(0, keepdims=True) + grand
    return rows, columns, float((rest**2).sum()) / ((n - 1) * (k - 1))


def table(rows: list[dict[str, Any]], masks: list[dict[str, Any]], params: Agreement) -> list[dict[str, Any]]:
    """One entry for each label and mask that two readers judged: {name, measure, value, low, high, n_hips, …}."""
    found = []
    for name in (*LABELS, *MEASURED_LABELS):
        if name == "aetiology":  # no order: a weighted kappa would mean nothing
            continue
        entry = _labels(name, [row for row in rows if row["kind"] == "label" and row["name"] == name], params)
        found += [entry] if entry else []
    for name in ("head", "lesion", "vessel"):
        pairs = [row for row in masks if row["status"] == "pair" and row["name"] == name]
        found += [_masks(name, pairs, params)] if pairs else []
    return found


def below_floor(entries: list[dict[str, Any]], params: Agreement) -> list[dict[str, Any]]:
    """Entries whose agreement is too low to train on, where enough hips were judged to say so."""
    return [
        entry
        for entry in entries
        if entry["name"] in params.floors
        and entry["n_hips"] >= params.min_hips
        and entry["value"] is not None
        and entry["value"] < params.floors[entry["name"]]
    ]


def _masks(name: str, pairs: list[dict[str, Any]], params: Agreement) -> dict[str, Any]:
    clusters = [row["subject"] for row in pairs]
    values = np.array([row["dice"] for row in pairs], dtype=np.float64)
    distance = np.array([row.get("surface_mm") for row in pairs], dtype=np.float64)
    interval = _interval(clusters, lambda at: float(values[at].mean()), params)
    readers = {row[column] for row in pairs for column in ("reader", "other")}
    known = distance[np.isfinite(distance)]
    extra = {"surface_mm": float(known.mean())} if len(known) else {}
    return _entry(name, "Dice", interval, len({row["hip_visit"] for row in pairs}), clusters, readers) | extra


def _labels(name: str, rows: list[dict[str, Any]], params: Agreement) -> dict[str, Any] | None:
    given: dict[str, dict[str, str]] = defaultdict(dict)
    subjects = {row["hip_visit"]: row["subject"] for row in rows}
    for row in rows:
        if row["reader"] not in SKIP:
            given[row["hip_visit"]][row["reader"]] = row["value"]
    pairs = [
        (hip, pair, values[pair[0]], values[pair[1]])
        for hip, values in sorted(given.items())
        for pair in combinations(sorted(values), 2)
    ]
    if not pairs:
        return None
    clusters = [subjects[hip] for hip, *_ in pairs]
    readers = {reader for _, pair, *_ in pairs for reader in pair}
    hips = len({hip for hip, *_ in pairs})
    if name in LABELS:
        order = LABELS[name]
        one = np.array([order.index(first) for _, _, first, _ in pairs])
        two = np.array([order.index(second) for _, _, _, second in pairs])
        entry = _interval(clusters, lambda at: weighted_kappa(one[at], two[at], len(order)), params)
        return _entry(name, "weighted kappa", entry, hips, clusters, readers)
    most = _block(given)
    both = [hip for hip, values in sorted(given.items()) if set(most) <= set(values)]
    values = np.array([[float(given[hip][reader]) for reader in most] for hip in both])
    clusters = [subjects[hip] for hip in both]
    entry = _interval(clusters, lambda at: _icc21(values[at]), params)
    _, low, high = icc21(values)
    extra = {"low_by_f": _number(low), "high_by_f": _number(high)}
    return _entry(name, "ICC(2,1)", entry, len(both), clusters, set(most)) | extra


def _block(given: dict[str, dict[str, str]]) -> tuple[str, ...]:
    """The readers whose hips in common make the largest table without a gap: each hip has all columns, as the model of
    two-way effects wants it."""
    count = Counter(reader for values in given.values() for reader in values)
    names = sorted(sorted(count), key=lambda name: -count[name])[:MOST_READERS]
    blocks = [block for size in range(2, len(names) + 1) for block in combinations(sorted(names), size)]

    def shared(block: tuple[str, ...]) -> int:
        return sum(set(block) <= set(values) for values in given.values())

    return max(blocks, key=lambda block: (shared(block) * (len(block) - 1) if shared(block) > 1 else 0, shared(block)))


def _interval(
    clusters: list[str], statistic: Callable[[NDArray[np.int64]], float], params: Agreement
) -> tuple[float, float, float]:
    """(value, low, high) of `statistic`, a function of row indices, over resamples of clusters."""
    names, inverse = np.unique(np.array(clusters), return_inverse=True)
    members = [np.flatnonzero(inverse == n) for n in range(len(names))]
    value = statistic(np.arange(len(clusters)))
    if len(names) < 2:
        return value, float("nan"), float("nan")
    draw = np.random.default_rng(params.seed)
    with np.errstate(invalid="ignore", divide="ignore"):
        drawn = [
            statistic(np.concatenate([members[n] for n in draw.integers(0, len(names), len(names))]))
            for _ in range(params.bootstrap)
        ]
    known = np.array(drawn)[np.isfinite(drawn)]
    if not len(known):
        return value, float("nan"), float("nan")
    return value, float(np.quantile(known, 0.025)), float(np.quantile(known, 0.975))


def _entry(
    name: str,
    measure: str,
    interval: tuple[float, float, float],
    hips: int,
    clusters: list[str],
    readers: set[str],
) -> dict[str, Any]:
    value, low, high = (_number(x) for x in interval)
    return {
        "name": name, "measure": measure, "value": value, "low": low, "high": high, "n_hips": hips,
        "n_patients": len(set(clusters)), "readers": sorted(readers),
    }  # fmt: skip


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
