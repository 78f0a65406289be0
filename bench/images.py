"""The whole way from images to an estimated risk, on phantom patients: encoders, masks, measurements and forecaster out
of fold, and the score of frozen test patients with its interval.

Rendered series are put on the hip grid around the true centre of the head: what finding the hip, DICOM and the
anonymizer add is not in these figures. BENCH_IMAGES_PATIENTS are learnt from, BENCH_IMAGES_TEST are held back; the goal
is 200 patients (an hour of one core), the default is what two minutes allow and says nothing about the goal.
Networks train on the demo's budget (flows/demo.yaml) unless BENCH_IMAGES_FULL is 1. BENCH_IMAGES_FOLDER keeps images,
networks and masks: a later run with the same numbers goes on from there, and the table alone costs seconds. Out-of-fold
AUC and slope are taken within folds, as evaluate does; auc_pooled is over all folds together, where it is biased.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))

LEARN, TEST = (int(os.environ.get(f"BENCH_IMAGES_{n}", d)) for n, d in (("PATIENTS", "6"), ("TEST", "3")))
SEED = int(os.environ.get("BENCH_IMAGES_SEED", "7301"))
DEALS = 12
STAGES = ("classify", "segment", "measure", "assemble", "forecast", "evaluate")
MADE = {"classify": "data/features.parquet", "segment": "reports/segment/metrics.json"}
"""What the long stages leave at their end."""


def run() -> dict[str, Any]:
    import importlib

    import pandas as pd
    import torch

    torch.set_num_threads(1)
    params = _params()
    seconds: dict[str, float] = {}
    kept = os.environ.get("BENCH_IMAGES_FOLDER")
    with tempfile.TemporaryDirectory(prefix="osteoflow-bench-") as own, chdir(folder := kept or own):
        start = time.process_time()
        done = Path("data/hips.parquet")
        hip_visits = len(pd.read_parquet(done)) if done.exists() else _cohort(Path(folder), params)
        seconds["images"] = round(time.process_time() - start, 1)
        for name in STAGES:
            if name in MADE and Path(MADE[name]).exists():
                continue
            start = time.process_time()
            importlib.import_module(f"tasks.{name}.__main__").main([], params, map)
            seconds[name] = round(time.process_time() - start, 1)
        return {
            "what": "progression within 365 days from rendered images; per hip-visit, 95% interval, patients resampled",
            "patients_learnt_from": LEARN, "patients_held_back": TEST, "hip_visits": hip_visits,
            **_scores(Path(folder)), "dealt_again": _dealt_again(Path(folder), params),
            "vessels": _vessels(Path(folder)), "cpu_s": seconds,
        }  # fmt: skip


def _params() -> dict[str, Any]:
    import yaml

    from tasks.domain.params import lay_over

    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    if os.environ.get("BENCH_IMAGES_FULL") != "1":
        lay_over(params, yaml.safe_load((ROOT / "flows/demo.yaml").read_text(encoding="utf-8")))
    params["evaluate"]["explain_hips"] = 0
    return params


def _cohort(folder: Path, params: dict[str, Any]) -> int:
    """Hip files, masks and tables of the cohort below `folder`; returns the number of hip-visits."""
    import feature_cohort
    import pandas as pd

    from tasks.phantom.disease import population
    from tasks.phantom.scanners import SCANNERS
    from tasks.phantom.study import StudyPlan, render
    from tasks.store import tables
    from tasks.store.digests import sha256_file

    total = LEARN + TEST
    tables_of = feature_cohort.make(total, SEED, folds=params["split"]["folds"], test=TEST / total)
    people = population(total, SEED)
    names = {(row.patient, row.visit, row.side): row.hip_visit for row in tables_of["truth"].itertuples()}
    made: dict[str, dict[str, Any]] = {}
    notes: list[dict[str, Any]] = []
    for (patient, visit), pair in people.visits.groupby(["patient", "visit"]):
        own = people.patients.iloc[patient]
        states = tuple({**row, "bifurcations": tuple(people.hips["bifurcations"].iloc[row["hip"]])}
                       for row in pair.to_dict("records"))  # fmt: skip
        seeds = (SEED, int(patient), int(visit)), (SEED, int(patient))
        height, weight = float(own["height_m"]), float(own["weight_kg"])
        scanner = int(own["vendor"])
        keys = {side: names[patient, visit, side] for side in "LR" if (patient, visit, side) in names}
        there = {side: _kept(folder, key) for side, key in keys.items()}
        if not all(there.values()):
            drawn = render(StudyPlan(*seeds, scanner, own["sex"], height, weight, states, 1.0))
            there = {side: _write(folder, key, side, drawn, params) for side, key in keys.items()
                     if side in drawn.truth and not drawn.states[side].implant}  # fmt: skip
        for side, masks in there.items():
            key = keys[side]
            made[key] = {"vendor": SCANNERS[scanner].vendor, "sex": own["sex"], "file": f"{key}.safetensors",
                         "digest": sha256_file(folder / f"data/hips/{key}.safetensors")}  # fmt: skip
            notes += [{"hip_visit": key, "side": side, "name": name} for name in masks]
    kept = tables_of["hips"][tables_of["hips"]["hip_visit"].isin(list(made))].reset_index(drop=True)
    for column in ("file", "digest", "sex"):
        kept[column] = [made[key][column] for key in kept["hip_visit"]]
    subject = dict(zip(kept["hip_visit"], kept["subject"], strict=True))
    days = dict(zip(kept["hip_visit"], kept["days"], strict=True))
    more = [note | {"kind": "mask", "value": f"{note['hip_visit']}.safetensors", "reader": "consensus",
                    "source": "drawn", "subject": subject[note["hip_visit"]], "days": days[note["hip_visit"]]}
            for note in notes] + _read(tables_of["truth"])  # fmt: skip
    feature_cohort.write(folder, tables_of | {"hips": kept})
    series = kept[["study", "hip_visit"]].assign(
        vendor=[made[key]["vendor"] for key in kept["hip_visit"]], series="2.25.9", role="t1", slices=12.0,
        status="used", reason=None, spacing_mm=None,
    )  # fmt: skip
    series = series.drop(columns="hip_visit").drop_duplicates("study")
    tables.write("series", folder / "data/series.parquet", series)
    both = pd.concat([tables_of["annotations"], pd.DataFrame(more)], ignore_index=True)
    tables.write("annotations", folder / "data/annotations.parquet", both)
    for name in ("measures", "features"):
        (folder / f"data/{name}.parquet").unlink()  # what the stages are to make themselves
    return len(kept)


def _kept(folder: Path, key: str) -> list[str]:
    """Names of the masks of a hip-visit that an earlier run wrote here with its volumes; none where it did not."""
    from tasks.store import hips

    volumes, masks = (folder / f"data/{kind}/{key}.safetensors" for kind in ("hips", "masks"))
    if not (volumes.exists() and masks.exists()):
        return []
    return [name.removeprefix("consensus/") for name in hips.layout(masks)]


def _read(truth: Any) -> list[dict[str, Any]]:
    """What readers of the images also give: type and angles, these with a reader's error of 8 degrees."""
    rng = np.random.default_rng([SEED, 3])
    out = []
    for row in truth[truth["affected"]].itertuples():
        base = {"hip_visit": row.hip_visit, "subject": row.subject, "side": row.side, "days": row.days,
                "reader": "consensus", "kind": "label", "source": "labels"}  # fmt: skip
        values = {name: f"{max(getattr(row, name) + rng.normal(0, 8), 0):.0f}"
                  for name in ("kerboul_coronal_deg", "kerboul_sagittal_deg")}  # fmt: skip
        out += [base | {"name": name, "value": value} for name, value in (values | {"jic": str(row.jic)}).items()]
    return out


