"""Fitting one member: the logistic baseline, then the residual LSTM on top of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.forecast.hazard import Array, Exposure, choose_ridge, fit, resample, sigmoid
from tasks.forecast.params import Params
from tasks.nets.forecaster import CLIP, YEAR, Member, Residual


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

    def rows(self, which: NDArray) -> Table:
        return Table(
            self.vectors[which], self.data.rows(which), self.patients[which], self.hips[which],
            self.days[which], self.label[which],
        )  # fmt: skip

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
    """One member on the rows of `work`, which are its training patients alone. Seeded; one thread."""
    table, params, seed = work
    impute, centre, scale = scaler(table.vectors)
    x = np.clip((np.where(np.isfinite(table.vectors), table.vectors, impute) - centre) / scale, -CLIP, CLIP)
    n_features, n_intervals = x.shape[1], table.data.seen.shape[1]
    used = table.data.seen.any(axis=1)
    events = int(table.data.event.sum())
    rng = np.random.default_rng([params.seed, seed])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(params.seed * 1000 + seed)
        residual = Residual(n_features, params.hidden)
    member = Member(
        impute, centre, scale, np.zeros(n_features), np.zeros(n_intervals), np.zeros((1, n_features + 1)),
        _whiten(x, params.shrinkage), residual, 0.0,
    )  # fmt: skip
    free = int((used & (table.data.event.sum(axis=1) == 0)).sum())
    if events < params.min_events or free < params.min_events:
        known = int(used.sum())
        hazard = (table.data.event.sum(axis=0) + 0.5 / n_intervals) / (table.data.seen.sum(axis=0) + 1.0)
        member.alpha = np.log(hazard / (1 - hazard))
        reason = f"{events} events and {free} without among {known} hip-visits (at least {params.min_events} of each are needed): the prevalence"  # noqa: E501
        return Fitted(member, reason=reason, facts={"events": events, "rows": known})
    data = table.data.rows(used)
    ridge = choose_ridge(x[used], data, table.patients[used], params.ridge, params.inner_folds)
    base = fit(x[used], data, ridge)
    member.weight, member.alpha = base.weight, base.alpha
    member.spread = resample(x[used], data, base, table.patients[used], params.resamples, rng)
    losses = _fit_residual(member, table, x, params, rng)
    return Fitted(member, losses, "", {"events": events, "rows": int(used.sum()), "ridge": ridge})


def _whiten(x: Array, shrinkage: float) -> Array:
    """Inverse root of the shrunk covariance. With no rows there is no distance."""
    n_features = x.shape[1]
    if len(x) < 2:
        return np.zeros((n_features, n_features))
    covariance = (1 - shrinkage) * np.cov(x, rowvar=False).reshape(n_features, n_features)
    values, vectors = np.linalg.eigh(covariance + shrinkage * np.eye(n_features))
    return (vectors / np.sqrt(np.maximum(values, 1e-6))).T


def _fit_residual(member: Member, table: Table, x: Array, params: Params, rng: np.random.Generator) -> list[float]:
    """Adam over all hips at once, the baseline held; hips are padded at their end, where nothing is seen."""
    names, codes = np.unique(table.hips, return_inverse=True)
    position = np.zeros(len(codes), dtype=int)
    counts = np.zeros(len(names), dtype=int)
    for row, code in enumerate(codes):
        position[row] = counts[code]
        counts[code] += 1
    steps = int(counts.max())

    def padded(values: Array) -> Tensor:
        out = np.zeros((len(names), steps, *values.shape[1:]))
        out[codes, position] = values
        return torch.from_numpy(out)

    inputs, years = padded(x), padded(table.years[:, None])
    offset = padded((x @ member.weight)[:, None] + member.alpha)
    seen, event = padded(table.data.seen), padded(table.data.event)
    total = seen.sum()
    residual, losses = member.residual.train(), []
    # The LSTM's own weights are left alone by the decay of AdamW: what holds a small cohort back is a small head.
    heads = [residual.history.weight, residual.head.weight]
    inner = [p for name, p in residual.named_parameters() if not name.startswith(("history", "head"))]
    optimizer = torch.optim.Adam([{"params": heads}, {"params": inner}], lr=params.learning_rate)
    for _ in range(params.epochs):
        kept = (rng.random((len(names), x.shape[1])) >= params.input_dropout) / (1 - params.input_dropout)
        mask = torch.from_numpy(kept)
        state = residual.start(len(names), x.shape[1])
        corrections = []
        for t in range(steps):
            correction, state = residual.step(state, inputs[:, t] * mask, years[:, t])
            corrections.append(correction)
        eta = offset + torch.stack(corrections, dim=1)[:, :, None]
        loss = (seen * torch.nn.functional.binary_cross_entropy_with_logits(eta, event, reduction="none")).sum() / total
        penalty = params.weight_decay * sum((p**2).sum() for p in heads)
        optimizer.zero_grad()
        (loss + penalty).backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    residual.eval()
    return losses


def one_column(column: Array, data: Exposure, ridge: float, min_events: int) -> tuple[float, float, float, Array]:
    """A baseline of one measurement: (centre, scale, weight, alpha); weight 0 when events are few."""
    (_, centre, scale) = (a[0] for a in scaler(column[:, None]))
    x = np.nan_to_num((column - centre) / scale)[:, None]
    used = data.seen.any(axis=1)
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
