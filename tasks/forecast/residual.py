"""Fitting the residual LSTM: full-batch Adam, the gradient written out.

At the size of a cohort (hundreds of hips, four visits, sixteen units) torch spends its time on bookkeeping: written out
in numpy a step costs a quarter. A test holds the gradient against torch's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tasks.forecast.params import Params
from tasks.nets.forecaster import Residual

Single = NDArray[np.float32]
"""Half the time of double; what is used of it is a correction."""


@dataclass(frozen=True)
class Batch:
    """Hips side by side, visits in steps: (steps, hips, ...); padded at the end, where nothing is seen."""

    inputs: Single
    """Vectors, their changes, log1p(years since the visit before)."""
    years: Single
    offset: Single
    """(steps, hips, J): log-odds of the logistic part, which is held."""
    seen: Single
    event: Single


def fit_residual(residual: Residual, batch: Batch, params: Params, rng: np.random.Generator) -> list[float]:
    """The losses on the way; `residual` is left fitted, in double."""
    own = residual.state_dict()
    weights = {name: own[name].numpy().astype(np.float32) for name in own}
    hips, n_features = batch.inputs.shape[1], batch.inputs.shape[2] // 2
    mean, square = ({name: np.zeros_like(w) for name, w in weights.items()} for _ in range(2))
    losses: list[float] = []
    for step in range(params.epochs):
        # The same entries are hidden at all visits of a hip, or the change would show them.
        kept = (rng.random((hips, n_features)) >= params.input_dropout) / (1 - params.input_dropout)
        mask = np.column_stack([kept, kept, np.ones(hips)]).astype(np.float32)
        loss, gradient = loss_and_gradient(weights, batch, batch.inputs * mask, params.weight_decay)
        losses.append(loss)
        # Adam (Kingma & Ba 2015); its rate falls over the second half.
        rate = params.learning_rate * min(1.0, 2 * (1 - step / params.epochs))
        for name, slope in gradient.items():
            mean[name] += 0.1 * (slope - mean[name])
            square[name] += 0.001 * (slope**2 - square[name])
            root = np.sqrt(square[name] / (1 - 0.999 ** (step + 1))) + 1e-8
            weights[name] -= rate / (1 - 0.9 ** (step + 1)) * mean[name] / root
    residual.load_state_dict({name: torch.from_numpy(w).double() for name, w in weights.items()})
    residual.eval()
    return losses


def loss_and_gradient(
    weights: dict[str, Single], batch: Batch, inputs: Single, decay: float
) -> tuple[float, dict[str, Single]]:
    """Mean cross-entropy of the seen intervals, and the slope of it and of the penalty by each weight of Residual.

    What holds a small cohort back is a small head: the LSTM's own weights need no decay.
    """
    by_input, by_hidden, head = weights["cell.weight_ih"], weights["cell.weight_hh"], weights["head.weight"][0]
    softened = np.logaddexp(np.float32(0), weights["fade"])
    fade = np.exp(-softened * batch.years)
    given = inputs @ by_input.T + (weights["cell.bias_ih"] + weights["cell.bias_hh"])
    visits = list(_forward(given, fade, by_hidden))
    hidden = np.stack([visit.hidden for visit in visits])
    eta = batch.offset + (hidden @ head)[:, :, None]
    total = batch.seen.sum()
    loss = float((batch.seen * (np.logaddexp(np.float32(0), eta) - batch.event * eta)).sum() / total)
    slope = (batch.seen * (1 / (1 + np.exp(-eta)) - batch.event)).sum(axis=2) / total
    gates, faded = np.empty_like(given), np.empty_like(fade)
    recurrent = np.zeros_like(by_hidden)
    d_hidden = d_memory = np.zeros_like(hidden[0])
    for t in reversed(range(len(visits))):
        one = visits[t]
        i, f, g, o = one.gates
        d_hidden = d_hidden + slope[t][:, None] * head
        d_memory = d_memory + d_hidden * o * (1 - one.bent**2)
        gates[t] = np.concatenate(
            [d_memory * g * i * (1 - i), d_memory * one.kept * f * (1 - f), d_memory * i * (1 - g**2),
             d_hidden * one.bent * o * (1 - o)], axis=1,
        )  # fmt: skip
        recurrent += gates[t].T @ one.before
        d_kept = d_memory * f
        faded[t] = d_kept * one.memory_before
        d_hidden, d_memory = gates[t] @ by_hidden, d_kept * fade[t]
    flat = gates.reshape(-1, gates.shape[2])
    bias = flat.sum(axis=0)
    by_fade = -(faded * fade * batch.years).sum(axis=(0, 1)) / (1 + np.exp(-weights["fade"]))
    by_head = np.einsum("th,thu->u", slope, hidden) + 2 * decay * head
    return loss, {
        "cell.weight_ih": flat.T @ inputs.reshape(len(flat), -1), "cell.weight_hh": recurrent, "cell.bias_ih": bias,
        "cell.bias_hh": bias, "fade": by_fade, "head.weight": by_head[None],
    }  # fmt: skip


@dataclass(frozen=True)
class _Visit:
    """One step: hidden state and faded memory before it, the gates, tanh of the memory after it, the hidden state."""

    before: Single
    memory_before: Single
    kept: Single
    gates: tuple[Single, Single, Single, Single]
    bent: Single
    hidden: Single


def _forward(given: Single, fade: Single, by_hidden: Single) -> Iterator[_Visit]:
    units = by_hidden.shape[1]
    hidden = memory = np.zeros((given.shape[1], units), np.float32)
    for t in range(len(given)):
        sums = given[t] + hidden @ by_hidden.T
        open_ = 1 / (1 + np.exp(-sums))
        i, f, o = open_[:, :units], open_[:, units : 2 * units], open_[:, 3 * units :]
        g = np.tanh(sums[:, 2 * units : 3 * units])
        kept = memory * fade[t]
        after = f * kept + i * g
        bent = np.tanh(after)
        yield _Visit(hidden, memory, kept, (i, f, g, o), bent, o * bent)
        hidden, memory = o * bent, after
