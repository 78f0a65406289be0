"""The clinical tables that go with the images: what readers wrote down, treatments and outcomes."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd

from tasks.domain.disease import ARCO
from tasks.phantom.disease import Population, events
from tasks.phantom.geometry import JIC_EDGES
from tasks.phantom.identity import Hospital, Person
from tasks.phantom.presets import DAYS_A_MONTH

READS = (0.96, 0.72)
"""How often the first and the second reader read a visit."""


def labels(
    cohort: Population, people: list[Person], where: Hospital, uids: dict[tuple[int, int], str], site: str, seed: int
) -> pd.DataFrame:
    """labels.csv: one row a hip-visit and reader, hips with an implant left out."""
    rows = []
    for number, reader in enumerate(where.readers):
        rng, habit = np.random.default_rng([seed, 50, number]), (2, -2)[number]
        for _, visit in cohort.visits.iterrows():
            draws, chance = rng.normal(size=8), rng.random(4)
            if chance[0] > READS[number] or visit["implant"]:
                continue
            affected = bool(visit["affected"])
            seen = affected if chance[1] > (0.015 if affected else 0.03) else not affected
            row = {
                "site": site,
                "patient_id": people[int(visit["patient"])].patient_id,
                "study_instance_uid": uids[int(visit["patient"]), int(visit["visit"])],
                "side": visit["side"],
                "reader": reader,
                "lesion": str(int(seen)),
            }
            if seen and affected:
                stage = ARCO.index(visit["arco"])
                if chance[2] < 0.10:
                    stage = int(np.clip(stage + (1 if chance[3] < 0.5 else -1), 0, len(ARCO) - 1))
                margin = visit["lateral_deg"] + 4.5 * draws[0]
                depth = visit["collapse_mm"] + 0.35 * draws[1] * (visit["collapse_mm"] > 0)
                arcs = [
                    visit[f"kerboul_{plane}_deg"] + 7 * draws[k] + habit
                    for plane, k in (("coronal", 2), ("sagittal", 3))
                ]
                row |= {
                    "arco": ARCO[stage],
                    "jic": ("A", "B", "C1", "C2")[int(np.searchsorted(JIC_EDGES, margin))],
                    "collapse_mm": f"{max(0.0, round(depth * 2) / 2):g}",
                    "kerboul_coronal_deg": f"{np.clip(arcs[0], 0, 200):.0f}",
                    "kerboul_sagittal_deg": f"{np.clip(arcs[1], 0, 200):.0f}",
                }
            rows.append(row)
    columns = ["site", "patient_id", "study_instance_uid", "side", "reader", "arco", "jic", "collapse_mm",
               "kerboul_coronal_deg", "kerboul_sagittal_deg", "lesion"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns).sort_values(
        ["patient_id", "study_instance_uid", "side", "reader"], ignore_index=True
    )


def treatments(cohort: Population, people: list[Person], site: str) -> pd.DataFrame:
    """treatments.csv: the arm of each affected hip at its date, and arthroplasties, up to the end of follow-up."""
    hips = cohort.hips[cohort.hips["affected"]]
    rows = []
    for _, hip in hips.iterrows():
        end = cohort.patients["follow_up_months"].iloc[hip["patient"]] * DAYS_A_MONTH
        last = min(end, hip["arthroplasty_month"] * DAYS_A_MONTH)
        day = np.ceil(hip["treatment_month"] * DAYS_A_MONTH)
        if day <= last:
            rows.append((hip["patient"], hip["side"], day, hip["treatment"]))
        replaced = np.ceil(hip["arthroplasty_month"] * DAYS_A_MONTH)
        if replaced <= end:
            rows.append((hip["patient"], hip["side"], replaced, "arthroplasty"))
    return _dated(rows, "treatment", people, site)


def outcomes(cohort: Population, people: list[Person], site: str) -> pd.DataFrame:
    """outcomes.csv: events up to the end of each patient's follow-up, and that end for both hips."""
    end = np.floor(cohort.patients["follow_up_months"].to_numpy() * DAYS_A_MONTH)
    table = events(cohort.hips)
    table = table[table["day"] <= end[table["patient"]]]
    rows = list(table[["patient", "side", "day", "event"]].itertuples(index=False, name=None))
    rows += [(patient, side, end[patient], "last_follow_up") for patient in range(len(end)) for side in ("L", "R")]
    return _dated(rows, "event", people, site)


def _dated(rows: list[tuple], what: str, people: list[Person], site: str) -> pd.DataFrame:
    table = pd.DataFrame(
        [
            (site, people[patient].patient_id, side, people[patient].first_visit + dt.timedelta(days=int(day)), value)
            for patient, side, day, value in rows
        ],
        columns=["site", "patient_id", "side", "date", what],
    )  # fmt: skip
    return table.sort_values(["patient_id", "side", "date", what], ignore_index=True)
