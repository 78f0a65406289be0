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
    """1 - clDice (Shit 2021): overlap of each skeleton with the other mask, which keeps thin vessels in one piece."""
    weight = known[:, :, None, None]
    share, wanted = torch.sigmoid(logits.float()) * weight, masks * weight
    thin, wanted_thin = skeleton(share, steps), skeleton(wanted, steps)
    precision = ((thin * wanted).sum() + 1) / (thin.sum() + 1)
    recall = ((wanted_thin * share).sum() + 1) / (wanted_thin.sum() + 1)
    return 1 - 2 * precision * recall / (precision + recall)


def skeleton(masks: Tensor, steps: int) -> Tensor:
    """Soft skeleton by repeated opening. masks (B, L, H, W) or (B, L, D, H, W), 0..1; thinner than 2 x steps + 1."""
    flat = masks.ndim == 4
    pool = functional.max_pool2d if flat else functional.max_pool3d
    lines = ((3, 1), (1, 3)) if flat else ((3, 1, 1), (1, 3, 1), (1, 1, 3))

    def erode(x: Tensor) -> Tensor:
        slim = [-pool(-x, line, 1, [n // 2 for n in line]) for line in lines]
        return torch.stack(slim).amin(0)

    def opened(x: Tensor) -> Tensor:
        return pool(erode(x), 3, 1, 1)

    thin = functional.relu(masks - opened(masks))
    for _ in range(steps):
        masks = erode(masks)
        extra = functional.relu(masks - opened(masks))
        thin = thin + functional.relu(extra - thin * extra)
    return thin


def _mean(each: Tensor, known: Tensor) -> Tensor:
    weight = known.to(each.dtype)
    return (each * weight).sum() / weight.sum().clamp_min(1)
