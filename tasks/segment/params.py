"""Section `segment` of params.yaml."""

from __future__ import annotations

from tasks.domain.params import Section
from tasks.training.recipe import Augment, Recipe


class HipNet(Section):
    """Head and lesion, slice by slice, on the visit grid."""

    size_px: int
    """Side of the square that a slice is resized to; masks come back on the grid."""
    deepest: int
    """Largest stride of the backbone that is used: 16 or 32."""
    width: int
    """Channels of the LR-ASPP head."""
    slices: int
    """Slices of a hip-visit in one training step, drawn anew each time."""
    dice: float
    """Weight of soft Dice beside cross-entropy."""
    threshold: float
    """Probability from which a voxel belongs to the mask."""
    warm_epochs: int
    """Epochs after a warm start, in place of recipe.epochs."""
    recipe: Recipe


class VesselNet(Section):
    """Vessels on the fine grid, some slices at once."""

    slab: int
    """Slices whose masks come out of one pass."""
    context: int
    """Slices seen on either side of these."""
    deepest: int
    width: int
    """Channels at full resolution."""
    crop_px: int
    """Side of the square of a slab that a training step looks at, somewhere in it; 0: the whole slab."""
    slabs: int
    """Slabs of a hip-visit in one training step, drawn anew each time."""
    where_vessels: float
    """Share of these slabs that are drawn where vessels are; the rest lie anywhere."""
    dice: float
    cldice: float
    """Weight of soft clDice, which keeps thin vessels in one piece; 0: none."""
    skeleton_steps: int
    """Erosions of the soft skeleton: half the thickest vessel, in voxels."""
    positive: float
    """How many times a vessel voxel counts in cross-entropy."""
    threshold: float
    margin_mm: float
    """Farther than this beyond where readers drew vessels, counted from the centre of the head, there are none."""
    warm_epochs: int
    recipe: Recipe


class Params(Section):
    network: str
    """torchvision name of the backbone of both."""
    hip: HipNet
    vessel: VesselNet
    warm_start: bool
    """Start from the previous run's network of the same fold, where it is of the same architecture."""
    bootstrap: int
    """Resamples of patients behind each interval of the report."""
    augment: Augment
