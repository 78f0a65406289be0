"""Who has what, and what becomes of it: a cohort at feature level, vectorized over hips and months.

Geometry of a lesion, in the hip's own space (x lateral, y posterior, z superior): its axis leaves the head's centre
`lateral` degrees lateral and `anterior` degrees anterior of straight up; it covers the surface within `half_angle`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks.phantom.presets import (
    DAYS_A_MONTH,
    LOG_HR,
    PRESETS,
    TREATMENT_SCORE,
    VESSEL_GAIN_MM,
    WEIGHT_BEARING_DEG,
    Preset,
)

MONTHS = 72  # of the monthly simulation; longer than any follow-up
JIC_EDGES = tuple(np.linspace(*WEIGHT_BEARING_DEG, 4)[1:])
OBSERVED_SD = {
    "kerboul_deg": 14.0,  # coronal + sagittal
    "lateral_deg": 6.0,
    "lesion_fraction": 0.05,
    "oedema": 0.15,
    "effusion": 0.25,
    "collapse_mm": 0.3,
    "vessel_length_mm": 5.0,
    "vessel_branches": 1.5,
}
"""Measurement error of one visit at feature level (readers and networks as measured on rendered phantoms)."""


@dataclass(frozen=True)
class Population:
    """patients: one row a patient; hips: one row a hip; visits: one row a hip-visit (see `simulate`)."""

    patients: pd.DataFrame
    hips: pd.DataFrame
    visits: pd.DataFrame


def arcs(
    half: NDArray[np.float64], lateral: NDArray[np.float64], anterior: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Degrees -> (coronal arc, sagittal arc, lateral margin in the midcoronal plane), degrees.

    A lesion that misses a plane has arc 0 there; one that misses the midcoronal plane has the margin of its edge
    nearest to it pulled medial of the weight-bearing zone, as a reader of that plane would see no lesion in it.
    """
    theta, phi, ant = np.deg2rad(half), np.deg2rad(lateral), np.deg2rad(anterior)
    coronal = np.arccos(np.clip(np.cos(theta) / np.cos(ant), -1, 1))
    reach = np.sqrt(np.sin(ant) ** 2 + (np.cos(phi) * np.cos(ant)) ** 2)
    sagittal = np.arccos(np.clip(np.cos(theta) / reach, -1, 1))
    margin = np.where(coronal > 0, np.rad2deg(phi + coronal), -90.0)
    return 2 * np.rad2deg(coronal), 2 * np.rad2deg(sagittal), margin


