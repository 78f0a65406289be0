"""The rows that are scored: one a hip-visit, its label and fold from the sequences, its risks from the predictions."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from tasks.domain.disease import JIC
from tasks.store import tables

DATA = Path("data")
SCORES = {"lesion_fraction": "lesion_size", "kerboul_deg": "kerboul", "jic": "jic"}
"""Baselines that are ranked only, where the predictions bring no `risk_<name>` of them. Higher means a higher risk."""
SUBGROUPS = ("vendor", "sex", "age_band", "side", "arco", "treatment", "site", "visit")


def load(age_bands: tuple[float, ...] = ()) -> pd.DataFrame:
    """Every row of sequences.parquet with risk, risk_*, abstain, the ranked baselines and the subgroups.
    `inputs` is the number of the model's inputs.

    What a cohort does not have (a JIC type, a vendor, a measurement) is null.
    """
    frame = tables.read("sequences", DATA / "sequences.parquet")
    inputs = max((len(vector) for vector in frame["features"] if vector is not None), default=0)
    frame = frame.drop(columns="features").assign(inputs=float(inputs))
    predictions = tables.read("predictions", DATA / "predictions.parquet")
    risks = [
        c for c in map(str, predictions) if c.startswith("risk") or c in ("abstain", "seen_risk", "unseen_vendor_risk")
    ]
    frame = _join(frame, predictions[["hip_visit", *risks]])
    frame["abstain"] = frame["abstain"].fillna("")
    hips = tables.read("hips", DATA / "hips.parquet")
    known = [c for c in ("vendor", "sex", "site", "origin", "date") if c in hips and c not in frame]
    frame = _join(frame, hips[["hip_visit", *known]])
    if "vendor" not in frame or not frame["vendor"].notna().any():
        frame = frame.drop(columns="vendor", errors="ignore")
        frame = _join(frame, hips[["hip_visit", "study"]].merge(vendors(), on="study", how="left"))
    measures = tables.read("measures", DATA / "measures.parquet")
    numbers = [str(c) for c in measures if pd.api.types.is_float_dtype(measures[c]) and not str(c).endswith("_se")]
    frame = _join(frame, measures[["hip_visit", *(c for c in numbers if c not in frame)]])
    annotations = tables.read("annotations", DATA / "annotations.parquet")
    for name in ("jic", "arco"):
        frame = _join(frame, consensus(annotations, name))
    frame["jic"] = frame["jic"].map({grade: float(i) for i, grade in enumerate(JIC)})
    for column in ("vendor", "site", "origin", "sex", "age_years"):
        if column not in frame:
            frame[column] = None
    frame["age_band"] = age_band(frame["age_years"], age_bands)
    frame["treatment"] = frame["treatment"].fillna("none recorded")
    frame["visit"] = np.where(frame["days"] <= frame.groupby("hip")["days"].transform("min"), "first", "later")
    return frame.sort_values(["hip", "days", "hip_visit"], ignore_index=True)


def age_band(years: pd.Series, edges: tuple[float, ...]) -> pd.Series:
    """'under 40', '40 to 59', '60 and over' for edges (40, 60); null where the age is not known."""
    names = [f"{low:g} to {high - 1:g}" for low, high in pairwise(edges)]
    names = [f"under {edges[0]:g}", *names, f"{edges[-1]:g} and over"] if edges else ["any age"]
    age = pd.to_numeric(years, errors="coerce")
    return pd.Series(
        [None if np.isnan(one) else names[int(np.searchsorted(edges, one, side="right"))] for one in age], years.index,
        dtype=object,
    )  # fmt: skip


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
    """`test`: the frozen test patients. `out_of_fold`: those in a fold, each scored by networks that never saw them.
    `external`: sites that nothing was trained, tuned or gated on, if there are any. Withdrawn patients are nowhere."""
    fold = frame["fold"].fillna("none").astype(str)
    found = {"test": frame[fold == "test"], "out_of_fold": frame[~fold.isin(["test", "external", "none"])]}
    return found | ({"external": frame[fold == "external"]} if (fold == "external").any() else {})


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
    patient = last.groupby("subject", as_index=False)[["label", "fold", *columns]].max()
    return {"hip-visit": rows, "hip": last, "patient": patient}


def _join(left: pd.DataFrame, right: pd.DataFrame) -> pd.DataFrame:
    right = right[["hip_visit", *(c for c in right if c not in left)]]
    return left.merge(right.drop_duplicates("hip_visit"), on="hip_visit", how="left")
