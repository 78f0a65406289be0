"""Random change of images and their masks on the device. Never a flip: hips are mirrored so that +x is lateral."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor
from torch.nn import functional

from tasks.training.recipe import Augment


def augment(
    images: Tensor,
    how: Augment,
    generator: Generator,
    masks: Tensor | None = None,
    together: bool = False,
    crop: int = 0,
) -> tuple[Tensor, Tensor]:
    """images (B, C, H, W) float, masks (B, L, H, W) or None -> both changed; masks come back as shares 0..1.

    `together`: channels are slices of one sequence, so their intensities change alike. `crop`: side in pixels of the
    square that is cut out somewhere; 0: the whole image.
    """
    count, channels = images.shape[:2]
    if masks is None:
        masks = images.new_zeros(count, 0, *images.shape[2:])
    both = torch.cat([images, masks.to(images.dtype)], 1) if masks.shape[1] else images
    both = _affine(both, how, generator, crop)
    return intensity(both[:, :channels], how, generator, together), both[:, channels:]


def _uniform(shape: tuple[int, ...], like: Tensor, generator: Generator) -> Tensor:
    """In [-1, 1)."""
    return torch.rand(shape, generator=generator, device=like.device) * 2 - 1


def _affine(images: Tensor, how: Augment, generator: Generator, crop: int) -> Tensor:
    if not (how.rotate_deg or how.scale or how.shift or crop):
        return images
    draw = _uniform((len(images), 4), images, generator)
    angle, zoom = draw[:, 0] * math.radians(how.rotate_deg), 1 + draw[:, 1] * how.scale
    rows, columns = images.shape[2:]
    part = torch.tensor([min(1.0, crop / columns), min(1.0, crop / rows)] if crop else [1.0, 1.0], device=images.device)
    cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    shift = draw[:, 2:] * (2 * how.shift + 1 - part)
    turn = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1) * part
    # affine_grid as sums of a row and a column: its product of matrices costs a CPU as much as half the sampling.
    down, along = (_centres(min(crop, side) or side, images.device) for side in (rows, columns))
    grid = turn[:, :, :1, None] * along + (turn[:, :, 1:, None] * down[:, None] + shift[..., None, None])
    grid = grid.permute(0, 2, 3, 1)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _centres(count: int, device: torch.device) -> Tensor:
    """Centres of `count` pixels that share the side from -1 to 1."""
    return (torch.arange(count, device=device) * 2 + 1) / count - 1


def intensity(images: Tensor, how: Augment, generator: Generator, together: bool) -> Tensor:
    """Gain, exponent and noise of each channel; a channel that is missing (all zero) stays so."""
    shape = (images.shape[0], 1 if together else images.shape[1], 1, 1)
    here = ((images.amax((-2, -1), True) > 0) | (images.amin((-2, -1), True) < 0)).to(images.dtype)
    if how.gamma:
        out = images.clamp_min(1e-4).pow_(1 + _uniform(shape, images, generator) * how.gamma)
    else:
        out = images.clone()
    if how.gain:
        out.mul_(1 + _uniform(shape, images, generator) * how.gain)
    if how.noise:
        noise = torch.empty_like(out, memory_format=torch.contiguous_format)
        out.add_(noise.normal_(generator=generator), alpha=how.noise)
    return out.mul_(here)


def drop_channels(present: Tensor, chance: float, generator: Generator) -> Tensor:
    """present (B, C) 0|1 -> (B, C): which channels to keep. Each goes with `chance`; at least one present one stays."""
    if not chance:
        return present
    draw = torch.rand(present.shape, generator=generator, device=present.device)
    kept = present * (draw >= chance)
    last = functional.one_hot((present * (draw + 1)).argmax(1), present.shape[1]).to(present.dtype) * present
    return torch.where(kept.sum(1, keepdim=True) > 0, kept, last)
