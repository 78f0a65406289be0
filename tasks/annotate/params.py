"""Parameters of the stage annotate."""

from __future__ import annotations

from typing import Literal

from tasks.domain.params import Section

Method = Literal["mean", "majority", "union", "intersection", "staple", "adjudicator"]
"""How several readers' masks become one: mean of their signed distances, more than half of the voxels' votes, union,
intersection, STAPLE (Warfield 2004), or by whoever decides between them."""


class Consensus(Section):
    """An adjudicator's word is always the last. `adjudicator` means that where readers differ there is no other: until
    it is spoken, the label or mask has no consensus and is not trained on."""

    head: Method
    lesion: Method
    vessel: Method
    stage: Literal["majority", "adjudicator"]
    """Of labels with an order; of a tie, the more severe."""
    measurement: Literal["median", "mean", "adjudicator"]


class Agreement(Section):
    bootstrap: int
    """Resamples of patients for the 95% intervals."""
    seed: int
    min_hips: int
    """Floors apply from this many hip-visits that two readers judged."""
    floors: dict[str, float]
    """Label or mask -> least agreement (weighted kappa, ICC(2,1) or Dice); below it the stage refuses (exit 3)."""
    differ: dict[str, float]
    """What is listed for adjudication: measurements that differ by more, masks of a lower Dice. Stages
    that differ always are."""


class Derived(Section):
    from_masks: list[Literal["kerboul_coronal_deg", "kerboul_sagittal_deg", "necrotic_index", "lesion_fraction"]]
    """Computed from the consensus masks of head and lesion where no reader gave them."""
    convert_to: list[Literal["arco", "ficat", "steinberg"]]
    """Staging systems that are filled from the others where no reader used them and the conversion is defined."""


class Params(Section):
    window_days: float
    """A label with a date belongs to the visit that is nearest, at most this many days away."""
    field_mm: float
    """A mask whose middle is further than this from a femoral head's centre is not of that hip."""
    head_offset_mm: float
    """The middle of a drawn head may be this far from the localized centre."""
    grid_tolerance_mm: float
    """A NIfTI or NRRD mask must lie on its series' grid within this distance."""
    consensus: Consensus
    derived: Derived
    agreement: Agreement
