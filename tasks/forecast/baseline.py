"""The logistic part: several regressions on nested sets of inputs, blended by how well each explains unseen patients.

With thirty patients a regression on all that networks and masks say of a hip and its past loses to one on the lesion's
size; with five hundred it is far ahead. Which of the two a cohort is, its own likelihood on patients left out says, and
where that cannot tell them apart the candidates share (pseudo-BMA+, Yao et al. 2018). A blend of scores is a score.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.forecast.hazard import Array, Chosen, Exposure, Fit, choose_ridge, fit, likelihoods, resample

DRAWS = 200
"""Bayesian bootstrap draws of patients behind the shares."""


@dataclass(frozen=True)
class Blend:
    """weight (P,) and alpha (J,) on the standardized vectors with their past; spread (B, P + 1), see `resample`."""

    weight: Array
    alpha: Array
    spread: Array
    last_visit: Fit
    """The regression on all of the last visit, by itself."""
    held_out: Array
    """(N, J) log-odds of each row by fits that did not see its part."""
    parts: tuple[tuple[Array, Array], ...]
    """(weight, alpha) of the fit without each part."""
    shares: dict[str, float]
    ridges: dict[str, float]


def candidates(n_features: int, anchors: tuple[int, ...]) -> dict[str, NDArray[np.intp]]:
    """Columns of a vector with its past (3 F) that a regression sees: few or all measurements, now or with a past."""
    every, few = np.arange(n_features), np.array(anchors, dtype=np.intp)
    sets = {"last_visit": every, "with_past": np.arange(3 * n_features)}
    if len(few):
        past = np.concatenate([few, few + n_features, few + 2 * n_features])
        sets = {"few_last_visit": few, "few_with_past": past} | sets
    return sets


def blend(
    past: Array, data: Exposure, patients: NDArray, parts: NDArray, sets: dict[str, NDArray[np.intp]],
    grid: tuple[float, ...], resamples: int, rng: np.random.Generator,
) -> Blend:  # fmt: skip
    chosen = {name: choose_ridge(past[:, columns], data, parts, grid) for name, columns in sets.items()}
    shares = _shares(list(chosen.values()), data, patients, rng)
    fits = {name: fit(past[:, columns], data, chosen[name].ridge) for name, columns in sets.items()}
    width, n_intervals = past.shape[1], data.seen.shape[1]
    weight, alpha = np.zeros(width), np.zeros(n_intervals)
    apart = [(np.zeros(width), np.zeros(n_intervals)) for _ in range(int(parts.max()) + 1)]
    held_out = np.zeros(data.seen.shape)
    spread = np.zeros((resamples, width + 1))
    seed = int(rng.integers(2**32))
    for share, (name, columns) in zip(shares, sets.items(), strict=True):
        one, found = chosen[name], fits[name]
        held_out += share * one.eta
        weight[columns] += share * found.weight
        alpha += share * found.alpha
        for (w, a), part in zip(apart, one.fits, strict=True):
            w[columns] += share * part.weight
            a += share * part.alpha
        # The same patients are drawn for every candidate.
        moves = resample(past[:, columns], data, found, patients, resamples, np.random.default_rng(seed))
        spread[:, columns] += share * moves[:, :-1]
        spread[:, -1] += share * moves[:, -1]
    return Blend(
        weight, alpha, spread, fits["last_visit"], held_out, tuple(apart),
        dict(zip(sets, map(float, shares), strict=True)), {name: one.ridge for name, one in chosen.items()},
    )  # fmt: skip


def _shares(chosen: list[Chosen], data: Exposure, patients: NDArray, rng: np.random.Generator) -> Array:
    """Of each candidate: its mean weight by likelihood over draws of patients, which allows for its uncertainty."""
    total = by_patient(np.column_stack([likelihoods(one.eta, data) for one in chosen]), patients)
    drawn = len(total) * rng.dirichlet(np.ones(len(total)), size=DRAWS) @ total
    weight = np.exp(drawn - drawn.max(axis=1, keepdims=True))
    return np.asarray((weight / weight.sum(axis=1, keepdims=True)).mean(axis=0))


def by_patient(values: Array, patients: NDArray) -> Array:
    """(patients, C) sums of (rows, C)."""
    names, codes = np.unique(patients, return_inverse=True)
    out = np.zeros((len(names), values.shape[1]))
    np.add.at(out, codes, values)
    return out
