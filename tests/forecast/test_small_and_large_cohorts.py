"""Thirty to sixty patients whose images say little: the forecaster is no worse than its logistic baseline. Two hundred
whose measurements are good: it is better. On cohorts of two makings that share nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import feature_cohort
import numpy as np
import pandas as pd
import pytest
import second_cohort
from numpy.typing import NDArray

from tasks.assemble import Params as Assembly
from tasks.assemble import feature_names, rows_for
from tasks.domain.params import load
from tasks.forecast import Params, hazard
from tasks.forecast.baseline import blend, candidates
from tasks.forecast.forecast import fit_members, to_table
from tasks.forecast.hazard import Exposure
from tasks.forecast.member import Table, corrections
from tasks.training.metrics import auc, brier, slope

PARAMS = load("forecast", Params, feature_cohort.PARAMS).model_copy(
    update={"epochs": 30, "ridge": (10.0, 100.0), "resamples": 2}
)
TEST = 120


MAKINGS = (feature_cohort.make, second_cohort.make)


def of_images(make: Any, patients: int, seed: int) -> tuple[Table, NDArray]:
    """(Table, folds) of a cohort whose measurements are half error, beside an encoder that learnt nothing."""
    cohort: dict[str, pd.DataFrame] = make(patients + TEST, seed, folds=2, test=TEST / (patients + TEST))
    rng = np.random.default_rng([seed, 5])
    measures = cohort["measures"]
    for name in ("lesion_fraction", "kerboul_deg", "lateral_deg", "oedema_index", "effusion_index"):
        measures[name] = measures[name] + rng.normal(0, float(np.std(measures[name])), len(measures))
    common = rng.normal(size=(len(measures), 6)) @ rng.normal(size=(6, 21))
    cohort["features"]["features"] = list(common + rng.normal(size=common.shape))
    return assembled(cohort)


def assembled(cohort: dict[str, pd.DataFrame]) -> tuple[Table, NDArray]:
    assembly = load("assemble", Assembly, feature_cohort.PARAMS)
    read = {name: cohort[name] for name in ("hips", "features", "measures", "annotations", "split")}
    frame = rows_for(**read, params=assembly)
    table = to_table(frame, feature_names(cohort["features"], assembly), PARAMS)
    order = np.lexsort((table.days, table.hips))
    return table.rows(order), frame["fold"].astype(str).to_numpy()[order]


def held_back(table: Table, folds: NDArray, params: Params) -> tuple[Table, NDArray, NDArray]:
    """Hip-visits with a known label of patients held back; the forecaster's risks, the last visit's regression's."""
    held = table.rows(folds == "test")
    known, risks, last = np.isfinite(held.label), [], []
    for one in fit_members(table, folds, ["0", "1"], params, map).values():
        x = one.member.standardize(held.vectors)
        past = held.past(x)
        more = one.member.amount * corrections(one.member.residual, held, past) if one.member.amount else 0.0
        risks.append(one.member.risks(past @ one.member.weight + more))
        last.append(hazard.risk(x @ one.last_visit[0], one.last_visit[1]))
    return held.rows(known), np.mean(risks, axis=0)[known], np.mean(last, axis=0)[known]


def gain(table: Table, folds: NDArray, params: Params) -> float:
    """AUC: the forecaster's less that of the logistic regression on the last visit."""
    rows, risk, last = held_back(table, folds, params)
    return float(auc(rows.label, risk) - auc(rows.label, last))


def test_a_small_cohort_does_not_lose_to_its_logistic_baseline() -> None:
    made = [of_images(make, patients, 900 + patients) for make in MAKINGS for patients in (30, 60)]
    gains = np.array([gain(*cohort, PARAMS) for cohort in made])
    assert gains.mean() > -0.01, gains
    # The control: the whole residual, whatever patients left out say, and nothing that small cohorts are held to.
    bold = PARAMS.model_copy(update={"amounts": (1.0,), "anchors": ()})
    lost = np.array([gain(replace(table, anchors=()), folds, bold) for table, folds in made])
    assert lost.mean() < gains.mean() - 0.005, lost


@pytest.mark.parametrize("make", MAKINGS)
def test_history_is_worth_what_the_simulation_holds(make: Any) -> None:
    """The forecaster beats the last visit alone and each single measurement, and is calibrated."""
    rows, risk, last = held_back(*assembled(make(420, 5, folds=2, test=0.5)), PARAMS.model_copy(update={"epochs": 40}))
    y = rows.label
    singles = [auc(y, np.nan_to_num(rows.vectors[:, place])) for place in rows.anchors]
    assert auc(y, risk) > auc(y, last) + 0.02
    assert auc(y, risk) > max(singles) + 0.02
    assert brier(y, risk) < min(brier(y, np.full(len(y), y.mean())), brier(y, last))
    assert 0.8 < slope(y, risk) < 1.25


@pytest.mark.parametrize(("informative", "wins"), [(0, "few"), (40, "all")])
def test_the_shares_go_to_what_explains_unseen_patients(informative: int, wins: str) -> None:
    """Two anchors among sixty columns: they are enough when the others are noise, and not when those tell more."""
    rng = np.random.default_rng(6)
    n, width = 600, 60
    x = rng.normal(size=(n, width))
    score = 0.8 * x[:, 0] + 0.8 * x[:, 1] + (0.5 * x[:, 2 : 2 + informative]).sum(axis=1)
    y = (rng.random(n) < 1 / (1 + np.exp(1 - score))).astype(float)[:, None]
    patients = np.repeat(np.arange(n // 3), 3).astype(str)
    parts = hazard.inner_parts(patients, 3)
    past = np.hstack([x, np.zeros((n, 2 * width))])
    sets = candidates(width, (0, 1))
    found = blend(past, Exposure(np.ones((n, 1)), y), patients, parts, sets, (3.0, 10.0), 3, rng)
    few = found.shares["few_last_visit"] + found.shares["few_with_past"]
    assert sum(found.shares.values()) == pytest.approx(1.0)
    assert few > 0.9 if wins == "few" else few < 0.05
    assert found.spread.shape == (3, 3 * width + 1)
    eta = past @ found.weight + found.alpha[0]
    assert auc(y[:, 0], eta) > auc(y[:, 0], found.held_out[:, 0]) - 0.01
