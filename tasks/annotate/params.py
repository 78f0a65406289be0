"""Parameters of the stage annotate."""

from __future__ import annotations

from typing import Literal

from tasks.domain.params import Section

Method = Literal["mean", "majority", "union", "intersection", "staple"]
"""How several readers' masks become one: mean of their signed distances, more than half of the voxels' votes, union,
intersection, or STAPLE (Warfield 2004)."""


class Agreement(Section):
    bootstrap: int
    """Resamples of patients for the 95% intervals."""
    seed: int
    min_hips: int
    """Floors apply from this many hip-visits that two readers judged."""
    floors: dict[str, float]
    """Label or mask -> least agreement (weighted kappa, ICC(2,1) or Dice); below it the stage refuses (exit 3)."""


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
    consensus: dict[Literal["head", "lesion", "vessel"], Method]
    derived: Derived
    agreement: Agreement
