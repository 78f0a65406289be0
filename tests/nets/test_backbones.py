"""Any torchvision network by name becomes a feature extractor that small cohorts survive."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from tasks.domain.errors import WrongUse
from tasks.nets.backbones import BATCHNORM_MOMENTUM, Pyramid, backbone, mmacs, parameters, strip, whole

TEN = {
    "mobilenet_v3_large": 960, "mobilenet_v3_small": 576, "mobilenet_v2": 1280, "shufflenet_v2_x1_0": 1024,
    "efficientnet_b0": 1280, "resnet18": 512, "resnet50": 2048, "densenet121": 1024, "densenet201": 1920,
    "convnext_tiny": 768,
}  # fmt: skip


@pytest.mark.parametrize("name", TEN)
def test_each_of_the_ten_networks_gives_feature_maps_and_no_classifier(name: str) -> None:
    features, width = backbone(name, channels=3)
    assert width == TEN[name]
    assert not any(isinstance(layer, nn.Linear) and layer.out_features == 1000 for layer in features.modules())
    momenta = {layer.momentum for layer in features.modules() if isinstance(layer, nn.BatchNorm2d)}
    assert momenta <= {BATCHNORM_MOMENTUM}


@pytest.mark.parametrize("name", ["densenet121", "resnet18", "shufflenet_v2_x1_0"])
def test_features_are_those_that_the_whole_network_classifies_from(name: str) -> None:
    torch.manual_seed(0)
    model = whole(name).eval()
    images = torch.rand(2, 3, 64, 64)
    last = model.classifier if name == "densenet121" else model.fc
    with torch.no_grad():
        torch.testing.assert_close(last(strip(model)(images).mean((2, 3))), model(images))


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_other_numbers_of_channels(channels: int) -> None:
    features, width = backbone("mobilenet_v3_small", channels)
    assert features.eval()(torch.zeros(1, channels, 64, 64)).shape[1] == width


def test_local_weights_are_used_and_averaged_over_colours(tmp_path: Path) -> None:
    model = whole("mobilenet_v3_small")
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    features, _ = backbone("mobilenet_v3_small", 3, tmp_path / "w.safetensors")
    torch.testing.assert_close(features[0][0].weight, model.features[0][0].weight)
    two, _ = backbone("mobilenet_v3_small", 2, tmp_path / "w.safetensors")
    grey = torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(
            two[0][0](grey.expand(-1, 2, -1, -1)).sum(), features[0][0](grey.expand(-1, 3, -1, -1)).sum()
        )


def test_what_cannot_be_used_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match="no network 'nonsense'"):
        backbone("nonsense")
    with pytest.raises(WrongUse, match="feature maps"):
        backbone("vit_b_16")
    with pytest.raises(WrongUse, match="pickle"):
        backbone("resnet18", weights=tmp_path / "resnet18.pth")
    save_file({"conv1.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(WrongUse, match="does not fit"):
        backbone("resnet18", weights=tmp_path / "other.safetensors")


def test_costs_are_those_of_the_literature() -> None:
    assert mmacs(whole("mobilenet_v3_large"), 3, 224) == pytest.approx(217, abs=4)
    assert parameters(whole("mobilenet_v3_large")) == 5_483_032


def test_pyramid_gives_the_last_map_of_each_stride() -> None:
    pyramid = Pyramid("mobilenet_v3_large", 3, deepest=16)
    maps = pyramid.eval()(torch.zeros(1, 3, 64, 64))
    assert [64 // x.shape[-1] for x in maps] == pyramid.strides == [2, 4, 8, 16]
    assert [x.shape[1] for x in maps] == pyramid.widths


def _eval_accuracy_after_a_short_fit(momentum: float) -> float:
    """Bright square above or below the middle, a few dozen steps: what a small cohort affords."""
    torch.manual_seed(0)
    features, width = backbone("mobilenet_v3_small", 1)
    for layer in features.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = momentum
    model = nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 1))

    def batch(n: int) -> tuple[torch.Tensor, torch.Tensor]:
        y = (torch.arange(n) % 2).float()
        images = 0.3 * torch.rand(n, 1, 32, 32) + 0.5
        images[y == 1, :, 8:24, 8:24] += 0.5
        return images, y

    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(60):
        images, y = batch(16)
        loss = functional.binary_cross_entropy_with_logits(model(images)[:, 0], y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.2, "the task is learnt in training mode either way"
    images, y = batch(64)
    with torch.no_grad():
        return float(((model.eval()(images)[:, 0] > 0).float() == y).float().mean())


def test_evaluation_survives_a_short_fit_where_torchvisions_momentum_collapses() -> None:
    assert _eval_accuracy_after_a_short_fit(BATCHNORM_MOMENTUM) >= 0.9
    assert _eval_accuracy_after_a_short_fit(0.01) <= 0.6, "with 0.01 all images get one class: the trap is real"
