"""Losses that pass over what nobody labelled: a NaN target, or a mask that is not known, adds nothing."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def binary(logit: Tensor, target: Tensor, positive: float = 1.0) -> Tensor:
    """Mean cross-entropy over the targets that are not NaN; ones count `positive` times."""
    known = torch.isfinite(target)
    wanted = torch.where(known, target, torch.zeros_like(target))
    weight = logit.new_tensor(positive)
    each = functional.binary_cross_entropy_with_logits(logit.float(), wanted, pos_weight=weight, reduction="none")
    return _mean(each, known)


def ordinal(logits: Tensor, level: Tensor) -> Tensor:
    """CORAL: logits (B, K) of 'more than level k', level (B,) in 0..K or NaN."""
    steps = torch.arange(logits.shape[1], device=logits.device)
    above = (level[:, None] > steps).float()
    return binary(logits, torch.where(torch.isfinite(level)[:, None], above, level[:, None]))


def number(predicted: Tensor, target: Tensor) -> Tensor:
    """Smooth L1 over the targets that are not NaN."""
    known = torch.isfinite(target)
    wanted = torch.where(known, target, torch.zeros_like(target))
    return _mean(functional.smooth_l1_loss(predicted.float(), wanted, reduction="none", beta=0.3), known)


def soft_dice(logits: Tensor, masks: Tensor, known: Tensor) -> Tensor:
    """1 - Dice of each class over the whole batch. logits, masks (B, L, H, W); known (B, L)."""
    weight = known[:, :, None, None]
    share = torch.sigmoid(logits.float()) * weight
    both = (share * masks).sum((0, 2, 3))
    total = (share + masks * weight).sum((0, 2, 3))
    return _mean(1 - (2 * both + 1) / (total + 1), known.sum(0) > 0)


def pixels(logits: Tensor, masks: Tensor, known: Tensor, positive: float = 1.0) -> Tensor:
    """Mean cross-entropy over the pixels of known masks."""
    weight = logits.new_tensor(positive)
    each = functional.binary_cross_entropy_with_logits(logits.float(), masks, pos_weight=weight, reduction="none")
    return _mean(each.mean((2, 3)), known > 0)


def soft_cldice(logits: Tensor, masks: Tensor, known: Tensor, steps: int) -> Tensor:
    """1 - clDice (Shit 2021): overlap of each skeleton with the other mask, which keeps thin vessels in one piece.

    Where the predicted skeleton lies is taken as given and its pixels carry the gradient: that of the skeleton itself
    costs more than the rest of a step.
    """
    weight = known[:, :, None, None]
    share, wanted = torch.sigmoid(logits.float()) * weight, masks * weight
    with torch.no_grad():
        wanted_thin, place = skeleton(wanted, steps), skeleton(share, steps) / share.clamp_min(1e-3)
    thin = place * share
    precision = ((thin * wanted).sum() + 1) / (thin.sum() + 1)
    recall = ((wanted_thin * share).sum() + 1) / (wanted_thin.sum() + 1)
    return 1 - 2 * precision * recall / (precision + recall)


def skeleton(masks: Tensor, steps: int) -> Tensor:
    """Soft skeleton by repeated opening. masks (B, L, H, W), 0..1; what is thicker than 2 x steps + 1 stays whole."""
    thin = functional.relu(masks - _dilate(_erode(masks)))
    for _ in range(steps):
        masks = _erode(masks)
        extra = functional.relu(masks - _dilate(_erode(masks)))
        thin = thin + functional.relu(extra - thin * extra)
    return thin


# Pooling by 3 as minima and maxima of shifted views: several times faster on CPU than max_pool2d.


def _erode(x: Tensor) -> Tensor:
    """The least of a pixel and its four neighbours."""
    wide = functional.pad(x, (1, 1, 1, 1), value=1.0)
    rows = torch.minimum(wide[..., :-2, 1:-1], wide[..., 2:, 1:-1])
    columns = torch.minimum(wide[..., 1:-1, :-2], wide[..., 1:-1, 2:])
    return torch.minimum(x, torch.minimum(rows, columns))


def _dilate(x: Tensor) -> Tensor:
    """The greatest of a pixel and its eight neighbours."""
    tall = functional.pad(x, (0, 0, 1, 1))
    x = torch.maximum(x, torch.maximum(tall[..., :-2, :], tall[..., 2:, :]))
    wide = functional.pad(x, (1, 1, 0, 0))
    return torch.maximum(x, torch.maximum(wide[..., :-2], wide[..., 2:]))


def _mean(each: Tensor, known: Tensor) -> Tensor:
    weight = known.to(each.dtype)
    return (each * weight).sum() / weight.sum().clamp_min(1)
