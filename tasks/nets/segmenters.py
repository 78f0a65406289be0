"""Segmentation networks: (B, C, H, W) -> logits (B, classes, H, W).

The last channel is each pixel's distance from the centre of the femoral head, which the grid is laid around: bright
lines are vessels of the head inside it, and fascia or fluid outside.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tasks.nets.backbones import Pyramid, fix_batchnorm


class HipSegmenter(nn.Module):
    """LR-ASPP (Howard 2019) on MobileNetV3: head and lesion, one sigmoid each (a lesion lies inside a head).

    Beside the stride 8 skip of LR-ASPP there is one at stride 2: at 0.8 mm pixels a stride of 8 is 6.4 mm, coarser than
    the contour of a lesion.
    """

    def __init__(self, name: str, channels: int, classes: int, deepest: int, width: int) -> None:
        super().__init__()
        self.pyramid = Pyramid(name, channels, deepest)
        high = self.pyramid.widths[-1]
        self.reduce = nn.Sequential(nn.Conv2d(high, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.scale = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(high, width, 1, bias=False), nn.Sigmoid())
        self.high = nn.Conv2d(width, classes, 1)
        self.middle = nn.Conv2d(self.pyramid.widths[2], classes, 1)
        self.low = nn.Sequential(_separable(self.pyramid.widths[0] + classes, 16), nn.Conv2d(16, classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        fine, _, middle, *_, coarse = self.pyramid(x)
        context = _to(self.reduce(coarse) * self.scale(coarse), middle)
        logits = _to(self.high(context) + self.middle(middle), fine)
        logits = logits + self.low(torch.cat([fine, logits], 1))
        return _to(logits, x)


class VesselNet(nn.Module):
    """A U-Net that keeps full resolution: vessels are one or two pixels wide.

    A slab of neighbouring slices goes in as channels, and the masks of its `classes` middle slices come out, so that
    one pass labels several slices. Two convolutions at full resolution stand beside MobileNetV3 from stride 2 down.
    """

    def __init__(self, name: str, channels: int, classes: int, deepest: int, width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(_conv(channels, width), _conv(width, width))
        self.pyramid = Pyramid(name, channels, deepest)
        widths = self.pyramid.widths
        self.up = nn.ModuleList()
        below = widths[-1]
        for skip in reversed(widths[:-1]):
            self.up.append(_separable(below + skip, max(width, skip)))
            below = max(width, skip)
        self.last = nn.Sequential(_conv(below + width, width), nn.Conv2d(width, classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        full = self.stem(x)
        *skips, deep = self.pyramid(x)
        for up, skip in zip(self.up, reversed(skips), strict=True):
            deep = up(torch.cat([_to(deep, skip), skip], 1))
        return self.last(torch.cat([_to(deep, full), full], 1))


def _to(x: Tensor, like: Tensor) -> Tensor:
    if x.shape[-2:] == like.shape[-2:]:
        return x
    return functional.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


def _conv(inside: int, outside: int) -> nn.Sequential:
    block = nn.Sequential(nn.Conv2d(inside, outside, 3, padding=1, bias=False), nn.BatchNorm2d(outside), nn.ReLU())
    fix_batchnorm(block)
    return block


def _separable(inside: int, outside: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inside, inside, 3, padding=1, groups=inside, bias=False),
        nn.Conv2d(inside, outside, 1, bias=False),
        nn.BatchNorm2d(outside),
        nn.ReLU(),
    )
