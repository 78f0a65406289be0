"""Penalized logistic regression of discrete-time hazards, by Newton's method, in numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Exposure:
    """At which intervals of the horizon a hip-visit was at risk, and whether the event came. Both (N, J) of 0 and 1."""

    seen: Array
    event: Array

    def rows(self, which: NDArray) -> Exposure:
        return Exposure(self.seen[which], self.event[which])


def exposure(
    label: Array, event_in_days: Array, followed_days: Array, at_risk: NDArray, horizon: float, n: int
) -> Exposure:
    """Intervals of horizon / n days. A hip lost within an interval counts up to the one before; a known label without
    times (a table made elsewhere) counts as the whole horizon."""
    width = horizon / n
    with np.errstate(invalid="ignore"):
        when = np.where(event_in_days <= horizon, np.clip(np.ceil(event_in_days / width) - 1, 0, n - 1), np.nan)
    when = np.where(np.isnan(when) & (label == 1), n - 1, when)
    free = np.clip(np.floor(np.nan_to_num(followed_days) / width + 1e-9), 0, n)
    free = np.where(label == 0, n, free)
    last = np.where(np.isnan(when), free, np.nan_to_num(when) + 1)
    j = np.arange(n)
    seen = ((j < last[:, None]) & at_risk[:, None]).astype(np.float64)
    event = ((j == when[:, None]) & at_risk[:, None]).astype(np.float64)
    return Exposure(seen, event)


@dataclass(frozen=True)
class Fit:
    """weight (F,), alpha (J,), and the Hessian (F + J, F + J) of the penalized likelihood at the solution."""

    weight: Array
    alpha: Array
    hessian: Array


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-np.clip(x, -40, 40)))


def fit(x: Array, data: Exposure, ridge: float, steps: int = 30, start: Fit | None = None) -> Fit:
    """Maximize sum over seen intervals of the log likelihood - ridge / 2 * |weight|^2, from `start` (of another ridge).

    alpha has a weak prior at one half event in each interval, so that no events give a small hazard and not -inf.
    """
    n_features, n_intervals = x.shape[1], data.seen.shape[1]
    hazard = (data.event.sum(axis=0) + 0.5) / (data.seen.sum(axis=0) + 1.0)
    prior = np.log(hazard / (1 - hazard))
    weight, alpha = (np.zeros(n_features), prior.copy()) if start is None else (start.weight, start.alpha)
    identity = np.diag(np.concatenate([np.full(n_features, ridge), np.full(n_intervals, 0.1)]))
    hessian = identity

    def objective(w: Array, a: Array) -> float:
        return log_likelihood(x @ w, a, data) - ridge / 2 * float(w @ w) - 0.05 * float((a - prior) @ (a - prior))

    best = objective(weight, alpha)
    for _ in range(steps):
        p = sigmoid((x @ weight)[:, None] + alpha)
        slope = data.seen * (data.event - p)
        curve = data.seen * p * (1 - p)
        gradient = np.concatenate([x.T @ slope.sum(axis=1) - ridge * weight, slope.sum(axis=0) - 0.1 * (alpha - prior)])
        cross = x.T @ curve
        hessian = identity + np.block(
            [[(x.T * curve.sum(axis=1)) @ x, cross], [cross.T, np.diag(curve.sum(axis=0))]]
        )  # fmt: skip
        move = np.linalg.solve(hessian, gradient)
        # Halve the step until it is one uphill: far from the solution a full Newton step may go astray.
        for _ in range(20):
            new = weight + move[:n_features], alpha + move[n_features:]
            reached = objective(*new)
            if reached >= best - 1e-9:
                break
            move = move / 2
        weight, alpha = new
        best = reached
        if float(np.abs(move).max()) < 1e-6:
            break
    return Fit(weight, alpha, hessian)


def log_likelihood(score: Array, alpha: Array, data: Exposure) -> float:
    """Summed over seen intervals; score (N,)."""
    return float(likelihoods(score[:, None] + alpha, data).sum())


def likelihoods(eta: Array, data: Exposure) -> Array:
    """(N,) log likelihood of each row, summed over its seen intervals; eta (N, J) log-odds."""
    eta = np.clip(eta, -40, 40)
    return np.asarray((data.seen * (data.event * eta - np.logaddexp(0, eta))).sum(axis=1))


def risk(score: Array, alpha: Array) -> Array:
    """(N,) score -> probability of the event within the horizon."""
    return of_horizon(score[:, None] + alpha)


def of_horizon(eta: Array) -> Array:
    """(N, J) log-odds of each interval -> (N,) probability of the event within them all."""
    return np.asarray(1 - np.prod(1 - sigmoid(eta), axis=1))


def inner_parts(patients: NDArray, folds: int) -> NDArray[np.intp]:
    """The part, 0 to folds - 1, that each row's patient is in."""
    names, codes = np.unique(patients, return_inverse=True)
    return np.asarray(codes % min(folds, max(len(names), 1)), dtype=np.intp)


