"""The section `standardize` of params.yaml."""

from __future__ import annotations

from typing import Literal

from tasks.domain.params import Section
from tasks.domain.volume import Grid


class GridParams(Section):
    """A grid around each femoral head: voxels and mm, front to back, top to bottom, medial to lateral."""

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]

    def grid(self) -> Grid:
        return Grid(self.shape, self.spacing)


class Rule(Section):
    """One way to be a role. Ranges are inclusive; null: anything, a missing value too. Times in ms, lengths in mm."""

    tr_ms: tuple[float, float] | None
    te_ms: tuple[float, float] | None
    ti_ms: tuple[float, float] | None
    fat_suppressed: bool | None
    contrast: bool | None
    three_d: bool | None
    thickness_mm: tuple[float, float]


class Role(Section):
    """A role of the protocol: its rules in order of preference, and what a hip without it is."""

    rules: tuple[Rule, ...]
    missing: Literal["accept", "not_measurable"]


class Localizer(Section):
    """Acceptance of femoral heads."""

    radius_mm: tuple[float, float]
    """Smallest and largest radius of a head's marrow edge."""
    single_confidence: float
    """Least confidence, 0..1, of a head that stands alone."""
    blind_confidence: float
    """The same where the series is not T1-like, so that it is not known whether marrow is bright."""
    facing_confidence: float
    """The same for a head at the mirror image of a sure one."""
    pair_confidence: float
    """Least confidence of each of two heads that face each other across a pelvis."""
    separation_mm: tuple[float, float]
    """Distance between the heads of one pelvis, children to large adults."""
    level_mm: float
    """Largest difference in height, and front to back, between the two heads."""


class Level(Section):
    """Brightness of a role's series is divided so that this percentile of the body around the hips becomes `value`.
    The percentile is one that neither fluid in a joint nor a bladder moves."""

    percentile: float
    value: float


class N4(Section):
    """Bias correction: blocks of `block_mm`, polynomials up to `order`, at most `iterations` sharpenings of the
    histogram by a field of FWHM `width` (of log brightness), until nothing moves by more than `converged`."""

    enabled: bool
    block_mm: float
    order: int
    iterations: int
    width: float
    ridge: float
    converged: float


class Quality(Section):
    """Below these a hip is rejected (snr) or a role is left out of it (coverage, clipped)."""

    snr: float
    """Least signal over noise of the role that locates."""
    coverage: float
    """Least share of the ball of the femoral head that a series shows."""
    clipped: float
    """Largest share of voxels about the hip at the series' highest value."""
    ghosting: float | None
    """Largest signal of ghosts in air beyond noise, as a share of the body's; null: measured, nothing left out for it.
    What shows no air, or none that is dark, has no number and is not left out."""
    motion_mm: float
    """How far slices may lie beside the middle of their neighbours."""


class Align(Section):
    """Each visit of a hip laid onto its first visit; beyond the limits it counts as failed."""

    enabled: bool
    radius_mm: float
    """Of the ball about the head's centre that is compared."""
    iterations: int
    residual_mm: float
    ncc: float
    farthest_mm: float


class Params(Section):
    visit_window_days: float
    """Studies of one subject within this many days of the first of them are one visit."""
    visit_grid: GridParams
    fine_grid: GridParams
    roles: dict[Literal["t1", "fluid", "contrast"], Role]
    planes: tuple[Literal["coronal", "axial", "sagittal"], ...]
    """Planes in order of preference where several series fit a role."""
    min_slices: int
    """A series with fewer slices is a scout, not a role."""
    localizer: Localizer
    levels: dict[Literal["t1", "fluid", "contrast"], Level]
    ceiling: float
    """Normalized intensity is cut here, so that a few bright voxels do not use up the 16 bits."""
    n4: N4
    quality: Quality
    align: Align
    sheets: bool
    """A QC picture of each visit, beside its hips."""
