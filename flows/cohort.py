"""A phantom cohort in two drops: first the archive of those who came first, then the visits that follow.

Patients in the order of their first visit: a hospital loads its closed cases first. One patient may stand on the
border, with the first visits and what was known by then in the first drop, and the others in the second.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from pydicom import dcmread


@dataclass(frozen=True)
class Drop:
    dicom: Path
    annotations: Path
    studies: int


def drops(cohort: Path, share: float) -> list[Drop]:
    """The first `share` of the studies with what was known by then, and the others with what came after.

    Files are linked, not copied. Everything stays below `cohort`, in the identified zone.
    """
    visits = pd.read_csv(cohort / "truth" / "hips.csv", dtype=str).drop_duplicates("study_instance_uid")
    visits["enrolled"] = visits.groupby("patient_id")["date"].transform("min")
    visits = visits.sort_values(["enrolled", "patient_id", "date"], ignore_index=True)
    cut = round(len(visits) * share)
    known = _known_by(visits, cut)
    made = []
    for number, part in enumerate((visits[:cut], visits[cut:]), start=1):
        place = cohort / "drops" / str(number)
        for folder in part["folder"]:
            shutil.copytree(cohort / "dicom" / folder, place / "dicom" / folder, copy_function=os.link)
        studies = set(part["study_instance_uid"])
        _annotations(cohort / "annotations", place / "annotations", studies, known, number == 1)
        made.append(Drop(place / "dicom", place / "annotations", len(part)))
    return made


def _known_by(visits: pd.DataFrame, cut: int) -> dict[str, str]:
    """patient_id -> the last day of whom something is known in the first drop; patients of the second are not in it."""
    first, second = visits[:cut], visits[cut:]
    border = set(second["patient_id"])
    return {
        str(patient): str(dates.max()) if patient in border else "9999-12-31"
        for patient, dates in first.groupby("patient_id")["date"]
    }


def _annotations(source: Path, target: Path, studies: set[str], known: dict[str, str], first: bool) -> None:
    """Rows of these studies, and dated rows of what is `known` in the first drop (or is not); the masks with them."""
    target.mkdir(parents=True)
    files: set[str] = set()
    for path in sorted(source.glob("*.csv")):
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
        if "study_instance_uid" in frame:
            frame = frame[frame["study_instance_uid"].isin(studies)]
        elif "date" in frame:
            frame = frame[(frame["date"] <= frame["patient_id"].map(known).fillna("")) == first]
        files |= set(frame["file"]) if "file" in frame else set()
        frame.to_csv(target / path.name, index=False)
    for path in sorted(source.iterdir()):
        drawn = path.suffix == ".dcm"
        if path.name in files or (drawn and _study(path) in studies):
            os.link(path, target / path.name)


def _study(path: Path) -> str:
    return str(dcmread(path, specific_tags=["StudyInstanceUID"], stop_before_pixels=True).StudyInstanceUID)
