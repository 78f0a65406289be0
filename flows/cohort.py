"""A phantom cohort in two drops, as time would have brought it: what is dated up to a day first, the rest later."""

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
    """The first `share` of the studies by date with what was known by then, and the others with what came after.

    Files are linked, not copied. Everything stays below `cohort`, in the identified zone.
    """
    visits = pd.read_csv(cohort / "truth" / "hips.csv", dtype=str).drop_duplicates("study_instance_uid")
    visits = visits.sort_values(["date", "study_instance_uid"], ignore_index=True)
    cut = round(len(visits) * share)
    today = visits["date"].iloc[cut - 1]
    made = []
    for number, part in enumerate((visits[:cut], visits[cut:]), start=1):
        place = cohort / "drops" / str(number)
        for folder in part["folder"]:
            shutil.copytree(cohort / "dicom" / folder, place / "dicom" / folder, copy_function=os.link)
        _annotations(cohort / "annotations", place / "annotations", set(part["study_instance_uid"]), today, number == 1)
        made.append(Drop(place / "dicom", place / "annotations", len(part)))
    return made


def _annotations(source: Path, target: Path, studies: set[str], today: str, first: bool) -> None:
    """Rows of these studies, and dated rows up to `today` (or after it); the masks that go with them."""
    target.mkdir(parents=True)
    files: set[str] = set()
    for path in sorted(source.glob("*.csv")):
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
        if "study_instance_uid" in frame:
            frame = frame[frame["study_instance_uid"].isin(studies)]
        elif "date" in frame:
            frame = frame[(frame["date"] <= today) == first]
        files |= set(frame["file"]) if "file" in frame else set()
        frame.to_csv(target / path.name, index=False)
    for path in sorted(source.iterdir()):
        drawn = path.suffix == ".dcm"
        if path.name in files or (drawn and _study(path) in studies):
            os.link(path, target / path.name)


def _study(path: Path) -> str:
    return str(dcmread(path, specific_tags=["StudyInstanceUID"], stop_before_pixels=True).StudyInstanceUID)
