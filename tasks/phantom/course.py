"""What becomes of each hip, month by month, vectorized over hips: lesion, oedema, vessels, treatment, collapse."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks.phantom.geometry import JIC_EDGES, arcs, jic_type
from tasks.phantom.presets import LOG_HR, TREATMENT_SCORE, VESSEL_GAIN_MM, Preset

MONTHS = 72  # simulated; longer than any follow-up


def hips_of(people: pd.DataFrame, p: Preset, rng: np.random.Generator) -> tuple[pd.DataFrame, dict[str, NDArray]]:
    """Hips, L and R of each patient in turn, and their monthly course: name -> (hips, MONTHS)."""
    patients, n = len(people), 2 * len(people)
    first = rng.integers(0, 2, patients)
    both = rng.random(patients) < p.bilateral
    affected = (both[:, None] | (first[:, None] == [0, 1])).ravel()

    half = rng.normal(*p.half_angle_deg, n).clip(18, 66)
    lateral = rng.normal(*p.lateral_tilt_deg, n).clip(-45, 40)
    anterior = np.minimum(rng.normal(*p.anterior_tilt_deg, n).clip(-5, 40), half - 8)
    # Small, medial lesions are quiet; the more of the weight-bearing zone is dead, the likelier is an active course.
    margin0 = arcs(half, lateral, anterior)[2]
    active = rng.random(n) < p.active * np.clip((margin0 - JIC_EDGES[0]) / (p.fully_active_deg - JIC_EDGES[0]), 0, 1)
    onset = rng.uniform(*p.onset_months, n)
    growth = np.where(
        active,
        rng.uniform(*p.fast_growth_deg, n),
        np.where(margin0 < JIC_EDGES[0], 0.0, rng.uniform(*p.slow_growth_deg, n)),
    )
    rising = np.where(rng.random(n) < p.concordance, active, ~active)
    slope = np.where(rising, rng.uniform(*p.oedema_rise, n), rng.uniform(*p.oedema_fall, n))
    start = np.where(rising, rng.uniform(*p.rising_start, n), rng.uniform(*p.falling_start, n))
    frailty = rng.normal(0, p.frailty, n)
    vessel0 = rng.normal(*p.vessel_mm, n).clip(24, 75)

    years = np.arange(MONTHS) / 12
    running = np.where(active[:, None], (np.arange(MONTHS) - onset[:, None]).clip(0) / 12, years)  # years of its course
    angle = (half[:, None] + growth[:, None] * running).clip(10, 72)
    wander = np.cumsum(rng.normal(0, p.oedema_wander, (n, MONTHS)), axis=1)
    oedema = (start[:, None] + slope[:, None] * running + wander).clip(0, 1.8)
    coronal, sagittal, margin = arcs(angle, lateral[:, None], anterior[:, None])
    natural_vessel = vessel0[:, None] + p.vessel_drift_mm * years

    # JIC A bears no weight: its hazard is exactly zero, rising to full over the first degrees of JIC B.
    bears = np.clip((margin - JIC_EDGES[0]) / 6.0, 0, 1) * affected[:, None]
    risk = (
        p.log_hazard
        + p.per_lateral_deg * (margin.clip(JIC_EDGES[0], 70) - 22)
        + p.active_log_hr * (active[:, None] * (np.arange(MONTHS) > onset[:, None] + p.delay_months))
        + p.size_log_hr * (angle - p.half_angle_deg[0]) / p.half_angle_deg[1]
        + p.oedema_log_hr * (oedema - 0.5)
    )

    # Treatment by severity: the confounding trap.
    severity = np.where(affected, (risk[:, 0] - p.severity[0]) / p.severity[1], np.nan)
    arms = list(TREATMENT_SCORE)
    score = np.stack([c + k * np.nan_to_num(severity) for c, k in TREATMENT_SCORE.values()], axis=1)
    arm = (score + rng.gumbel(size=score.shape)).argmax(axis=1)
    arm = np.where(affected, arm, 0)
    treated_month = np.where(rng.random(n) < 0.85, rng.uniform(0.3, 1.5, n), rng.uniform(6.5, 8.5, n))
    since = (np.arange(MONTHS)[None] - treated_month[:, None]).clip(0)
    log_hr = np.array([LOG_HR[name] for name in arms])[arm]
    gain = np.array([VESSEL_GAIN_MM[name] for name in arms])[arm]
    gain = np.where(gain > 0, rng.normal(gain, p.gain_sd_mm), 0.0)
    vessel = (natural_vessel + gain[:, None] * np.minimum(since / 12, 1)).clip(8, 120)
    under_way = np.arange(MONTHS)[None] >= treated_month[:, None]

    def hazard(vessels: NDArray, treated: NDArray) -> NDArray:
        eta = risk + p.vessel_log_hr * (vessels - p.vessel_mm[0]) / 8 + frailty[:, None] + treated
        return np.exp(eta) * bears

    with_treatment = hazard(vessel, log_hr[:, None] * under_way)
    natural = hazard(natural_vessel, np.zeros(1))
    luck = rng.exponential(size=(n, 3))  # one threshold for both worlds: treatment can only postpone a hip's own fate
    collapse = _crossing(with_treatment, luck[:, 0])
    natural_collapse = _crossing(natural, luck[:, 0])

    stage0 = np.where(rng.random(n) < p.first_stage, 1, 2)
    early = affected & (rng.random(n) < p.already_collapsed) & (margin[:, 0] > JIC_EDGES[1])
    collapse = np.where(early, -rng.uniform(0.5, 4, n), collapse)
    natural_collapse = np.where(early, collapse, natural_collapse)
    stage0 = np.where(early, 3, stage0)
    second = np.where(stage0 == 1, _crossing(with_treatment * p.stage_up_ratio, luck[:, 1]), -1.0)
    second = np.where((stage0 == 1) & (second < collapse), second, np.nan)  # month of ARCO 1 -> 2
    rate = rng.uniform(*p.depth_rate, n)
    since_collapse = (np.arange(MONTHS)[None] - collapse[:, None]).clip(0)
    depth = np.where(np.isfinite(collapse)[:, None], 0.6 + rate[:, None] * since_collapse, 0.0)
    depth = np.where(np.arange(MONTHS)[None] >= collapse[:, None], np.minimum(depth, 8.0), 0.0)
    third = collapse + (2.0 - 0.6) / rate  # month of ARCO 3A -> 3B
    fourth = collapse + 26.0
    replace = _crossing((p.arthroplasty[0] + p.arthroplasty[1] * depth) * (depth > 0), luck[:, 2])

    hips = pd.DataFrame(
        {
            "patient": np.repeat(np.arange(patients), 2),
            "side": np.tile(["L", "R"], patients),
            "affected": affected,
            "active": active & affected,
            "half_angle0_deg": half,
            "growth_deg_year": growth,
            "onset_month": np.where(active & affected, onset, np.nan),
            "lateral_tilt_deg": lateral,
            "anterior_tilt_deg": anterior,
            "oedema_slope_year": slope,
            "frailty": frailty,
            "severity": severity,
            "treatment": np.where(affected, np.array(arms)[arm], ""),
            "treatment_month": np.where(affected, treated_month, np.nan),
            "vessel_gain_mm": gain,
            "arco0": np.where(affected, stage0, 0),
            "jic0": jic_type(margin[:, 0], affected),
            "collapse_month": np.where(affected, collapse, np.inf),
            "natural_collapse_month": np.where(affected, natural_collapse, np.inf),
            "stage2_month": np.where(affected, second, np.nan),
            "stage3b_month": np.where(affected, third, np.inf),
            "stage4_month": np.where(affected, fourth, np.inf),
            "arthroplasty_month": np.where(affected, replace, np.inf),
            "interior": rng.choice(["fat", "fibrous", "sclerotic", "mixed"], n, p=[0.4, 0.25, 0.15, 0.2]),
            "mimic": _mimics(n, rng),
            "mimic_level": rng.uniform(0.35, 1.0, n),
            "effusion0": rng.uniform(0, 1, n) ** 2,
        }
    )
    gaps = p.bifurcation_gap_mm[0] + rng.exponential(p.bifurcation_gap_mm[1], (n, 40))
    course = {
        "angle": angle, "coronal": coronal, "sagittal": sagittal, "margin": margin, "oedema": oedema,
        "vessel": vessel, "depth": depth, "bifurcations": np.cumsum(gaps, 1),
    }  # fmt: skip
    hips["bifurcations"] = list(course["bifurcations"])
    # What is to come, as nobody can know it: the hazard of the next 12 months, 1 -> 2 included; once broken, certain.
    ahead = np.cumsum(np.pad(with_treatment, ((0, 0), (1, 12)), mode="edge"), axis=1)
    ahead = ahead[:, 12 : 12 + MONTHS] - ahead[:, :MONTHS]
    month = np.arange(MONTHS)[None]
    early_stage = (stage0 == 1)[:, None] & ~(second[:, None] <= month)
    ahead = ahead * (1 + p.stage_up_ratio * early_stage)
    course["log_hazard"] = np.where(depth > 0, 3.0, np.log(ahead + 1e-9))
    return hips, course


def _mimics(n: int, rng: np.random.Generator) -> list[str]:
    """What may be mistaken for a lesion or its oedema, on any hip: names joined by '+'."""
    chance = {"island": 0.35, "oedema": 0.25, "physis": 0.40, "effusion": 0.25, "cyst": 0.15}
    drawn = rng.random((n, len(chance))) < np.array(list(chance.values()))
    return ["+".join(name for name, there in zip(chance, row, strict=True) if there) for row in drawn]


def _crossing(hazard: NDArray, threshold: NDArray) -> NDArray[np.float64]:
    """(hips, MONTHS) hazard a month -> month, with its fraction, at which its integral passes the threshold, or inf."""
    total = np.cumsum(hazard, axis=1)
    passed = total >= threshold[:, None]
    month = passed.argmax(axis=1)
    rows = np.arange(len(hazard))
    fraction = 1 - (total[rows, month] - threshold) / np.maximum(hazard[rows, month], 1e-12)
    return np.where(passed.any(axis=1), month + fraction.clip(0, 1), np.inf)
