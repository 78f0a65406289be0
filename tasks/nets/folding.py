"""A network for reading alone: each BatchNorm goes into the convolution before it.

In evaluation a BatchNorm is a scale and a shift of each channel, and so are the weights and the bias of a convolution.
Folded, a pass reads and writes one feature map less for each pair; results differ by rounding only.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import pairwise

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.densenet import _DenseLayer
from torchvision.models.resnet import BasicBlock, Bottleneck

_PAIRS: dict[type[nn.Module], tuple[tuple[str, str], ...]] = {
    BasicBlock: (("conv1", "bn1"), ("conv2", "bn2")),
    Bottleneck: (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3")),
    _DenseLayer: (("conv1", "norm2"),),
}
"""Convolution and the BatchNorm that follows it, in blocks whose order is in their code."""


def folded(model: nn.Module) -> nn.Module:
    """A copy of `model` that gives the same in evaluation, sooner, and cannot be trained."""
    model = copy.deepcopy(model).eval().requires_grad_(False)
    for block in list(model.modules()):
        for before, after in _pairs(block):
            conv, norm = getattr(block, before), getattr(block, after)
            if type(conv) is nn.Conv2d and type(norm) is nn.BatchNorm2d and norm.track_running_stats:
                setattr(block, before, fuse_conv_bn_eval(conv, norm))
                setattr(block, after, nn.Identity())
    return model


def _pairs(block: nn.Module) -> Iterator[tuple[str, str]]:
    if type(block).forward is nn.Sequential.forward:
        names = list(block._modules)
        yield from pairwise(names)
    yield from _PAIRS.get(type(block), ())