def lesion_fraction(half_angle: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of a unit ball inside a ball of chord radius c = 2 sin(half/2) centred on its surface (two caps)."""
    c = 2 * np.sin(np.deg2rad(half_angle) / 2)
    cut = c**2 / 2  # distance of the plane of intersection from the lesion's centre
    depth_head, depth_lesion = cut, c - cut
    caps = np.pi * depth_head**2 * (1 - depth_head / 3) + np.pi * depth_lesion**2 * (c - depth_lesion / 3)
    return np.asarray(caps / (4 * np.pi / 3))


def jic_type(margin: NDArray[np.float64], affected: NDArray[np.bool_]) -> NDArray[np.str_]:
    """Lateral margin in degrees -> "A" | "B" | "C1" | "C2"; "" for a hip without a lesion."""
    types = np.array(["A", "B", "C1", "C2"])[np.searchsorted(JIC_EDGES, margin)]
    return np.where(affected, types, "")


def simulate(
    patients: int, seed: int, preset: str = "B2", noise: float = 1.0, horizon_days: float = 365.0
) -> pd.DataFrame:
    """One row a hip-visit, without images: latent truth, noisy observations `obs_*`, treatment so far and `label`.

    `label` is 1.0 if the hip progresses (collapse, ARCO stage up, arthroplasty) within `horizon_days` after the
    visit, 0.0 if it is followed that long and does not, NaN if censored before or not at risk. `oracle` is the log of
    the true hazard over the coming 12 months. `noise` scales every measurement error.
    """
    return population(patients, seed, preset, noise, horizon_days).visits


def population(
    patients: int, seed: int, preset: str = "B2", noise: float = 1.0, horizon_days: float = 365.0
) -> Population:
    """The cohort behind `simulate`, with its patients and hips."""
    p = PRESETS[preset]
    rng = np.random.default_rng([seed, 1])
    people = _people(patients, p, rng)
    hips, course = _hips(people, p, rng)
    visits = _visits(people, hips, course, p, rng, noise, horizon_days)
    return Population(people, hips, visits)


def _people(n: int, p: Preset, rng: np.random.Generator) -> pd.DataFrame:
    male = rng.random(n) < p.male
    height = np.where(male, rng.normal(1.76, 0.07, n), rng.normal(1.64, 0.06, n)).clip(1.48, 2.0)
    bmi = rng.normal(26, 3.8, n).clip(18, 38)
    return pd.DataFrame(
        {
            "patient": np.arange(n),
            "sex": np.where(male, "M", "F"),
            "age": rng.normal(46, 12, n).clip(19, 78).round(1),
            "height_m": height.round(2),
            "weight_kg": (bmi * height**2).round(1),
            "vendor": rng.integers(0, 3, n),
            "first_day": rng.integers(0, 4 * 365, n),
            "follow_up_months": rng.uniform(*p.follow_up_months, n),
        }
    )


def _hips(people: pd.DataFrame, p: Preset, rng: np.random.Generator) -> tuple[pd.DataFrame, dict[str, NDArray]]:
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


def _visits(
    people: pd.DataFrame,
    hips: pd.DataFrame,
    course: dict[str, NDArray],
    p: Preset,
    rng: np.random.Generator,
    noise: float,
    horizon_days: float,
) -> pd.DataFrame:
    n, planned = len(people), len(p.visits_months)
    months = np.array(p.visits_months)[None] + rng.normal(0, p.jitter_months, (n, planned))
    months[:, 0] = 0.0
    end = people["follow_up_months"].to_numpy()
    kept = np.ones((n, planned), bool)
    missing = rng.random(n) < p.missed  # at most one visit is missed, never the first
    kept[np.arange(n)[missing], rng.integers(1, planned, n)[missing]] = False
    kept &= months <= end[:, None]
    patient, order = np.nonzero(kept)
    month = months[patient, order]
    visit = np.concatenate([np.arange(k) for k in kept.sum(axis=1)]) if n else np.array([], int)

    hip = (2 * patient[:, None] + np.array([0, 1])).ravel()
    month, visit = np.repeat(month, 2), np.repeat(visit, 2)
    at = {name: values[hip, _index(month)] for name, values in course.items() if values.shape[1] == MONTHS}
    rows = hips.iloc[hip].drop(columns="bifurcations").reset_index(drop=True)
    affected = rows["affected"].to_numpy()
    days = np.round(month * DAYS_A_MONTH)
    implant = days >= np.ceil(rows["arthroplasty_month"] * DAYS_A_MONTH)
    branches = 2 + 2 * (course["bifurcations"][hip] < at["vessel"][:, None]).sum(axis=1)
    effusion = (rows["effusion0"] * 0.5 + at["oedema"] * 0.5 * affected + 0.8 * (at["depth"] > 0)).clip(0, 2)
    table = rows.assign(
        hip=hip,
        visit=visit,
        months=month,
        days=days,
        implant=implant,
        half_angle_deg=np.where(affected, at["angle"], 0.0),
        kerboul_coronal_deg=np.where(affected, at["coronal"], 0.0),
        kerboul_sagittal_deg=np.where(affected, at["sagittal"], 0.0),
        kerboul_deg=np.where(affected, at["coronal"] + at["sagittal"], 0.0),
        lateral_deg=np.where(affected, at["margin"].clip(-60, None), -60.0),
        lesion_fraction=np.where(affected, lesion_fraction(at["angle"]), 0.0),
        oedema=np.where(affected, at["oedema"], 0.0),
        effusion=effusion,
        collapse_mm=at["depth"] * affected,
        vessel_length_mm=at["vessel"],
        vessel_branches=branches,
        jic=jic_type(at["margin"], affected),
        arco=_arco(rows, days),
        oracle=np.where(affected, at["log_hazard"], np.log(1e-9)),
        end_days=np.round(end[rows["patient"]] * DAYS_A_MONTH),
    )
    table["treatment_now"] = np.where(_day(rows["treatment_month"]) <= days, rows["treatment"], "")
    table["days_since_treatment"] = np.where(table["treatment_now"] != "", days - _day(rows["treatment_month"]), np.nan)
    table["label"] = _label(table, horizon_days)
    for name, sd in OBSERVED_SD.items():
        observed = table[name] + rng.normal(0, sd * noise, len(table)) if noise else table[name]
        table[f"obs_{name}"] = observed if name == "lateral_deg" else observed.clip(lower=0)
    return table


def _index(month: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.clip(np.round(month), 0, MONTHS - 1).astype(int)


def _day(month: pd.Series) -> NDArray[np.float64]:
    """Month since the first visit -> whole day since then on which it is on record (inf and NaN stay)."""
    return np.asarray(np.ceil(month * DAYS_A_MONTH), dtype=float)


def _arco(hips: pd.DataFrame, days: NDArray[np.float64]) -> NDArray[np.str_]:
    stage = np.where((hips["arco0"] == 1) & ~(_day(hips["stage2_month"]) <= days), "1", "2")
    for column, name in (("collapse_month", "3A"), ("stage3b_month", "3B"), ("stage4_month", "4")):
        stage = np.where(_day(hips[column]) <= days, name, stage)
    return np.where(hips["affected"], stage, "")


def events(hips: pd.DataFrame) -> pd.DataFrame:
    """patient, side, event, day: every progression of every hip, on the day it is on record (not yet cut at the
    end of follow-up). Nothing follows an arthroplasty."""
    columns = {
        "stage2_month": "stage_up", "collapse_month": "collapse", "stage3b_month": "stage_up",
        "stage4_month": "stage_up", "arthroplasty_month": "arthroplasty",
    }  # fmt: skip
    parts = [
        pd.DataFrame({"patient": hips["patient"], "side": hips["side"], "event": event, "day": _day(hips[column])})
        for column, event in columns.items()
    ]
    table = pd.concat(parts, ignore_index=True)
    table = table[np.isfinite(table["day"]) & (table["day"] > 0)]
    replaced = hips.assign(last=_day(hips["arthroplasty_month"]))[["patient", "side", "last"]]
    table = table.merge(replaced, on=["patient", "side"])
    table = table[table["day"] <= table["last"]].drop(columns="last")
    return table.sort_values(["patient", "side", "day", "event"], ignore_index=True)


def _label(table: pd.DataFrame, horizon_days: float) -> NDArray[np.float64]:
    """Landmark label of each row; a hip is at risk until it has collapsed (an early collapse: until ARCO 3B)."""
    days = table["days"].to_numpy()
    soonest = np.full(len(table), np.inf)
    for column in ("stage2_month", "collapse_month", "stage3b_month", "arthroplasty_month"):
        day = _day(table[column])
        soonest = np.where(day > days, np.fmin(soonest, day), soonest)
    end = table["end_days"].to_numpy()
    soonest = np.where(soonest <= end, soonest, np.inf)
    early = table["collapse_month"] < 0
    gone = np.where(early, _day(table["stage3b_month"]) <= days, _day(table["collapse_month"]) <= days)
    gone = gone | table["implant"].to_numpy()
    label = np.where(soonest <= days + horizon_days, 1.0, np.where(end >= days + horizon_days, 0.0, np.nan))
    return np.where(gone, np.nan, label)