@dataclass(frozen=True)
class Chosen:
    """The penalty with the best likelihood of patients left out; log-odds (N, J) of each row by the fit of the other
    parts, and those fits."""

    ridge: float
    eta: Array
    fits: tuple[Fit, ...]


def choose_ridge(x: Array, data: Exposure, parts: NDArray, grid: tuple[float, ...]) -> Chosen:
    best: tuple[float, Chosen] | None = None
    last: list[Fit] = []
    for ridge in grid:
        eta, fits = np.zeros(data.seen.shape), []
        before = last
        for k in range(int(parts.max()) + 1):
            inside, outside = parts != k, parts == k
            if not inside.any():
                inside = outside
            found = fit(x[inside], data.rows(inside), ridge, steps=12, start=before[k] if before else None)
            fits.append(found)
            eta[outside] = (x[outside] @ found.weight)[:, None] + found.alpha
        last = fits
        total = float(likelihoods(eta, data).sum())
        if best is None or total > best[0]:
            best = total, Chosen(ridge, eta, tuple(fits))
    assert best is not None
    return best[1]


def resample(x: Array, data: Exposure, found: Fit, patients: NDArray, n: int, rng: np.random.Generator) -> Array:
    """(n, F + 1): changes of the weights and of alpha when patients are drawn again, by one Newton step each."""
    p = sigmoid((x @ found.weight)[:, None] + found.alpha)
    slope = data.seen * (data.event - p)
    each = np.column_stack([x * slope.sum(axis=1, keepdims=True), slope])
    names, codes = np.unique(patients, return_inverse=True)
    total = np.zeros((len(names), each.shape[1]))
    np.add.at(total, codes, each)
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=n) - 1.0
    moves = np.linalg.solve(found.hessian, (drawn @ total).T).T
    n_features = x.shape[1]
    return np.column_stack([moves[:, :n_features], moves[:, n_features:].mean(axis=1)])


def platt(risks: Array, labels: Array, min_events: int, strata: NDArray | None = None) -> tuple[float, float]:
    """(intercept, slope) on the log-odds of known labels, held weakly at (0, 1); exactly that when events are few.

    The slope is that within `strata` (the folds, each another model's): between them the level of a risk runs against
    that of the outcome, because the fold with more events was learnt for on the rest, which has fewer.
    """
    known = np.isfinite(labels) & np.isfinite(risks)
    events = labels[known].sum()
    if events < min_events or known.sum() - events < min_events:
        return 0.0, 1.0
    odds = np.clip(risks[known], 1e-6, 1 - 1e-6)
    one, x, y = np.ones(known.sum()), np.log(odds / (1 - odds)), labels[known]
    names, codes = np.unique(np.zeros(len(x)) if strata is None else strata[known], return_inverse=True)
    apart = np.eye(len(names))[codes] if len(names) > 1 else np.zeros((len(x), 0))
    held = np.concatenate([[0.25, 2.0], np.ones(apart.shape[1])])
    line = _line(np.column_stack([one, x, apart]), y, np.zeros(len(x)), held, np.eye(len(held))[1])
    slope = float(max(line[1], 0.05))
    return float(_line(one[:, None], y, slope * x, held[:1], np.zeros(1))[0]), slope


def _line(x: Array, y: Array, offset: Array, held: Array, at: Array) -> Array:
    """Logistic regression whose coefficients are held at `at` with precision `held`."""
    line = at.copy()
    for _ in range(30):
        p = sigmoid(offset + x @ line)
        move = np.linalg.solve(np.diag(held) + (x.T * (p * (1 - p))) @ x, x.T @ (y - p) - held * (line - at))
        line = line + move * min(1.0, 2.0 / max(float(np.abs(move).max()), 1e-12))
    return line


def calibrated(risks: Array, line: tuple[float, float]) -> Array:
    odds = np.clip(risks, 1e-6, 1 - 1e-6)
    return sigmoid(line[0] + line[1] * np.log(odds / (1 - odds)))
