"""The phantom's physical constants: one frozen table. Presets differ in numbers only, never in code."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """How the disease behaves. Angles in degrees, lengths in mm, rates a year, times in months, hazards a month."""

    name: str
    bilateral: float  # share of patients with both hips affected
    male: float
    # The lesion: a ball around a point of the head's surface, seen from the centre under a half-angle.
    half_angle_deg: tuple[float, float]  # mean, SD
    lateral_tilt_deg: tuple[float, float]  # of the lesion's axis, + lateral
    anterior_tilt_deg: tuple[float, float]
    slow_growth_deg: tuple[float, float]  # of the half-angle, a year: uniform low, high
    fast_growth_deg: tuple[float, float]
    active: float  # share of affected hips that grow fast; nobody can see it at one visit
    fully_active_deg: float  # lateral margin from which on a hip is as likely active as that
    onset_months: tuple[float, float]  # when an active hip's growth and rise begin, uniform
    delay_months: float  # from the onset to the higher hazard
    rising_start: tuple[float, float]  # of the oedema that will rise, uniform: the level at one visit says little
    falling_start: tuple[float, float]
    oedema_rise: tuple[float, float]  # a year, in active hips
    oedema_fall: tuple[float, float]  # a year, in the others (negative is falling)
    oedema_wander: float  # SD of the month-to-month wandering
    concordance: float  # chance that an active hip's oedema rises (and a quiet one's does not)
    # Hazard of collapse.
    log_hazard: float  # of a C1 hip in the middle of everything else, a month
    per_lateral_deg: float
    active_log_hr: float
    size_log_hr: float  # per SD of the half-angle
    oedema_log_hr: float  # per unit of oedema above its mean
    vessel_log_hr: float  # per 8 mm of vessels
    frailty: float  # SD of what nothing measured explains
    first_stage: float  # share of hips that are ARCO 1 at first, the others 2
    already_collapsed: float  # share of hips beyond JIC B with ARCO 3A at first
    stage_up_ratio: float  # hazard ARCO 1 -> 2, relative to collapse
    severity: tuple[float, float]  # mean, SD of the log hazard at the first visit; treatment is assigned by it
    # After the fracture.
    depth_rate: tuple[float, float]  # mm a month, uniform
    arthroplasty: tuple[float, float]  # hazard a month once collapsed: constant, per mm of depth
    # Vessels of the head, on contrast-enhanced 3D images.
    vessel_mm: tuple[float, float]
    vessel_drift_mm: float  # a year
    bifurcation_gap_mm: tuple[float, float]  # growth between bifurcations: least, mean beyond it
    gain_sd_mm: float
    # Follow-up.
    visits_months: tuple[float, ...]
    jitter_months: float
    missed: float
    follow_up_months: tuple[float, float]


PRESETS: dict[str, Preset] = {
    # Preset B of the feasibility work, with its JIC A and its missing temporal signal mended.
    "B2": Preset(
        name="B2",
        bilateral=0.72,
        male=0.62,
        half_angle_deg=(39.0, 10.0),
        lateral_tilt_deg=(0.0, 14.0),
        anterior_tilt_deg=(16.0, 9.0),
        slow_growth_deg=(-0.5, 1.5),
        fast_growth_deg=(8.0, 14.0),
        active=0.75,
        fully_active_deg=65.0,
        onset_months=(-12.0, 12.0),
        delay_months=4.0,
        rising_start=(0.0, 0.5),
        falling_start=(0.1, 1.7),
        oedema_rise=(0.6, 1.1),
        oedema_fall=(-0.45, 0.10),
        oedema_wander=0.025,
        concordance=0.97,
        log_hazard=-6.8,
        per_lateral_deg=0.02,
        active_log_hr=4.2,
        size_log_hr=0.10,
        oedema_log_hr=0.30,
        vessel_log_hr=-0.30,
        frailty=0.35,
        first_stage=0.35,
        already_collapsed=0.12,
        stage_up_ratio=1.2,
        severity=(-5.85, 1.67),
        depth_rate=(0.25, 0.60),
        arthroplasty=(0.003, 0.005),
        vessel_mm=(46.0, 8.0),
        vessel_drift_mm=-1.0,
        bifurcation_gap_mm=(5.0, 4.2),
        gain_sd_mm=2.5,
        visits_months=(0.0, 6.0, 12.0, 24.0),
        jitter_months=0.6,
        missed=0.35,
        follow_up_months=(34.0, 50.0),
    ),
}

DAYS_A_MONTH = 30.4375

LOG_HR = {
    "observation": 0.0,
    "bisphosphonate": -0.25,
    "core_decompression": -0.40,
    "stem_cells": -0.40,
    "vascularized_bone_graft": -1.0,
}
"""True effect of a treatment on the log hazard of collapse, from its date on. Treatment is assigned by severity, so a
naive comparison has the wrong sign."""

VESSEL_GAIN_MM = {
    "observation": 0.0,
    "bisphosphonate": 0.0,
    "core_decompression": 2.0,
    "stem_cells": 4.0,
    "vascularized_bone_graft": 12.4,
}
"""True growth of vessels caused by a treatment, reached linearly over the 12 months after it. 12.4 mm come with
1.35 bifurcations on average: +2.7 branches."""

TREATMENT_SCORE = {
    "observation": (1.0, -0.9),
    "bisphosphonate": (-0.7, -0.2),
    "core_decompression": (0.1, 0.3),
    "stem_cells": (-1.2, 0.3),
    "vascularized_bone_graft": (-0.1, 1.0),
}
"""Log odds of being given a treatment: constant, and per SD of the hip's log hazard at its first visit."""

WEIGHT_BEARING_DEG = (-24.0, 32.0)
"""Weight-bearing zone in the midcoronal plane, degrees from vertical, + lateral; its lateral end is the acetabular
edge. Thirds of it divide JIC A, B and C1; beyond it is C2."""
