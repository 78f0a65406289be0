"""A cohort without images: the tables that assemble, forecast, effect and score read, from tasks.phantom's simulation.

`make(patients, seed)` returns {table: frame}; `write(folder, tables)` puts them where the stages look for them.
Measurements carry the simulation's measurement error; two of the encoder's outputs say something, two are noise.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from tasks.domain.disease import JIC
from tasks.phantom.disease import events, population
from tasks.store import tables

PARAMS = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text(encoding="utf-8"))
JIC_EDGES = (-5.33, 13.33, 32.0)


def subject_of(patient: int) -> str:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
    return "OF" + "".join(letters[(patient >> (5 * i)) & 31] for i in range(15, -1, -1))


def make(patients: int, seed: int, folds: int = 5, test: float = 0.25, noise: float = 1.0) -> dict[str, pd.DataFrame]:
    people = population(patients, seed, noise=noise)
    rng = np.random.default_rng([seed, 77])
    visits = people.visits.sort_values(["patient", "side", "days"]).reset_index(drop=True)
    visits = visits[~visits["implant"]].reset_index(drop=True)
    visits["subject"] = visits["patient"].map(subject_of)
    visits["study"] = [f"2.25.{10**6 + 100 * p + v}" for p, v in zip(visits["patient"], visits["visit"], strict=True)]
    visits["hip_visit"] = visits["study"] + "-" + visits["side"]
    hips = visits[["hip_visit", "subject", "study", "side", "days"]].assign(
        center_x_mm=0.0, center_y_mm=0.0, center_z_mm=0.0, roles="t1+fluid+contrast", status="ok", reason=None,
        file=visits["hip_visit"] + ".safetensors", digest="", date=None, origin="phantom",
    )  # fmt: skip
    seen = {
        name: visits[f"obs_{name}"]
        for name in (
            "lesion_fraction",
            "kerboul_deg",
            "lateral_deg",
            "collapse_mm",
            "vessel_length_mm",
            "vessel_branches",
        )
    }
    rank = np.searchsorted(JIC_EDGES, visits["obs_lateral_deg"])
    measures = hips[["hip_visit", "subject", "study", "side", "days"]].assign(
        **seen, oedema_index=visits["obs_oedema"], effusion_index=visits["obs_effusion"], jic_rank=rank.astype(float),
        jic=[JIC[i] for i in rank], lesion_volume_mm3=visits["obs_lesion_fraction"] * 58000, vessel_status="ok",
        **{f"{name}_se": 0.1 for name in seen},
    )  # fmt: skip
    lateral = visits["obs_lateral_deg"] + rng.normal(0, 8, len(visits))
    oedema = visits["obs_oedema"] + rng.normal(0, 0.2, len(visits))
    encoded = np.column_stack([oedema, lateral, rng.normal(size=(len(visits), 2))])
    part = np.random.default_rng([seed, 5]).permutation(patients)
    n_test = round(test * patients)
    fold = {subject_of(p): "test" if i < n_test else str(i % folds) for i, p in enumerate(part)}
    features = hips[["hip_visit", "subject", "side"]].assign(fold=hips["subject"].map(fold), features=list(encoded))
    split = pd.DataFrame(sorted(fold.items()), columns=["subject", "fold"])
    return {
        "hips": hips, "measures": measures, "features": features, "split": split,
        "annotations": _annotations(people.hips, visits), "truth": visits,
    }  # fmt: skip


def _annotations(hips: pd.DataFrame, visits: pd.DataFrame) -> pd.DataFrame:
    rows: list[dict[str, object]] = []
    for visit in visits.itertuples():
        values = {"lesion": str(int(visit.affected))}
        if visit.affected:
            values |= {"arco": visit.arco, "collapse_mm": f"{visit.collapse_mm:.2f}"}
        rows += [
            {"hip_visit": visit.hip_visit, "subject": visit.subject, "side": visit.side, "reader": "consensus",
             "kind": "label", "name": name, "value": value, "source": "labels", "days": visit.days}
            for name, value in values.items()
        ]  # fmt: skip
    end = visits.groupby(["patient", "side"])["end_days"].first()

    def event(patient: int, side: str, kind: str, name: str, day: float) -> dict[str, object]:
        return {"hip_visit": None, "subject": subject_of(patient), "side": side, "reader": None, "kind": kind,
                "name": name, "value": "1", "source": f"{kind}s", "days": day}  # fmt: skip

    for row in events(hips).itertuples():
        if row.day <= end.get((row.patient, row.side), -1.0):
            rows.append(event(row.patient, row.side, "outcome", row.event, row.day))
    for (patient, side), last in end.items():
        rows.append(event(patient, side, "outcome", "last_follow_up", last))
    treated = visits.drop_duplicates(["patient", "side"])
    for row in treated[treated["affected"]].itertuples():
        day = float(np.ceil(row.treatment_month * 30.4375))
        if day <= row.end_days:
            rows.append(event(row.patient, row.side, "treatment", row.treatment, day))
    return pd.DataFrame(rows)


def write(folder: Path, cohort: dict[str, pd.DataFrame]) -> None:
    """data/*.parquet below `folder`, and params.yaml as it stands in the checkout."""
    for name in ("hips", "measures", "features", "split", "annotations"):
        tables.write(name, folder / "data" / f"{name}.parquet", cohort[name])
    (folder / "params.yaml").write_text(json.dumps(PARAMS), encoding="utf-8")
