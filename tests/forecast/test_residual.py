"""The residual's gradient, written out in numpy, is torch's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tasks.forecast.residual import Batch, loss_and_gradient
from tasks.nets.forecaster import Residual


@pytest.mark.parametrize("steps", [1, 4])
def test_loss_and_gradient_are_those_of_torch(steps: int) -> None:
    hips, features, units, intervals = 7, 5, 3, 4
    rng = np.random.default_rng(steps)
    torch.manual_seed(steps)
    residual = Residual(features, units)
    with torch.no_grad():
        residual.head.weight.normal_()
        residual.fade.normal_()
    x, change = rng.normal(size=(2, steps, hips, features))
    years = rng.uniform(0, 2, (steps, hips, 1))
    offset = rng.normal(size=(steps, hips, intervals))
    seen, event = (rng.random((2, steps, hips, intervals)) < 0.5).astype(float)
    state, loss = residual.start(hips), torch.zeros(1, dtype=torch.float64)
    for t in range(steps):
        tensors = [torch.from_numpy(part[t]) for part in (x, change, years)]
        correction, state = residual.step(state, *tensors)
        eta = torch.from_numpy(offset[t]) + correction[:, None]
        each = torch.nn.functional.binary_cross_entropy_with_logits(eta, torch.from_numpy(event[t]), reduction="none")
        loss = loss + (torch.from_numpy(seen[t]) * each).sum() / seen.sum()
    (loss + 0.1 * (residual.head.weight**2).sum()).backward()
    weights = {name: value.numpy() for name, value in residual.state_dict().items()}
    inputs = np.concatenate([x, change, np.log1p(years)], axis=2)
    found, gradient = loss_and_gradient(weights, Batch(inputs, years, offset, seen, event), inputs, 0.1)
    assert found == pytest.approx(loss.item(), rel=1e-9)
    for name, parameter in residual.named_parameters():
        assert parameter.grad is not None
        assert gradient[name] == pytest.approx(parameter.grad.numpy(), rel=1e-6, abs=1e-9), name
