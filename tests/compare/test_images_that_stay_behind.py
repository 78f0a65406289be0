"""Images that would fill the accelerator stay where they are; what is asked of them is asked on the network's side."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from tasks.compare.fold import predict
from tasks.training import data


def test_slices_are_asked_for_on_the_device_of_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    away = torch.empty(2, 3, 4, 8, 8, dtype=torch.int16, device="meta")
    known = torch.ones(2, 3)
    stack = data.Stack(away, known, 0 * known, known, (1.0, 1.0, 1.0))

    def taken(images: Tensor, visit: Tensor, slices: Tensor) -> Tensor:
        assert images is away
        return torch.ones(*slices.shape, 3, 8, 8, dtype=torch.int16, device=visit.device)

    monkeypatch.setattr(data, "_taken", taken)
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 1), nn.Flatten(0))
    assert np.isfinite(predict(net, stack, pd.DataFrame({"visit": [0, 1, 1], "slice": [0, 3, 1]}), 2)).all()
