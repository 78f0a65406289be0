"""Who has what, and what becomes of it: a cohort at feature level, vectorized over hips and months."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks.phantom.course import MONTHS, hips_of
from tasks.phantom.geometry import jic_type, lesion_fraction
from tasks.phantom.presets import DAYS_A_MONTH, PRESETS, Preset

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
    hips, course = hips_of(people, p, rng)
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
