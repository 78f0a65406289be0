"""A small workspace as the stages leave it, and the facts that a flow hands in."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tasks.domain.volume import Grid
from tasks.store import hips, tables
from tasks.store.files import write_json, write_text

GRID = Grid((6, 40, 40), (4.0, 2.0, 2.0))


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """Two patients, three visits, both hips; images and predicted masks of all."""
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    rows = []
    for patient in ("OFAAAA", "OFBBBB"):
        for visit in range(3):
            for side in "LR":
                key = f"2.25.{ord(patient[2])}{visit}-{side}"
                risk = 0.2 + 0.2 * visit + (0.1 if side == "L" else 0)
                rows.append(
                    {
                        "hip": f"{patient}-{side}", "hip_visit": key, "subject": patient,
                        "study": key.rpartition("-")[0], "side": side, "days": 150.0 * visit, "horizon_days": 365.0,
                        "label": [0.0, 1.0, np.nan][visit] if side == "L" else 0.0,
                        "fold": "test" if patient == "OFAAAA" else "0", "features": [1.0],
                        "file": f"000001/{key}.safetensors", "status": "ok", "reason": None, "origin": "phantom",
                        "risk": risk, "risk_low": risk - 0.1, "risk_high": risk + 0.1,
                        "abstain": "no contrast series" if (visit, side) == (2, "R") else "",
                        "batch": "000001", "archive": "x.zip", "version": 1.0, "digest": "d" * 64, "files": 54.0,
                    }
                )  # fmt: skip
                d, h, w = np.indices(GRID.shape)
                head = (h - 20) ** 2 + (w - 20) ** 2 < 144
                lesion = head & (h < 16) & (d == 2)
                image = head * 0.8 - lesion * 0.5 + draw.normal(0, 0.05, GRID.shape)
                stored, scale = hips.quantize(image)
                meta = {"scale": {"t1": scale}, "side": side}
                hips.write(Path("data/hips") / f"000001/{key}.safetensors", hips.HipFile({"t1": stored}, meta))
                masks = {"head": head.astype(np.uint8), "lesion": lesion.astype(np.uint8)}
                hips.write(Path("data/segments") / f"{key}.safetensors", hips.HipFile(masks, {}))
    frame = pd.DataFrame(rows)
    for name in ("sequences", "predictions", "hips", "studies"):
        columns = [column for column in tables.COLUMNS[name] if column in frame]
        unique = frame.drop_duplicates("study") if name == "studies" else frame
        tables.write(name, Path(f"data/{name}.parquet"), unique[columns])
    notes = pd.DataFrame(
        [
            (frame["hip_visit"][0], "consensus", "label", "arco", "3A", 0.0),
            (None, "r", "treatment", "core_decompression", "core_decompression", 40.0),
            (None, "r", "outcome", "collapse", "collapse", 260.0),
        ],
        columns=["hip_visit", "reader", "kind", "name", "value", "days"],
    ).assign(subject="OFAAAA", side="L")
    tables.write("annotations", Path("data/annotations.parquet"), notes)
    batch = pd.DataFrame({"commitment": ["c1", "c2"], "version": 1.0, "batch": "000001", "origin": "phantom"})
    tables.write("batch", Path("data/batches/000001.parquet"), batch)
    score = {"auc": 0.81, "auc_low": 0.6, "auc_high": 0.95, "brier": 0.18, "brier_low": 0.1, "brier_high": 0.25}
    counted = {"n": 12, "n_events": 2, "n_patients": 2}
    write_json(
        Path("reports/evaluate.json"),
        {
            "model": "onfh-progression", **score, **counted, "slope": 0.9, "slope_low": None, "slope_high": None,
            "intercept": 0.0, "population": "test", "population_note": "Frozen.", "small_note": "few", "small": True,
            "origin": "phantom", "horizon_days": 365.0, "interval": "95% percentile, 2000 resamples of patients",
            "baselines": {"last_visit": score | counted | {
                "difference_auc": 0.02, "difference_low": -0.1, "difference_high": 0.1, "p_holm": 0.6}},
            "units": [{"unit": "hip", **score, **counted}],
            "abstentions": {"n": 12, "abstained": 2, "reasons": {"no contrast series": 2}, "answered": score | counted},
        },
    )  # fmt: skip
    write_text(Path("reports/evaluate/roc.svg"), '<svg xmlns="http://www.w3.org/2000/svg"><text>roc</text></svg>')
    write_text(Path("reports/evaluate/cohort.csv"), "item,level,unit,all,out_of_fold,test\npatients,,patient,2,<5,<5\n")
    write_text(
        Path("reports/compare.csv"),
        "network,unit,n,n_patients,auc,auc_low,auc_high,accuracy,recall,specificity,f1,f1_low,f1_high,brier,"
        "best,p_holm_vs_best,parameters,mmacs\n"
        "mobilenet_v3_large,slice,60,2,0.9,0.8,0.95,0.9,0.9,0.9,0.87,0.7,0.93,0.1,mobilenet_v3_large,,4203313,226.4\n"
        "resnet18,slice,60,2,0.8,0.7,0.9,0.8,0.8,0.8,0.8,0.7,0.9,0.2,mobilenet_v3_large,0.2,11177025,1818.6\n",
    )
    write_json(Path("reports/speed/compare.json"), {"mobilenet_v3_large": {"images_per_s": 281.3}})
    write_text(
        Path("reports/effect.csv"),
        "treatment,outcome,unit,change,low,high,n_hips,n_patients,adjusted,p_holm,reason\n"
        "vascularized_bone_graft,vessel_length_mm,mm,12.0,,,2,2,0,,2 patients\n",
    )
    return tmp_path


@pytest.fixture
def facts():
    return {
        "models": [
            {
                "name": "onfh-progression", "version": 1, "aliases": ["champion"], "digest": "f" * 64,
                "evaluate": {"auc": 0.81, "auc_low": 0.6, "auc_high": 0.95, "brier": 0.18, "n": 12},
                "tags": {"lineage": "a" * 40, "origin": "phantom", "gate": "promoted", "gate_reason": "first"},
            }
        ],
        "decision": {"version": 1, "decision": "promoted", "reason": "first version <script>", "numbers": {
            "d_auc": [0.02, -0.01, 0.05], "n_hip_visits": 12}},
        "lineage": {"commit": "a" * 40, "run": "r", "package": "f" * 64, "inputs": {"data/hips.parquet": "abc"}},
        "arrivals": {"studies": {"complete": 0, "done": 6, "quarantined": 1}, "quarantine": {"not_dicom": 1}},
        "history": [{"action": "promoted", "version": 1, "by": "gate", "reason": "first", "at": "2026-01-01"}],
        "scores": [{"hip_visit": "2.25.650-L", "risk": 0.3, "risk_low": 0.2, "risk_high": 0.4, "version": "1"}],
    }  # fmt: skip
