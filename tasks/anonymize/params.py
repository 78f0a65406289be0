"""Section `anonymize` of params.yaml: the options of PS3.15 Annex E, each on or off, and what is released at all."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tasks.domain.params import Section


class Params(Section):
    retain_safe_private: bool
    """Private elements that rules/safe_private.csv names (their creator checked) stay; all others go in any case."""
    retain_uids: bool
    """UIDs stay as they are, instead of keyed ones."""
    retain_device_identity: bool
    """Serial numbers, station names and the like stay."""
    retain_institution_identity: bool
    retain_patient_characteristics: bool
    """Sex, age (capped), size, weight and the like stay."""
    longitudinal: Literal["modified", "full", "removed"]
    """Dates and times: moved by the patient's keyed shift, kept, or replaced as the Basic Profile says."""
    clean_descriptors: bool
    """Free text is reduced to the vocabulary of imaging, instead of removed."""
    clean_structured_content: bool
    """Structured reports and acquisition context are cleaned and released, instead of refused."""
    clean_graphics: bool
    """Presentation states are cleaned and released, instead of refused."""
    clean_pixel_data: bool
    """Text burned into pictures is looked for and blanked; off: pictures that say they hold some are quarantined."""
    text_every: int = Field(ge=1)
    """Of each series the first picture and every so manieth is looked at; all of those that their attributes mark."""
    clean_recognizable_visual_features: bool
    """There is nothing here that takes a face off. On: pictures of heads are refused; off: they are released."""
    age_cap: int = Field(ge=1, le=150)
    """Ages above this many years become one year more than this ('090Y' for 89)."""
    secondary_captures: Literal["refuse", "release"]
    """Secondary captures and screenshots: they are pictures of screens, and screens show names."""


def options(params: Params) -> tuple[str, ...]:
    """The option columns of Table E.1-1 that are on."""
    on = [
        "retain_safe_private",
        "retain_uids",
        "retain_device_identity",
        "retain_institution_identity",
        "retain_patient_characteristics",
        "clean_descriptors",
        "clean_structured_content",
        "clean_graphics",
    ]
    chosen = [name for name in on if getattr(params, name)]
    if params.longitudinal != "removed":
        chosen.append(f"retain_longitudinal_{'modified' if params.longitudinal == 'modified' else 'full'}_dates")
    return tuple(chosen)
