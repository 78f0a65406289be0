"""The rows that are scored: one a hip-visit, its label and fold from the sequences, its risks from the predictions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from tasks.domain.disease import JIC
from tasks.store import tables

DATA = Path("data")
SCORES = {"lesion_fraction": "lesion_size", "kerboul_deg": "kerboul", "jic": "jic"}
"""Baselines that are ranked only, where the predictions bring no `risk_<name>` of them. Higher means a higher risk."""
SUBGROUPS = ("vendor", "sex", "side", "treatment", "site", "visit")


def load() -> pd.DataFrame:
    """Every row of sequences.parquet with risk, risk_*, abstain, the ranked baselines and the subgroups.

    What a cohort does not have (a JIC type, a vendor, a measurement) is null.
    """
    frame = tables.read("sequences", DATA / "sequences.parquet").drop(columns="features")
    predictions = tables.read("predictions", DATA / "predictions.parquet")
    risks = [c for c in map(str, predictions) if c.startswith("risk") or c == "abstain"]
    frame = _join(frame, predictions[["hip_visit", *risks]])
    frame["abstain"] = frame["abstain"].fillna("")
    hips = tables.read("hips", DATA / "hips.parquet")
    known = [c for c in ("vendor", "sex", "site", "origin", "date") if c in hips and c not in frame]
    frame = _join(frame, hips[["hip_visit", *known]])
    if "vendor" not in frame:
        frame = _join(frame, hips[["hip_visit", "study"]].merge(vendors(), on="study", how="left"))
    measures = tables.read("measures", DATA / "measures.parquet")
    wanted = [c for c in ("lesion_fraction", "kerboul_deg", "collapse_mm", "vessel_length_mm") if c not in frame]
    frame = _join(frame, measures[["hip_visit", *wanted]])
    annotations = tables.read("annotations", DATA / "annotations.parquet")
    for name in ("jic", "arco"):
        frame = _join(frame, consensus(annotations, name))
    frame["jic"] = frame["jic"].map({grade: float(i) for i, grade in enumerate(JIC)})
    if "sex" not in frame:
        frame["sex"] = None
    for column in ("vendor", "site", "origin"):
        if column not in frame:
            frame[column] = None
    frame["treatment"] = frame["treatment"].fillna("none recorded")
    frame["visit"] = np.where(frame["days"] <= frame.groupby("hip")["days"].transform("min"), "first", "later")
    return frame.sort_values(["hip", "days", "hip_visit"], ignore_index=True)


def vendors() -> pd.DataFrame:
    """study and vendor: the maker of its scanner, by the series that were used; several are joined by '+'."""
    series = tables.read("series", DATA / "series.parquet")
    used = series[(series["status"] != "rejected") & series["vendor"].notna()]
    named = used.groupby("study")["vendor"].agg(lambda words: "+".join(sorted(set(words))))
    return named.rename("vendor").reset_index()


def consensus(annotations: pd.DataFrame, name: str) -> pd.DataFrame:
    """hip_visit and `name`: the consensus label of each hip-visit that has one."""
    rows = annotations[(annotations["kind"] == "label") & (annotations["name"] == name)]
    rows = rows[rows["reader"] == "consensus"].drop_duplicates("hip_visit", keep="last")
    return rows[["hip_visit", "value"]].rename(columns={"value": name}).dropna(subset="hip_visit")


def scored(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows with a known label and a risk."""
    return frame[frame["label"].isin((0.0, 1.0)) & np.isfinite(frame["risk"])]


def populations(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """`test`: the frozen test patients. `out_of_fold`: the others, each scored by networks that never saw them."""
    return {"test": frame[frame["fold"] == "test"], "out_of_fold": frame[frame["fold"] != "test"]}


def primary(frame: pd.DataFrame) -> tuple[str, str]:
    """Name of the primary population, and why it is that one."""
    for name, note in (
        ("test", "Frozen test patients, never used for training or tuning."),
        (
            "out_of_fold",
            "The test patients do not hold both events and non-events yet: out-of-fold predictions instead.",
        ),
    ):
        labels = scored(populations(frame)[name])["label"]
        if labels.nunique() == 2:
            return name, note
    return "none", "No population holds both an event and a non-event with a risk: nothing can be scored yet."


def by_unit(rows: pd.DataFrame, columns: list[str]) -> dict[str, pd.DataFrame]:
    """The same scored rows per hip-visit; per hip (its last visit with a known label); per patient (the highest value
    over the hips, an event in any)."""
    last = rows.sort_values(["days", "hip_visit"]).drop_duplicates("hip", keep="last").sort_values("hip")
    patient = last.groupby("subject", as_index=False)[["label", *columns]].max()
    return {"hip-visit": rows, "hip": last, "patient": patient}


def _join(left: pd.DataFrame, right: pd.DataFrame) -> pd.DataFrame:
    right = right[["hip_visit", *(c for c in right if c not in left)]]
    return left.merge(right.drop_duplicates("hip_visit"), on="hip_visit", how="left")
