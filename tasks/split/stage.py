"""`python -m tasks.split`: newcomers get their place, everybody keeps theirs, leaks stop the run."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pandas as pd

from tasks.domain.hip import hip
from tasks.split import leaks
from tasks.split.deal import EXTERNAL, TEST, WITHDRAWN, deal, persons, strata, withdrawn
from tasks.split.params import Params
from tasks.store import tables
from tasks.store.files import write_json
from tasks.store.items import Mapper

log = logging.getLogger("osteoflow.split")

HIPS, STUDIES = Path("data/hips.parquet"), Path("data/studies.parquet")
ANNOTATIONS = Path("data/annotations.parquet")
SPLIT, REPORT = Path("data/split.parquet"), Path("reports/split.json")


def run(params: Params, mapper: Mapper) -> None:
    hips, studies = tables.read("hips", HIPS), tables.read("studies", STUDIES)
    annotations = tables.read("annotations", ANNOTATIONS)
    previous = tables.read("split", SPLIT) if SPLIT.exists() else tables.empty("split")
    frame, moved = assign(hips, studies, annotations, previous, params)
    person_of = persons(frame["subject"], annotations)
    leaks.check(pd.concat([frame, _twice(previous)]), person_of, hips, studies)
    # Null, not a word: a room that trains on 'all but test' must not meet a patient who withdrew.
    written = frame.assign(fold=frame["fold"].where(frame["fold"] != WITHDRAWN, None))
    tables.write("split", SPLIT, written, ["subject"])
    report = describe(frame, person_of, hips, annotations, moved, params)
    write_json(REPORT, report)
    log.info("persons by fold: %s", {fold: entry["persons"] for fold, entry in report["folds"].items()})
    for note in report["notes"]:
        log.warning("%s", note)


def assign(
    hips: pd.DataFrame, studies: pd.DataFrame, annotations: pd.DataFrame, previous: pd.DataFrame, params: Params
) -> tuple[pd.DataFrame, list[dict[str, str]]]:
    """(the split, [{subject, from, to, reason}] of those who stand elsewhere than before)."""
    before = dict(zip(previous["subject"], previous["fold"].fillna(WITHDRAWN), strict=True))
    kept = previous["dealt"] if "dealt" in previous else previous["fold"]
    was_dealt = dict(zip(previous["subject"], kept, strict=True))
    subjects = sorted({*before, *hips["subject"].dropna(), *studies["subject"].dropna()})
    person_of = {s: p for s, p in persons(subjects, annotations).items() if s in set(subjects)}
    first_batch = studies.groupby("subject")["batch"].min().to_dict()
    first_seen = dict(zip(previous["subject"], previous.get("first_seen", pd.Series(dtype=str)), strict=False))
    seen = {subject: first_seen.get(subject) or str(first_batch.get(subject, "")) for subject in subjects}

    members: dict[str, list[str]] = {}
    for subject in sorted(subjects, key=lambda s: (seen[s], s)):
        members.setdefault(person_of[subject], []).append(subject)
    standing: dict[str, str] = {}
    for person, own in members.items():
        places = [was_dealt[subject] for subject in own if subject in was_dealt]
        if places:  # one side for one person: test if any identity is, else where the first was seen
            standing[person] = TEST if TEST in places else places[0]
    newcomers = [person for person in members if person not in standing]
    dealt = standing | deal(newcomers, standing, strata(person_of, annotations), params)

    out = withdrawn(annotations)
    outside = set(studies[studies["site"].isin(params.external_sites)]["subject"])
    rows, moved = [], []
    for subject in subjects:
        own = members[person_of[subject]]
        fold, reason = dealt[person_of[subject]], "merged with another identity"
        if out & set(own):
            fold, reason = WITHDRAWN, "consent withdrawn"
        elif outside & set(own) and not any(before.get(identity) == TEST for identity in own):
            fold, reason = EXTERNAL, "its site is external"
        elif before.get(subject) == WITHDRAWN:
            reason = "consent given again"
        if before.get(subject, fold) != fold:
            moved.append({"subject": subject, "from": before[subject], "to": fold, "reason": reason})
        rows.append({"subject": subject, "fold": fold, "dealt": dealt[person_of[subject]], "first_seen": seen[subject]})
    return pd.DataFrame(rows, columns=["subject", "fold", "dealt", "first_seen"]), moved


def describe(
    frame: pd.DataFrame,
    person_of: dict[str, str],
    hips: pd.DataFrame,
    annotations: pd.DataFrame,
    moved: list[dict[str, str]],
    params: Params,
) -> dict[str, Any]:
    """reports/split.json: counts by fold, and what to know about them."""
    fold_of = dict(zip(frame["subject"], frame["fold"], strict=True))
    stratum = strata(person_of, annotations)
    folds: dict[str, dict[str, Any]] = {}
    names = [*(str(n) for n in range(params.folds)), TEST, *sorted(set(frame["fold"]))]
    for fold in dict.fromkeys(names):
        own = sorted(subject for subject, place in fold_of.items() if place == fold)
        visits = hips[hips["subject"].isin(own)]
        people = {person_of[subject] for subject in own}
        folds[fold] = {
            "persons": len(people),
            "subjects": len(own),
            "hips": len({hip(s, side) for s, side in visits[["subject", "side"]].dropna().itertuples(index=False)}),
            "hip_visits": len(visits),
            "persons_with_event": sum(stratum[person] == "event" for person in people),
            "persons_with_lesion": sum(stratum[person] != "none" for person in people),
        }
    trained = [fold for fold in folds if fold.isdigit()]
    tainted = sorted(m["subject"] for m in moved if m["from"].isdigit() and not m["to"].isdigit())
    notes = []
    empty = [fold for fold in trained if not folds[fold]["persons"]]
    if empty:
        count = sum(folds[fold]["persons"] for fold in trained)
        notes.append(f"{count} training persons for {params.folds} folds: fold {', '.join(empty)} is empty")
    without = [f for f in trained if folds[f]["persons"] and not folds[f]["persons_with_event"]]
    if without:
        notes.append(f"fold {', '.join(without)} has nobody with an event")
    if not folds[TEST]["persons"]:
        notes.append("the test set is empty so far: with few persons the hash may take none")
    elif not folds[TEST]["persons_with_event"]:
        notes.append("the test set has nobody with an event so far")
    beyond = [fold for fold in trained if int(fold) >= params.folds]
    if beyond:
        notes.append(f"fold {', '.join(beyond)} is from a run with more folds and is kept")
    return {"folds": folds, "moved": moved, "tainted": tainted, "notes": notes, "leaks": 0, "unit": "counts"}


def _twice(previous: pd.DataFrame) -> pd.DataFrame:
    """Rows of subjects that the previous file holds more than once: somebody wrote into it."""
    return previous[previous["subject"].duplicated(keep=False)][["subject", "fold"]].fillna(WITHDRAWN)
