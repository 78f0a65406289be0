"""Fitting one member: the logistic baseline, then the residual LSTM on top of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tasks.forecast.baseline import Blend, blend, by_patient, candidates
from tasks.forecast.hazard import Array, Exposure, fit, inner_parts, likelihoods, of_horizon, platt, sigmoid
from tasks.forecast.params import Params
from tasks.forecast.residual import Batch, Single, fit_residual
from tasks.nets.forecaster import CLIP, YEAR, Member, Residual, with_past

ENOUGH_ROWS = 1000
"""Hip-visits of which one part of the patients left out shows what the residual is worth; with fewer, every part is."""


@dataclass(frozen=True)
class Table:
    """The sequences table as arrays, rows of a hip together and in time order."""

    vectors: Array
    """(N, F), NaN where nothing was measured."""
    data: Exposure
    patients: NDArray[np.str_]
    hips: NDArray[np.str_]
    days: Array
    label: Array
    anchors: tuple[int, ...] = ()
    """Places in the vector of the few measurements that a small cohort is held to."""

    def rows(self, which: NDArray) -> Table:
        return Table(
            self.vectors[which], self.data.rows(which), self.patients[which], self.hips[which],
            self.days[which], self.label[which], self.anchors,
        )  # fmt: skip

    def past(self, x: Array) -> Array:
        """(N, 3 F): each row's standardized vector with what came before it in the same hip."""
        if not len(x):
            return np.zeros((0, 3 * x.shape[1]))
        starts = np.flatnonzero(np.concatenate([[True], self.hips[1:] != self.hips[:-1]]))
        return np.concatenate([with_past(part) for part in np.split(x, starts[1:])])

    @property
    def years(self) -> Array:
        """(N,) since the hip's visit before; 0 at its first."""
        gap = np.diff(self.days, prepend=np.nan) / YEAR
        first = np.concatenate([[True], self.hips[1:] != self.hips[:-1]]) if len(self.hips) else np.zeros(0, bool)
        return np.where(first, 0.0, np.maximum(gap, 0.0))


@dataclass
class Fitted:
    """A member, the losses on its way, and why it is less than intended (or '')."""

    member: Member
    last_visit: tuple[Array, Array]
    """Weights and alpha of the baseline that sees the last visit alone."""
    line: tuple[float, float] = (0.0, 1.0)
    """Calibration (intercept, slope) from inner cross-validation, for predictions of the fold that was left out."""
    losses: list[float] = field(default_factory=list)
    reason: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


def scaler(vectors: Array) -> tuple[Array, Array, Array]:
    """(impute, centre, scale) of each column; a column never measured is 0 everywhere."""
    measured = np.isfinite(vectors)
    count = np.maximum(measured.sum(axis=0), 1)
    held = np.where(measured, vectors, 0.0)
    centre = held.sum(axis=0) / count
    scale = np.sqrt((np.where(measured, vectors - centre, 0.0) ** 2).sum(axis=0) / count)
    # Imputed at the mean: 0 after scaling; the vector's missing_* entries say so.
    return centre.copy(), centre, np.where(scale > 1e-9, scale, 1.0)


