"""A folded network says the same with fewer layers, and the network that it was made of stays as it was."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tasks.nets.encoder import SliceClassifier
from tasks.nets.folding import folded
from tasks.nets.segmenters import HipSegmenter, VesselNet


def lived(model: nn.Module) -> nn.Module:
    """With statistics and scales that are not those of a new network, in double precision."""
    generator = torch.Generator().manual_seed(3)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor, low in ((layer.weight, 0.5), (layer.bias, -0.3), (layer.running_mean, -0.3)):
                assert tensor is not None
                tensor.data = low + torch.rand(tensor.shape, generator=generator)
            layer.running_var = 0.5 + torch.rand(layer.num_features, generator=generator)
    return model.double().eval()


def norms(model: nn.Module) -> int:
    return sum(isinstance(layer, nn.BatchNorm2d) for layer in model.modules())


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("mobilenet_v3_small", 0),
        ("shufflenet_v2_x1_0", 0),
        ("resnet18", 0),
        ("efficientnet_b0", 0),
        ("densenet121", 62),
    ],
)
def test_every_network_says_the_same_when_folded(name: str, left: int) -> None:
    """DenseNet has most of its BatchNorm before its convolutions: that stays."""
    torch.manual_seed(0)
    model = lived(SliceClassifier(name, 3, 0.2))
    images, state = torch.rand(2, 3, 48, 48).double(), {k: v.clone() for k, v in model.state_dict().items()}
    short = folded(model)
    with torch.no_grad():
        torch.testing.assert_close(short(images), model(images), rtol=1e-8, atol=1e-10)
    assert norms(short) == left < norms(model) and not any(p.requires_grad for p in short.parameters())
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    "model",
    [HipSegmenter("mobilenet_v3_small", 4, 2, 16, 32), VesselNet("mobilenet_v3_small", 7, 4, 8, 8)],
    ids=["hip", "vessel"],
)
def test_segmenters_too(model: nn.Module) -> None:
    images = torch.rand(1, next(model.parameters()).shape[1], 32, 32).double()
    short = folded(lived(model))
    with torch.no_grad():
        torch.testing.assert_close(short(images), model(images), rtol=1e-8, atol=1e-10)
    assert norms(short) == 0 < norms(model)


def test_a_convolution_that_something_else_follows_is_left_alone() -> None:
    """The negative control: only neighbours fold."""
    model = lived(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4)))
    images = torch.rand(1, 3, 4, 4).double()
    assert norms(folded(model)) == 1
    torch.testing.assert_close(folded(model)(images), model(images), rtol=1e-10, atol=1e-12)
