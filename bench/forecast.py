"""How good forecasts are on phantom cohorts of two unrelated makings, held-back seeds: the forecaster, its baselines,
and beside a ceiling, which is the best of two models fitted on 5,000 other patients' equally noisy observations.

500 patients to learn from, others to test on; features, not images. Intervals resample patients. And the CPU time of a
refit on the cached features of 100 patients.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

SEEDS = tuple(int(s) for s in os.environ.get("BENCH_FORECAST_SEEDS", "7101,7102,7103").split(","))
LEARN, TEST, CEILING = (int(os.environ.get(f"BENCH_FORECAST_{n}", d)) for n, d in (("LEARN", "500"), ("TEST", "800"),
                                                                                  ("CEILING", "5000")))  # fmt: skip
FOLDS = [str(fold) for fold in range(5)]


def run() -> dict[str, Any]:
    import feature_cohort
    import second_cohort
    import torch

    torch.set_num_threads(1)
    return {
        "what": "AUC of progression within 365 days, hip-visits of held-back patients; phantom cohorts, features only",
        "patients_learnt_from": LEARN, "patients_of_the_ceiling": CEILING,
        "tasks_phantom": _one(feature_cohort.make),
        "second_generator": _one(second_cohort.make),
        "refit_100_patients_cpu_s": _refit(feature_cohort.make),
    }  # fmt: skip


def _one(make: Any) -> dict[str, Any]:
    from sklearn.ensemble import HistGradientBoostingClassifier

    from tasks.forecast import hazard, member
    from tasks.forecast.forecast import fit_members
    from tasks.training.metrics import auc, paired_bootstrap

    params = _params()
    _, many, _ = _tables(make, CEILING, 4242, 0.0)
    known = np.isfinite(many.label)
    past = _history(many)
    trees = [
        HistGradientBoostingClassifier(
            max_iter=200, learning_rate=0.06, max_leaf_nodes=12, min_samples_leaf=40, l2_regularization=5.0,
            max_features=0.3, random_state=seed,
        ).fit(past[known], many.label[known]) for seed in range(2)
    ]  # fmt: skip
    large = member.train((many, params, 0))
    out: dict[str, Any] = {"seeds": {}}
    for seed in SEEDS:
        folds, table, names = _tables(make, LEARN + TEST, seed, TEST / (LEARN + TEST))
        fitted = fit_members(table, folds, FOLDS, params, map)
        rows = table.rows((folds == "test") & np.isfinite(table.label))
        whole = table.rows(folds == "test")
        kept = np.isfinite(whole.label)
        risks = {"model": np.mean([_risk(one.member, whole) for one in fitted.values()], axis=0)[kept]}
        risks["last_visit"] = np.mean(
            [
                hazard.risk(one.member.standardize(rows.vectors) @ one.last_visit[0], one.last_visit[1])
                for one in fitted.values()
            ],
            axis=0,
        )
        for name, feature in (("lesion_size", "lesion_fraction"), ("kerboul", "kerboul_deg"), ("jic", "jic_rank")):
            risks[name] = np.nan_to_num(rows.vectors[:, names.index(feature)], nan=-1e9)
        risks["cox"] = _cox(table.rows((folds != "test") & table.data.seen.any(axis=1)), rows)
        ceilings = {
            "trees": np.mean([tree.predict_proba(_history(whole)[kept])[:, 1] for tree in trees], axis=0),
            "forecaster": _risk(large.member, whole)[kept],
        }
        y = rows.label
        best = max((name for name in risks if name != "model"), key=lambda name: auc(y, risks[name]))
        top = max(ceilings, key=lambda name: auc(y, ceilings[name]))
        gain = paired_bootstrap(y, risks["model"], risks[best], rows.patients, n=500, seed=seed)
        short = paired_bootstrap(y, ceilings[top], risks["model"], rows.patients, n=500, seed=seed)
        out["seeds"][str(seed)] = {
            "n": len(y), "n_events": int(y.sum()), "n_patients": len(set(rows.patients)),
            "auc": {name: round(float(auc(y, p)), 4) for name, p in (risks | ceilings_of(ceilings)).items()},
            "best_baseline": best, "ceiling": top, "brier": round(float(np.mean((risks["model"] - y) ** 2)), 4),
            "above_best_baseline": [round(float(v), 4) for v in gain],
            "below_ceiling": [round(float(v), 4) for v in short],
        }  # fmt: skip
    each = out["seeds"].values()
    return out | {
        "above_best_baseline_mean": round(float(np.mean([one["above_best_baseline"][0] for one in each])), 4),
        "below_ceiling_mean": round(float(np.mean([one["below_ceiling"][0] for one in each])), 4),
    }


def ceilings_of(ceilings: dict[str, Any]) -> dict[str, Any]:
    return {f"ceiling_{name}": p for name, p in ceilings.items()}


def _params() -> Any:
    from tasks.domain.params import load
    from tasks.forecast import Params

    return load("forecast", Params)


def _tables(make: Any, patients: int, seed: int, test: float) -> tuple[Any, Any, list[str]]:
    """(folds, Table in time order, names of the features) of a new cohort."""
    from tasks.assemble import Params, feature_names, rows_for
    from tasks.domain.params import load
    from tasks.forecast.forecast import to_table

    cohort = make(patients, seed, folds=5, test=test)
    params = load("assemble", Params)
    read = {name: cohort[name] for name in ("hips", "features", "measures", "annotations", "split")}
    frame = rows_for(**read, params=params)
    names = feature_names(cohort["features"], params)
    table = to_table(frame, names, _params())
    order = np.lexsort((table.days, table.hips))
    return frame["fold"].astype(str).to_numpy()[order], table.rows(order), names


def _risk(one: Any, table: Any) -> Any:
    from tasks.forecast.member import corrections

    past = table.past(one.standardize(table.vectors))
    more = one.amount * corrections(one.residual, table, past) if one.amount else 0.0
    return one.risks(past @ one.weight + more)


def _history(table: Any) -> Any:
    """Everything that a hip's visits so far hold: now, mean, before, since the first, slope, how many, how long."""
    x, parts = np.nan_to_num(table.vectors), []
    starts = np.flatnonzero(np.concatenate([[True], table.hips[1:] != table.hips[:-1]]))[1:]
    for one, days in zip(np.split(x, starts), np.split(table.days, starts), strict=True):
        n, years = len(one), (days - days[0]) / 365.25
        mean = np.cumsum(one, axis=0) / np.arange(1, n + 1)[:, None]
        before = np.vstack([np.full_like(one[:1], np.nan), one[:-1]])
        slope = np.full_like(one, np.nan)
        for k in range(1, n):
            t = years[: k + 1] - years[: k + 1].mean()
            slope[k] = (t[:, None] * one[: k + 1]).sum(axis=0) / max(float((t**2).sum()), 1e-6)
        parts.append(np.hstack([one, mean, before, one - one[:1], slope, np.arange(n)[:, None], years[:, None]]))
    return np.vstack(parts)


def _cox(learn: Any, rows: Any) -> Any:
    """Cox regression (lifelines) on the vector of the last visit; time in intervals of the horizon."""
    import warnings

    import pandas as pd
    from lifelines import CoxPHFitter

    spread = np.nan_to_num(learn.vectors).std(axis=0)
    used = (spread > 1e-9) & np.isfinite(learn.vectors).any(axis=0)
    centre = np.nanmean(learn.vectors[:, used], axis=0)
    x, at = (pd.DataFrame(np.nan_to_num((t.vectors[:, used] - centre) / spread[used])) for t in (learn, rows))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = CoxPHFitter(penalizer=0.1).fit(
            x.assign(time=learn.data.seen.sum(axis=1), event=learn.data.event.sum(axis=1)), "time", "event"
        )
    return fitted.predict_partial_hazard(at).to_numpy()


def _refit(make: Any) -> float:
    from tasks.forecast.forecast import fit_members

    folds, table, _ = _tables(make, 100, 7200, 0.0)
    times = []
    for _ in range(3):
        start = time.process_time()
        fit_members(table, folds, FOLDS, _params(), map)
        times.append(time.process_time() - start)
    return round(sorted(times)[1], 2)
