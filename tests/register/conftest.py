"""A workspace with a tiny trained forecaster, as the stages before register leave it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from tasks.nets.forecaster import Residual
from tasks.register.__main__ import main
from tasks.store import tables
from tasks.store.files import write_json

NAMES = ["lesion_fraction", "kerboul_deg", "missing_contrast"]
PARAMS = {
    "register": {"name": "onfh-progression", "example_patients": 2},
    "standardize": {"visit_window_days": 21},
    "forecast": {"horizon_days": 365},
    "split": {"folds": 5},
}


@pytest.fixture
def sections():
    return PARAMS


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """Write the inputs of register below the working directory."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    width = len(NAMES)
    for fold in ("0", "1"):
        tensors = {
            "impute": torch.zeros(width),
            "centre": torch.zeros(width),
            "scale": torch.ones(width),
            "weight": torch.tensor([1.0, 0.5, 0.0] + [0.0] * (2 * width)),
            "alpha": torch.full((4,), -2.0),
            "spread": torch.randn(8, 3 * width + 1) * 0.1,
            "whiten": torch.eye(width),
        }
        residual = {f"residual.{key}": value for key, value in Residual(width, 4).state_dict().items()}
        folder = Path("models/forecast")
        folder.mkdir(parents=True, exist_ok=True)
        save_file({k: v.double() for k, v in tensors.items()} | residual, folder / f"fold{fold}.safetensors")
        write_json(folder / f"fold{fold}.json", {"hidden": 4, "amount": 0.0})
    facts = {
        "members": ["fold0", "fold1"],
        "features": NAMES,
        "interval": 0.9,
        "calibration": {"intercept": 0.0, "slope": 1.0},
        "required_roles": [],
        "usual": [0, 1],
        "max_missing_share": 0.6,
        "distance_limit": 5.0,
    }
    write_json(Path("models/forecast/ensemble.json"), facts)
    write_json(Path("models/forecast/inputs.json"), NAMES)
    for part in ("classify", "segment"):
        write_json(Path(f"models/{part}/facts.json"), {"part": part})
    (Path("models/classify") / "notes.txt").write_text("not for the package")
    rows = [
        {
            "hip": f"OF{patient}-L",
            "hip_visit": f"2.25.{patient}{visit}-L",
            "subject": f"OF{patient}",
            "study": f"2.25.{patient}{visit}",
            "side": "L",
            "days": visit * 100.0,
            "delta_days": 100.0 if visit else np.nan,
            "treatment": None if visit == 0 else "observation",
            "label": [0.0, 1.0, np.nan][patient % 3],
            "horizon_days": 365.0,
            "fold": "test" if patient == 3 else str(patient % 2),
            "features": None if (patient, visit) == (2, 1) else [0.1 * patient, np.nan if visit else 1.0, 0.0],
            "roles": "t1+fluid",
            "origin": "phantom",
            "status": "ok",
        }
        for patient in range(4)
        for visit in range(2)
    ]
    frame = pd.DataFrame(rows)
    sequences = [*(c for c in tables.COLUMNS["sequences"] if c in frame), "roles"]
    tables.write("sequences", Path("data/sequences.parquet"), frame[sequences])
    tables.write("hips", Path("data/hips.parquet"), frame.drop(columns=["features", "label"]))
    series = frame[["study"]].assign(series="2.25.1", vendor="Vendor A", status="used")
    tables.write("series", Path("data/series.parquet"), series)
    report = {
        "model": "onfh-progression", "population": "test", "n": 8, "n_patients": 4, "n_events": 2, "auc": 0.8,
        "auc_low": 0.5, "auc_high": 1.0, "brier": 0.2, "slope": None, "intercept": None, "small_note": "few",
        "baselines": {"last_visit": {"auc": 0.7, "auc_low": 0.4, "auc_high": 0.9, "n": 8, "n_events": 2}},
    }  # fmt: skip
    write_json(Path("reports/evaluate.json"), report)
    return tmp_path


@pytest.fixture
def package(workspace):
    main(params=PARAMS, mapper=map)
    return Path("models/package")