def train(work: tuple[Table, Params, int]) -> Fitted:
    """One member on the rows of `work`, which are its training patients alone. Seeded, whatever was drawn before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(work[1].seed * 1000 + work[2])
        return _train(*work)


def _train(table: Table, params: Params, seed: int) -> Fitted:
    impute, centre, scale = scaler(table.vectors)
    x = np.clip((np.where(np.isfinite(table.vectors), table.vectors, impute) - centre) / scale, -CLIP, CLIP)
    n_features, n_intervals = x.shape[1], table.data.seen.shape[1]
    used = np.asarray(table.data.seen.any(axis=1))
    events = int(table.data.event.sum())
    rng = np.random.default_rng([params.seed, seed])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(params.seed * 1000 + seed)
        residual = Residual(n_features, params.hidden)
    past = table.past(x)
    member = Member(
        impute, centre, scale, np.zeros(past.shape[1]), np.zeros(n_intervals), np.zeros((1, past.shape[1] + 1)),
        _whiten(x, params.shrinkage), residual, 0.0,
    )  # fmt: skip
    free = int((used & (table.data.event.sum(axis=1) == 0)).sum())
    facts: dict[str, Any] = {"events": events, "rows": int(used.sum())}
    if min(events, free) < params.min_events:
        hazard = (table.data.event.sum(axis=0) + 0.5 / n_intervals) / (table.data.seen.sum(axis=0) + 1.0)
        member.alpha = np.log(hazard / (1 - hazard))
        reason = (
            f"{events} events and {free} without among {used.sum()} hip-visits, at least {params.min_events} of each "
            "are needed: every estimate is the prevalence"
        )
        return Fitted(member, (np.zeros(n_features), member.alpha), reason=reason, facts=facts)
    data, patients = table.data.rows(used), table.patients[used]
    parts = inner_parts(table.patients, params.inner_folds)
    sets = candidates(n_features, table.anchors)
    found = blend(past[used], data, patients, parts[used], sets, params.ridge, params.resamples, rng)
    member.weight, member.alpha, member.spread = found.weight, found.alpha, found.spread
    line = platt(of_horizon(found.held_out), table.label[used], params.min_events, parts[used])
    member.amount = _amount(table, past, parts, found, params, rng)
    losses = _fit_residual(residual, table, past, member.weight, member.alpha, params, rng) if member.amount else []
    facts |= {"shares": found.shares, "ridges": found.ridges, "amount": member.amount}
    return Fitted(member, (found.last_visit.weight, found.last_visit.alpha), line, losses, "", facts)


def _amount(table: Table, past: Array, parts: NDArray, found: Blend, params: Params, rng: np.random.Generator) -> float:
    """How much of a residual to use: the most that makes patients likelier which no part of the forecaster has seen, by
    more than the standard error of that gain. A cohort too small to show a gain has none."""
    if len(params.amounts) == 1:
        return params.amounts[0]
    gains = np.zeros((len(table.days), len(params.amounts)))
    # Half the steps show whether it helps.
    short = params.model_copy(update={"epochs": max(params.epochs // 2, 1)})
    asked = range(int(parts.max()) + 1) if len(table.days) < ENOUGH_ROWS else range(1)
    for k in asked:
        outside = parts == k
        inside = ~outside if (~outside).any() else outside
        weight, alpha = found.parts[k]
        trial = Residual(past.shape[1] // 3, params.hidden)
        _fit_residual(trial, table.rows(inside), past[inside], weight, alpha, short, rng)
        rest = table.rows(outside)
        base, more = (past[outside] @ weight)[:, None] + alpha, corrections(trial, rest, past[outside])[:, None]
        without = likelihoods(base, rest.data)
        for place, amount in enumerate(params.amounts):
            gains[outside, place] = likelihoods(base + amount * more, rest.data) - without
    each = by_patient(gains[np.isin(parts, asked)], table.patients[np.isin(parts, asked)])
    mean, error = each.mean(axis=0), each.std(axis=0) / np.sqrt(len(each))
    best = int(np.argmax(mean))
    return float(params.amounts[best]) if mean[best] > error[best] else min(params.amounts)


def _whiten(x: Array, shrinkage: float) -> Array:
    """Inverse root of the shrunk covariance. With no rows there is no distance."""
    n_features = x.shape[1]
    if len(x) < 2:
        return np.zeros((n_features, n_features))
    covariance = (1 - shrinkage) * np.cov(x, rowvar=False).reshape(n_features, n_features)
    values, vectors = np.linalg.eigh(covariance + shrinkage * np.eye(n_features))
    return (vectors / np.sqrt(np.maximum(values, 1e-6))).T


class _Padded:
    """Hips side by side, visits in steps: (steps, hips, ...), padded at the end of shorter hips."""

    def __init__(self, table: Table) -> None:
        names, self.codes = np.unique(table.hips, return_inverse=True)
        self.hips = len(names)
        self.position = np.zeros(len(self.codes), dtype=int)
        for row in range(1, len(self.codes)):
            self.position[row] = self.position[row - 1] + 1 if self.codes[row] == self.codes[row - 1] else 0
        self.steps = int(self.position.max()) + 1

    def __call__(self, values: Array) -> Array:
        out = np.zeros((self.steps, self.hips, *values.shape[1:]))
        out[self.position, self.codes] = values
        return out

    def single(self, values: Array) -> Single:
        return self(values).astype(np.float32)


def _inputs(past: Array, years: Array) -> Array:
    """(N, 2 F + 1): vectors, their changes and the time since the visit before, as the cell reads them."""
    n_features = past.shape[1] // 3
    return np.column_stack([past[:, :n_features], past[:, 2 * n_features :], np.log1p(years)])


def corrections(residual: Residual, table: Table, past: Array) -> Array:
    """(N,) what the residual adds to each row's score: `Residual.step` visit by visit, for all hips at once."""
    place, n_features = _Padded(table), past.shape[1] // 3
    inputs, years = torch.from_numpy(place(_inputs(past, table.years))), torch.from_numpy(place(table.years[:, None]))
    state, out = residual.eval().start(place.hips), []
    with torch.no_grad():
        for t in range(place.steps):
            x, change = inputs[t, :, :n_features], inputs[t, :, n_features:-1]
            correction, state = residual.step(state, x, change, years[t])
            out.append(correction.numpy())
    return np.asarray(np.stack(out)[place.position, place.codes])


def _fit_residual(
    residual: Residual, table: Table, past: Array, weight: Array, alpha: Array, params: Params, rng: np.random.Generator
) -> list[float]:
    place = _Padded(table)
    batch = Batch(
        place.single(_inputs(past, table.years)), place.single(table.years[:, None]),
        place.single((past @ weight)[:, None] + alpha), place.single(table.data.seen), place.single(table.data.event),
    )  # fmt: skip
    return fit_residual(residual, batch, params, rng)


def one_column(column: Array, data: Exposure, ridge: float, min_events: int) -> tuple[float, float, float, Array]:
    """A baseline of one measurement: (centre, scale, weight, alpha); weight 0 when events are few."""
    (_, centre, scale) = (a[0] for a in scaler(column[:, None]))
    x = np.nan_to_num((column - centre) / scale)[:, None]
    used = np.asarray(data.seen.any(axis=1))
    kept = data.rows(used)
    if kept.event.sum() < min_events:
        hazard = (kept.event.sum(axis=0) + 0.5) / (kept.seen.sum(axis=0) + 1.0)
        return centre, scale, 0.0, np.log(hazard / (1 - hazard))
    found = fit(x[used], kept, ridge)
    return centre, scale, float(found.weight[0]), found.alpha


def risk_of_column(column: Array, fitted: tuple[float, float, float, Array]) -> Array:
    centre, scale, weight, alpha = fitted
    score = np.nan_to_num((column - centre) / scale) * weight
    return 1 - np.prod(1 - sigmoid(score[:, None] + alpha), axis=1)
