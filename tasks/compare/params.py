"""Section `compare` of params.yaml."""

from __future__ import annotations

from tasks.domain.params import Section
from tasks.training.recipe import Augment, Pretrained, Recipe


class Params(Section):
    networks: list[str]
    """torchvision names; one result file each."""
    pretrained: dict[str, Pretrained]
    """Network -> weights; a network that is not named starts at random."""
    size_px: int
    """Side of the square that a slice is resized to."""
    slices: int
    """Slices taken of each hip-visit, evenly over those that show the head; 0: all of them."""
    min_head_mm2: float
    """A slice shows the head where its mask has at least this area."""
    min_lesion_mm2: float
    """A slice has a lesion where its mask has at least this area; a smaller one is neither, and is left out."""
    reach_mm: float
    """Where nobody drew a head, slices this near its centre are taken."""
    dropout: float
    balance: bool
    """Weigh lesion slices so that both classes count the same in the loss."""
    seeds: list[int]
    """One fit for each seed and fold; the mean probability counts."""
    top_slices: int
    """A hip-visit's score is the mean of its highest so many slices."""
    threshold: float
    """Probability from which a slice, hip-visit or patient is called a lesion: fixed beforehand."""
    bootstrap: int
    """Resamples of patients behind each interval."""
    recipe: Recipe
    augment: Augment
