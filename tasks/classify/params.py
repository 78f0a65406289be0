"""Section `classify` of params.yaml."""

from __future__ import annotations

from tasks.domain.params import Section
from tasks.training.recipe import Augment, Pretrained, Recipe


class Weights(Section):
    """How much each part counts in the loss."""

    slice: float
    """Is there a lesion on this slice?"""
    cells: float
    """Share of head and lesion in each cell of the grid."""
    lesion: float
    ordinal: float
    """Stage and JIC type."""
    number: float
    """Angles, collapse, lesion fraction, oedema: each in its own scale (tasks.nets.encoder.SCALE)."""


class Params(Section):
    network: str
    """torchvision name of the backbone."""
    pretrained: Pretrained | None
    """Weights of the backbone for a cold start; null: random."""
    size_px: int
    """Side of the square that a slice is resized to."""
    slices: int
    """Slices of a hip-visit in one training step, drawn anew each time; all in reach are read afterwards."""
    reach_mm: float
    """Slices within this of the head's centre are read."""
    min_lesion_mm2: float
    """A slice has a lesion where its mask has at least this area; a smaller one is neither."""
    reduced: int
    """Channels kept in each cell of the grid."""
    width: int
    """Length of the slice vector."""
    dropout: float
    balance: bool
    """Weigh lesion slices so that both classes count the same."""
    uncertainty_subsets: int
    """Interleaved subsets of slices whose spread gives each feature its standard error; below 2: none."""
    warm_start: bool
    """Start from the previous run's network of the same fold, where it is of the same architecture."""
    warm_epochs: int
    """Epochs after a warm start, in place of recipe.epochs."""
    bootstrap: int
    """Resamples of patients behind each interval of the report."""
    weights: Weights
    recipe: Recipe
    augment: Augment
