"""Masks of patients that the networks did not see, beside the agreement of readers, and what a hip costs.

Reads a workspace with standardized hips and masks (`OSTEOFLOW_BENCH_WORKSPACE`, for one the demo's: the folder that
`osteoflow demo` prints) and changes nothing in it: networks are trained on all folds but one with the settings of
params.yaml, the fold left out is segmented and scored. `OSTEOFLOW_BENCH_EPOCHS` (a factor, 0.1 by default, so that the
bench ends within two minutes) cuts the epochs; 1 is what the targets are meant for.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from contextlib import chdir
from pathlib import Path
from typing import Any

import torch
import yaml

from tasks.segment.fold import Job, fit_fold, lesion_labels
from tasks.segment.params import Params
from tasks.segment.predict import LABELS
from tasks.segment.run import _summary
from tasks.segment.visit import Visit, segment
from tasks.store.files import write_json
from tasks.training import data

ROOT = Path(__file__).parents[1]
TARGETS = {"head": ("dice", 0.95), "lesion": ("dice", 0.85), "vessel": ("cldice", 0.80)}


def run() -> dict[str, object]:
    named = os.environ.get("OSTEOFLOW_BENCH_WORKSPACE", "")
    workspace = Path(named or ROOT / ".osteoflow/demo").resolve()
    if not (workspace / "data/hips.parquet").exists():
        return {"skipped": "no workspace with hips: run `make demo`, or name one in OSTEOFLOW_BENCH_WORKSPACE"}
    torch.set_num_threads(1)
    logging.getLogger("osteoflow").setLevel(logging.INFO if named else logging.WARNING)
    factor = float(os.environ.get("OSTEOFLOW_BENCH_EPOCHS", "0.1"))
    with tempfile.TemporaryDirectory() as place, chdir(place):
        os.environ["OSTEOFLOW_HOME"] = place
        Path("data").mkdir()
        for name in ("hips", "masks", "hips.parquet", "annotations.parquet", "split.parquet"):
            Path("data", name).symlink_to(workspace / "data" / name)
        return _measured(_settings(factor), Path(place)) | {"epochs_factor": factor}


def _settings(factor: float) -> Params:
    section: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["segment"]
    for kind in ("hip", "vessel"):
        recipe = section[kind]["recipe"]
        recipe["epochs"] = max(1, round(recipe["epochs"] * factor))
    return Params.model_validate(section)


def _measured(params: Params, place: Path) -> dict[str, object]:
    rows = data.cohort()
    training = rows[rows["fold"] != data.TEST].reset_index(drop=True)
    out = data.folds(rows)[0]
    models, masks = place / "models", place / "masks"
    lesion = lesion_labels(training, data.labels())
    cost: dict[str, float] = {}
    names: dict[str, list[str]] = {}
    for kind in LABELS:
        start = time.process_time()
        record = fit_fold(Job(params, kind, out, training, lesion, "bench", str(models)))
        cost[f"train_{kind}_cpu_s"] = round(time.process_time() - start, 1)
        names[kind] = [f"{kind}-fold{out}"] if record else []
    write_json(models / "segment.json", {"networks": names, "folds": [out], "reason": ""})
    held = training[training["fold"] == out]
    start = time.process_time()
    results = [
        segment(
            Visit(str(row.hip_visit), str(row.subject), out, str(row.path), "", "bench", str(models), str(masks),
                  params.vessel.skeleton_steps)
        )
        for row in held.itertuples()
    ]  # fmt: skip
    cost["segment_cpu_s_per_hip"] = round((time.process_time() - start) / max(1, len(held)), 3)
    scored = [
        one | segment(
            Visit(str(row.hip_visit), str(row.subject), out, str(row.path), str(row.mask), "bench", str(models),
                  str(masks), params.vessel.skeleton_steps)
        )
        for one, row in zip(results, held.itertuples(), strict=True)
    ]  # fmt: skip
    found = _summary(scored, 1000)
    against = {
        label: {
            "score": score, "target": target, "network": found[label]["network"].get(score),
            "low": found[label]["network"].get(f"{score}_low"), "high": found[label]["network"].get(f"{score}_high"),
            "readers": found[label]["readers"].get(score),
        }
        for label, (score, target) in TARGETS.items() if label in found
    }  # fmt: skip
    return {
        "trained_on_hip_visits": int((training["fold"] != out).sum()), "scored_hip_visits": len(held),
        "scored_patients": int(held["subject"].nunique()), "against_targets": against, "agreement": found, **cost,
    }  # fmt: skip
