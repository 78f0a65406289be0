"""The unit of everything after `standardize`: the hip-visit, patient x side x visit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Side = Literal["L", "R"]
SIDES: tuple[Side, Side] = ("L", "R")

ROLES = ("t1", "fluid", "contrast")
"""Sequence roles of a hip protocol: T1, fluid-sensitive (STIR or fat-saturated T2/PD), contrast-enhanced 3D."""

RESEARCH_ONLY = "Research use only, not for diagnosis."


def hip_visit(study: str, side: Side) -> str:
    """`<study>-<side>`: the de-identified StudyInstanceUID of the visit's first study, and the side."""
    return f"{study}-{side}"


def hip(subject: str, side: Side) -> str:
    """`<subject>-<side>`: one hip over all its visits."""
    return f"{subject}-{side}"


@dataclass(frozen=True, order=True)
class HipVisit:
    subject: str
    study: str
    side: Side
    days: float

    @property
    def key(self) -> str:
        return hip_visit(self.study, self.side)

    @property
    def hip(self) -> str:
        return hip(self.subject, self.side)
