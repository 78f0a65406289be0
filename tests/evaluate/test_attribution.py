"""Grad-CAM of the encoder: it finds what decides, changes with the weights, and says where it lies."""

from __future__ import annotations

import json
from pathlib import Path

import hip_cohort
import numpy as np
import pytest
import torch
from small_params import small
from torch import nn

from tasks.classify.__main__ import main
from tasks.evaluate import attribution
from tasks.nets.encoder import VisitEncoder


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("attribution")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        hip_cohort.make(folder, patients=5, visits=1)
        main([], small(), map)
    return folder


def test_each_hip_is_explained_by_the_network_that_did_not_see_its_patient(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace)
    attribution.write(4, 100, Path("out"))
    found = json.loads(Path("out/attribution.json").read_text())
    assert found["n"] == found["n_patients"] == 4 and not found["reason"]
    assert 0 <= found["inside_low"] <= found["inside"] <= found["inside_high"] <= 1 and 0 < found["head_share"] < 1
    assert found["sane"] is not None and -1 <= found["like_random"] <= 1
    picture = Path("out/attribution.svg").read_text()
    assert picture.count("data:image/png") == 4 and "research use only" in picture.lower()


class Bright(nn.Module):
    """A backbone that answers to brightness, in cells of four pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pool(x)


def test_the_map_lies_where_the_answer_comes_from() -> None:
    net = VisitEncoder("mobilenet_v3_small", 3, 0.0, 3, 8).eval()
    net.features = nn.Sequential(Bright())
    asked = lambda self, slices, where: {"lesion": self.features(slices[0])[:, 0].sum()[None, None]}  # noqa: E731
    images = torch.zeros(1, 2, 3, 32, 32)
    images[0, 1, 0, 8:12, 20:24] = 1.0
    images[0, 1, 1, 24:28, 4:8] = 2.0  # brighter, and nothing that is asked for
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VisitEncoder, "forward", asked)
        found, logit = attribution._map(net, images, torch.zeros(1, 2))
    assert found.shape == (2, 32, 32) and logit == pytest.approx(1.0)
    place, row, column = np.unravel_index(int(found.argmax()), found.shape)
    assert place == 1 and 8 <= row < 12 and 20 <= column < 24 and float(found.max()) > 0
    assert float(found[0].max()) == 0 and float(found[1, 24:28, 4:8].max()) == 0


def test_without_an_encoder_the_file_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    attribution.write(4, 100, Path("out"))
    found = json.loads(Path("out/attribution.json").read_text())
    assert found["n"] == 0 and "models/classify is not there" in found["reason"] and found["inside"] is None
