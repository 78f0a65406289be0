"""Any torchvision network by name as a feature extractor."""

from __future__ import annotations

from pathlib import Path

import torch
import torchvision
from safetensors.torch import load_file
from torch import Tensor, nn

from tasks.domain.errors import WrongUse

BATCHNORM_MOMENTUM = 0.1
"""torchvision's MobileNetV3 sets 0.01: after the few hundred steps of a small cohort its running statistics are still
near their start, and evaluation calls every image the same class while the training loss looks fine."""

_CLASSIFIERS = ("classifier", "fc", "avgpool", "head", "heads", "aux1", "aux2", "AuxLogits")


def backbone(name: str, channels: int = 3, weights: Path | None = None) -> tuple[nn.Sequential, int]:
    """(features, width): torchvision's `name` up to its last feature map (B, width, h, w), and that width.

    `weights` is a local safetensors file with the state of the whole torchvision network. With `channels` other than
    three the first convolution is made anew; from pretrained weights it starts as their mean over colours.
    Raises WrongUse for an unknown name, a network without feature maps, or weights that do not fit.
    """
    features = strip(whole(name, weights))
    if channels != 3:
        _adapt_first_convolution(features, channels, mean=weights is not None)
    fix_batchnorm(features)
    return features, _width(name, features, channels)


def whole(name: str, weights: Path | None = None) -> nn.Module:
    """torchvision's `name` as it comes, with local `weights` if given. Never fetches anything."""
    try:
        model = torchvision.models.get_model(name, weights=None)
    except ValueError:
        raise WrongUse(f"torchvision has no network '{name}'; see torchvision.models.list_models()") from None
    if weights is not None:
        if weights.suffix != ".safetensors":
            raise WrongUse(f"{weights}: weights are read from .safetensors only (a .pth file is a pickle)")
        _load(model, load_file(weights), weights)
    return model


def strip(model: nn.Module) -> nn.Sequential:
    """The children of `model` in order, without pooling and classifier."""
    layers = [layer for key, layer in model.named_children() if key not in _CLASSIFIERS]
    if isinstance(model, torchvision.models.DenseNet):
        layers.append(nn.ReLU())  # DenseNet applies its last activation in forward()
    flat: list[nn.Module] = []
    for layer in layers:
        flat.extend(layer.children() if isinstance(layer, nn.Sequential) and len(layers) == 1 else [layer])
    return nn.Sequential(*flat)


def fix_batchnorm(model: nn.Module) -> None:
    for layer in model.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.momentum = BATCHNORM_MOMENTUM


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def mmacs(model: nn.Module, channels: int, size_px: int) -> float:
    """Millions of multiply-accumulates of convolutions and linear layers for one image of `size_px`."""
    total = 0

    def count(layer: nn.Module, _: object, output: Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.Conv2d):
            kernel = layer.kernel_size[0] * layer.kernel_size[1] * layer.in_channels // layer.groups
            total += output.numel() * kernel
        elif isinstance(layer, nn.Linear):
            total += output.numel() * layer.in_features

    hooks = [layer.register_forward_hook(count) for layer in model.modules()]
    training = model.training
    model.eval()
    with torch.no_grad():
        model(torch.zeros(1, channels, size_px, size_px))
    model.train(training)
    for hook in hooks:
        hook.remove()
    return total / 1e6


class Pyramid(nn.Module):
    """A network with `features` cut after `deepest` stride; forward gives the last map of each stride 2, 4, 8, ...

    widths: channels of these maps, shallow to deep. `dilated` (MobileNetV3 only) keeps stride 16 to the last layer.
    """

    def __init__(self, name: str, channels: int, deepest: int = 32, dilated: bool = False) -> None:
        super().__init__()
        options = {"dilated": True} if dilated else {}
        model = torchvision.models.get_model(name, weights=None, **options)
        if not hasattr(model, "features"):
            raise WrongUse(f"'{name}' has no stages to tap; take a MobileNet, EfficientNet or ConvNeXt")
        layers = strip(model)
        if channels != 3:
            _adapt_first_convolution(layers, channels, mean=False)
        fix_batchnorm(layers)
        strides, widths = _probe(layers, channels)
        keep = max(i for i, stride in enumerate(strides) if stride <= deepest)
        self.layers = nn.ModuleList(list(layers)[: keep + 1])
        self.taps = [i for i in range(keep + 1) if i == keep or strides[i + 1] != strides[i]]
        self.strides = [strides[i] for i in self.taps]
        self.widths = [widths[i] for i in self.taps]

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if i in self.taps:
                maps.append(x)
        return maps


def _probe(layers: nn.Sequential, channels: int, size: int = 64) -> tuple[list[int], list[int]]:
    strides, widths = [], []
    layers.eval()
    with torch.no_grad():
        x = torch.zeros(1, channels, size, size)
        for layer in layers:
            x = layer(x)
            strides.append(size // x.shape[-1])
            widths.append(x.shape[1])
    layers.train()
    return strides, widths


def _width(name: str, features: nn.Sequential, channels: int) -> int:
    features.eval()
    try:
        with torch.no_grad():
            out = features(torch.zeros(1, channels, 64, 64))
    except (RuntimeError, ValueError, AssertionError, TypeError):
        out = torch.zeros(0)
    features.train()
    if out.ndim != 4 or out.shape[1] < out.shape[-1]:
        raise WrongUse(f"'{name}' gives no feature maps (B, width, h, w) at 64 pixels; take a convolutional network")
    return int(out.shape[1])


def _load(model: nn.Module, state: dict[str, Tensor], source: Path) -> None:
    wanted = model.state_dict()
    needed = [key for key in wanted if key.split(".")[0] not in _CLASSIFIERS]
    bad = [key for key in needed if key not in state or state[key].shape != wanted[key].shape]
    if bad:
        raise WrongUse(f"{source} does not fit this network: {len(bad)} tensors differ, the first is {bad[0]}")
    model.load_state_dict({key: state[key] for key in needed}, strict=False)


def _adapt_first_convolution(features: nn.Module, channels: int, mean: bool) -> None:
    for parent in features.modules():
        for key, layer in parent.named_children():
            if isinstance(layer, nn.Conv2d):
                new = nn.Conv2d(
                    channels,
                    layer.out_channels,
                    layer.kernel_size,  # type: ignore[arg-type]
                    layer.stride,  # type: ignore[arg-type]
                    layer.padding,  # type: ignore[arg-type]
                    bias=layer.bias is not None,
                )
                with torch.no_grad():
                    if mean:
                        scale = layer.in_channels / channels
                        new.weight.copy_(layer.weight.mean(1, keepdim=True).expand_as(new.weight) * scale)
                        if layer.bias is not None and new.bias is not None:
                            new.bias.copy_(layer.bias)
                    else:
                        nn.init.kaiming_normal_(new.weight, mode="fan_out")
                setattr(parent, key, new)
                return