def _write(folder: Path, key: str, side: str, drawn: Any, params: dict[str, Any]) -> list[str]:
    """One hip-visit's file of volumes and file of masks; returns the names of the masks."""
    from tasks.domain.volume import Grid, Volume
    from tasks.standardize import intensity
    from tasks.standardize.params import Level
    from tasks.store import hips
    from tasks.store.resample import resample

    section = params["standardize"]
    grids = {name: Grid(tuple(section[name]["shape"]), tuple(section[name]["spacing"]))
             for name in ("visit_grid", "fine_grid")}  # fmt: skip
    centre = drawn.states[side].centre
    tables = ("scale", "grids", "sources", "source_spacing_mm", "patient_affine", "frame_of_reference")
    meta: dict[str, Any] = {name: {} for name in tables}
    meta |= {"center_lps": centre.tolist(), "side": side, "mirrored": side == "R"}
    tensors = {}
    for role, one in zip(("t1", "fluid", "contrast"), drawn.series, strict=True):
        volume = Volume(one.pixels, one.affine)
        _, body = intensity.sample(intensity.around(volume, [s.centre for s in drawn.states.values()]))
        unit = intensity.unit(body, Level(**section["levels"][role]))
        for name, grid in [(role, "visit_grid")] + ([("contrast_fine", "fine_grid")] if role == "contrast" else []):
            affine = grids[grid].patient_affine(centre, side)
            values = resample(volume, affine, grids[grid].shape) / unit
            tensors[name], meta["scale"][name] = hips.quantize(np.clip(values, 0, section["ceiling"]))
            meta["grids"][name] = {"shape": list(grids[grid].shape), "spacing": list(grids[grid].spacing)}
            meta["source_spacing_mm"][name] = [float(mm) for mm in volume.spacing]
            meta["patient_affine"][name] = affine.tolist()
            meta["sources"][name] = meta["frame_of_reference"][name] = "2.25.1"
    hips.write(folder / f"data/hips/{key}.safetensors", hips.HipFile(tensors, meta))
    shapes = [(name, drawn.truth[side].box, getattr(drawn.truth[side], name), drawn.series[0], "visit_grid")
              for name in ("head", "lesion")]  # fmt: skip
    if side in drawn.vessels:
        shapes.append(("vessel", *drawn.vessels[side], drawn.series[2], "fine_grid"))
    masks = {}
    for name, box, distance, one, grid in shapes:
        far = np.full(one.pixels.shape, 3.0, np.float32)
        far[box] = distance
        there = grids[grid].patient_affine(centre, side)
        near = resample(Volume(far, one.affine), there, grids[grid].shape, fill=3.0)
        masks[f"consensus/{name}"] = (near < 0).astype(np.uint8)
    source = {"sources": dict.fromkeys(masks, "drawn")}
    hips.write(folder / f"data/masks/{key}.safetensors", hips.HipFile(masks, source))
    return [name.removeprefix("consensus/") for name in masks]


