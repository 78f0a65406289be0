from typing import Literal

from pydantic import NonNegativeFloat, PositiveFloat

from tasks.domain.params import Section


class Eligibility(Section):
    """Who the estimate is for. An ineligible hip-visit is not trained on and gets no score, with the reason."""

    min_age_years: NonNegativeFloat
    """Younger patients are not eligible, years at the visit."""
    max_age_years: NonNegativeFloat | None
    """Older ones neither; null: no limit."""
    unknown_age: Literal["accept", "exclude"]
    """What a visit without PatientAge is."""
    aetiologies: tuple[str, ...]
    """Words of tasks.domain.disease.AETIOLOGIES that are eligible; empty: all, said or not."""
    unknown_aetiology: Literal["accept", "exclude"]
    """What a hip is whose aetiology nobody has given."""


class Params(Section):
    eligibility: Eligibility
    horizon_days: PositiveFloat
    """Progression is looked for in (visit, visit + horizon_days]."""
    collapse_mm: PositiveFloat
    """Collapse of this depth is an event; so is this much more of it in a hip that came collapsed, mm."""
    arthroplasty: Literal["event", "competing", "censor"]
    """What a total hip arthroplasty within the horizon is: progression, a known end without it, or end of follow-up."""
    ends_risk: tuple[Literal["collapse", "stage_up"], ...]
    """Events after which a hip is not at risk any more (arthroplasty always is one)."""
    at_risk: Literal["lesion", "all"]
    """`lesion`: only hips with a lesion read (or, unread, measured) at or before the visit; `all`: every hip."""
    min_lesion_fraction: NonNegativeFloat
    """For hips that nobody has read: at or above this measured fraction of the head there is a lesion."""
    measures: tuple[str, ...]
    """Columns of measures.parquet that become features."""
    errors: bool
    """Whether each measure's `_se` becomes a feature too."""
