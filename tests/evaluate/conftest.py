"""A small cohort in the tables that the stage reads."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tasks.evaluate.params import Params
from tasks.store import tables

MORE = ["event_in_days", "followed_days", "not_at_risk", "ineligible", "sex", "age_years", "vendor"]
"""Columns of sequences.parquet beyond those that every table has."""


@pytest.fixture
def params() -> Params:
    return Params(
        resamples=200,
        seed=1,
        level=0.95,
        bins=5,
        recall=0.8,
        thresholds=(0.05, 0.6, 0.05),
        small_events=20,
        suppress_below=5,
        explain_hips=3,
        times=(182, 730),
        cox={"covariates": ("lesion_fraction", "kerboul_deg"), "penalizer": 0.1, "min_events": 5},
        age_bands=(40, 60),
        r2_share=0.15,
    )


@pytest.fixture
def cohort(tmp_path, monkeypatch):
    """Write the tables of `patients` patients below the working directory; `without` drops what a cohort may lack."""
    monkeypatch.chdir(tmp_path)

    def write(patients: int = 30, test_events: bool = True, jic: bool = True, extra: bool = True) -> pd.DataFrame:
        draw = np.random.default_rng(3)
        rows = []
        for patient in range(patients):
            fold = "test" if patient % 4 == 0 else str(patient % 3)
            for side in "LR":
                for visit in range(3):
                    risk = float(draw.beta(2, 4))
                    label = float(draw.random() < risk) if visit < 2 else np.nan
                    if fold == "test" and not test_events:
                        label = 0.0 if visit < 2 else np.nan
                    rows.append(
                        {
                            "hip": f"OF{patient:03d}-{side}",
                            "hip_visit": f"2.25.{patient}{visit}-{side}",
                            "subject": f"OF{patient:03d}",
                            "study": f"2.25.{patient}{visit}",
                            "side": side,
                            "days": visit * 120.0,
                            "delta_days": 120.0 if visit else np.nan,
                            "treatment": "core_decompression" if patient % 3 == 0 else None,
                            "label": label,
                            "event_in_days": 200.0 if label == 1 else np.nan,
                            "followed_days": 200.0 if label == 1 else 400.0 if label == 0 else 100.0,
                            "not_at_risk": "",
                            "ineligible": "",
                            "sex": "MF"[patient % 2],
                            "age_years": 30.0 + patient,
                            "seen_risk": risk if fold != "test" else np.nan,
                            "unseen_vendor_risk": 0.9 * risk if fold != "test" else np.nan,
                            "horizon_days": 365.0,
                            "fold": fold,
                            "features": [risk, np.nan],
                            "risk": risk,
                            "risk_low": risk * 0.8,
                            "risk_high": min(1, risk * 1.2),
                            "abstain": "out_of_distribution" if patient == 5 else "",
                            "risk_last_visit": float(np.clip(risk + draw.normal(0, 0.2), 0.01, 0.99)),
                            "lesion_fraction": np.nan if visit == 1 else risk / 3,
                            "kerboul_deg": 200 + 100 * risk,
                            "vendor": ["A", "B"][patient % 2],
                            "origin": "phantom",
                            "status": "ok",
                        }
                    )
        frame = pd.DataFrame(rows)
        data = Path("data")
        more = MORE if extra else MORE[:-1]
        tables.write(
            "sequences",
            data / "sequences.parquet",
            pd.concat([_only(frame, "sequences"), frame[more]], axis=1),
        )
        wanted = [
            "hip_visit",
            "subject",
            "fold",
            "label",
            "risk",
            "risk_low",
            "risk_high",
            "abstain",
            "risk_last_visit",
            "seen_risk",
            "unseen_vendor_risk",
        ]
        tables.write("predictions", data / "predictions.parquet", frame[wanted])
        tables.write("measures", data / "measures.parquet", _only(frame, "measures"))
        tables.write("hips", data / "hips.parquet", frame[_names(frame, "hips")])
        series = frame[["study", "vendor"]].drop_duplicates().assign(status="used", series="2.25.9")
        tables.write("series", data / "series.parquet", series if extra else series.iloc[:0])
        notes = frame[["hip_visit", "subject", "side", "days"]].assign(
            reader="consensus", kind="label", name="jic", value="C1", source="table"
        )
        tables.write("annotations", data / "annotations.parquet", notes if jic else notes.iloc[:0])
        return frame

    return write


def _names(frame: pd.DataFrame, kind: str) -> list[str]:
    return [column for column in tables.COLUMNS[kind] if column in frame]


def _only(frame: pd.DataFrame, kind: str) -> pd.DataFrame:
    return frame[_names(frame, kind)]
