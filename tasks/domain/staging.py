"""Staging systems side by side, and from one to another only where the systems themselves say how.

    finding                     ARCO 2019   Ficat   Steinberg (A, B, C: < 15 %, 15 to 30 %, > 30 % of the head)
    MRI positive, film normal   1           1       1
    film positive, no fracture  2           2       2
    subchondral fracture        3A          3       3 (crescent line, contour kept)
    depression <= 2 mm          3A          3       4A (< 2 mm)
    depression > 2 mm           3B          3       4B or 4C, which may also be wide and shallow
    osteoarthritis              4           4       5 and 6

Ficat 3 is ARCO 3A or 3B by the depression in mm and by nothing else; Steinberg's letter is the share of the head and is
not in ARCO or Ficat. Stage 0 of Ficat and Steinberg is not in ARCO 2019. JIC is a place, not a stage: nothing converts
to it or from it.
"""

from __future__ import annotations

DEPRESSION_MM = 2.0
"""ARCO 2019 (Yoon 2020): 3A up to and with this, 3B beyond it."""

SMALL, LARGE = 0.15, 0.30
"""Steinberg: share of the head's volume of sizes A, B and C in stages 1 and 2."""

TO_ARCO = {
    "ficat": {"1": "1", "2": "2", "3": "3", "4": "4"},
    "steinberg": {"1": "1", "2": "2", "3": "3A", "4A": "3A", "4B": "3", "4C": "3", "5": "4", "6": "4"},
}
TO_FICAT = {
    "arco": {"1": "1", "2": "2", "3A": "3", "3B": "3", "4": "4"},
    "steinberg": {"0": "0", "1": "1", "2": "2", "3": "3", "4": "3", "5": "4", "6": "4"},
}


def convert(
    value: str, system: str, to: str, collapse_mm: float | None = None, lesion_fraction: float | None = None
) -> str | None:
    """`value` of `system` in the system `to`; None where that is not defined, or a measurement for it is missing."""
    if system == to:
        return value
    if to == "arco":
        own = TO_ARCO.get(system, {})
        stage = own.get(value) or own.get(value[:1])
        return arco_3(collapse_mm) if stage == "3" else stage
    if to == "ficat":
        own = TO_FICAT.get(system, {})
        return own.get(value) or own.get(value[:1])
    if to == "steinberg" and system in ("arco", "ficat") and value in ("1", "2") and lesion_fraction is not None:
        return value + steinberg_size(lesion_fraction)
    if to == "steinberg" and system == "ficat" and value == "0":
        return "0"
    return None


def arco_3(collapse_mm: float | None) -> str | None:
    """The substage of ARCO 3 by the depression of the head in mm."""
    if collapse_mm is None:
        return None
    return "3A" if collapse_mm <= DEPRESSION_MM else "3B"


def steinberg_size(lesion_fraction: float) -> str:
    return "A" if lesion_fraction < SMALL else "B" if lesion_fraction <= LARGE else "C"