def _scores(folder: Path) -> dict[str, Any]:
    from tasks.store.files import read_json

    found = read_json(folder / "reports/evaluate.json")
    wanted = [f"{name}{end}" for name in ("auc", "slope", "brier") for end in ("", "_low", "_high")]
    wanted += ["auc_pooled"]
    out: dict[str, Any] = {}
    for population, one in found["populations"].items():
        if one["n"]:
            rounded = {key: None if one.get(key) is None else round(one[key], 3) for key in wanted}
            baselines = {name: None if row.get("auc") is None else round(row["auc"], 3)
                         for name, row in one["baselines"].items()}  # fmt: skip
            counts = {key: one[key] for key in ("n", "n_events", "n_patients")}
            out[population] = counts | rounded | {"baselines_auc": baselines}
    return out


def _dealt_again(folder: Path, params: dict[str, Any]) -> dict[str, Any]:
    """AUC and slope over DEALS random deals of the same patients and measurements into as many folds: how much of both
    is the luck of one deal, which an interval from resampled patients holds fixed. The forecaster alone is fitted
    anew."""
    from tasks.forecast import forecast
    from tasks.forecast.params import Params
    from tasks.store import tables
    from tasks.training import metrics

    frame = tables.read("sequences", folder / forecast.SEQUENCES)
    names = (folder / forecast.NAMES).read_bytes()
    learnt = ~frame["fold"].isin(forecast.NOT_TRAINED)
    patients = frame.loc[learnt, "subject"].drop_duplicates().sort_values().to_numpy()
    folds = frame.loc[learnt, "fold"].nunique()
    found: dict[str, list[float]] = {"auc": [], "slope": []}
    for seed in range(DEALS):
        dealt = dict(zip(np.random.default_rng([SEED, seed]).permutation(patients),
                         np.arange(len(patients)) % folds, strict=True))  # fmt: skip
        again = frame[learnt].assign(fold=frame.loc[learnt, "subject"].map(dealt).astype(str))
        with tempfile.TemporaryDirectory(prefix="osteoflow-bench-") as place, chdir(place):
            tables.write("sequences", forecast.SEQUENCES, again)
            forecast.NAMES.write_bytes(names)
            forecast.run(Params(**params["forecast"] | {"metric_resamples": 2, "leave_vendor_out": False}), map)
            one = tables.read("predictions", forecast.PREDICTIONS)
        one = one[one["label"].notna() & one["risk"].notna()]
        label, risk = (one[name].to_numpy(dtype=np.float64) for name in ("label", "risk"))
        for name, statistic in (("auc", metrics.auc), ("slope", metrics.slope)):
            found[name].append(float(metrics.within(statistic, one["fold"])(label, risk)))
    return {"deals": DEALS} | {
        name: {"mean": round(float(np.mean(v)), 3), "sd": round(float(np.std(v, ddof=1)), 3),
               "least": round(min(v), 3), "most": round(max(v), 3)} for name, v in found.items()
    }  # fmt: skip


def _vessels(folder: Path) -> dict[str, Any]:
    """Of the masks that networks drew which had not seen the patient: length against truth, and change within hips."""
    import feature_cohort
    import pandas as pd

    truth = feature_cohort.make(LEARN + TEST, SEED)["truth"][["hip_visit", "vessel_length_mm", "patient", "side"]]
    both = pd.read_parquet(folder / "data/measures.parquet").merge(truth, on="hip_visit", suffixes=("", "_true"))
    both = both[both["vessel_length_mm"].notna()]
    if len(both) < 3:
        return {"n": len(both)}
    error = both["vessel_length_mm"] - both["vessel_length_mm_true"]
    within = error.groupby([both["patient"], both["side_true"]]).transform(lambda e: e - e.mean())
    hips = both.groupby(["patient", "side_true"]).ngroups
    return {
        "n": len(both), "hips": hips, "bias_mm": round(float(error.mean()), 1), "sd_mm": round(float(error.std()), 1),
        "sd_within_a_hip_mm": round(float(np.sqrt((within**2).sum() / max(len(both) - hips, 1))), 1),
        "stored_se_mm": round(float(np.sqrt((both["vessel_length_mm_se"] ** 2).mean())), 1),
        "r": round(float(np.corrcoef(both["vessel_length_mm"], both["vessel_length_mm_true"])[0, 1]), 2),
    }  # fmt: skip
