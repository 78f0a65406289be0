"""Who goes where: persons, their strata, and the place that each gets at first sight."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable

import pandas as pd

from tasks.split.params import Params

TEST, EXTERNAL, WITHDRAWN = "test", "external", "withdrawn"

EVENTS = ("collapse", "stage_up", "arthroplasty")
"""Outcomes that make a person a case of progression."""


def share(salt: str, *parts: str) -> float:
    """A number in [0, 1) that depends on `salt` and `parts` alone."""
    text = "\0".join((salt, *parts)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") / 2**64


def persons(subjects: Iterable[str], annotations: pd.DataFrame) -> dict[str, str]:
    """{subject: person}: a person is named by the first of the identities that merges join."""
    parent = {subject: subject for subject in subjects}

    def root(subject: str) -> str:
        while parent.setdefault(subject, subject) != subject:
            subject = parent[subject]
        return subject

    merges = annotations[annotations["kind"] == "merge"]
    for one, two in sorted(zip(merges["subject"], merges["value"], strict=True)):
        low, high = sorted((root(one), root(two)))
        parent[high] = low
    return {subject: root(subject) for subject in sorted(parent)}


def strata(person_of: dict[str, str], annotations: pd.DataFrame) -> dict[str, str]:
    """{person: event | lesion | none}, as far as it is known now."""
    found = dict.fromkeys(person_of.values(), "none")
    label = annotations[(annotations["kind"] == "label") & (annotations["reader"] == "consensus")]
    sick = (label["name"] == "lesion") & (label["value"] == "1") | label["name"].isin(["arco", "jic"])
    outcome = annotations[(annotations["kind"] == "outcome") & annotations["name"].isin(EVENTS)]
    for stratum, subjects in (("lesion", label[sick]["subject"]), ("event", outcome["subject"])):
        for subject in subjects:
            if subject in person_of:
                found[person_of[subject]] = stratum
    return found


def withdrawn(annotations: pd.DataFrame) -> set[str]:
    """Subjects whose latest word on consent is that it is withdrawn."""
    consent = annotations[annotations["kind"] == "consent"].sort_values(["days", "source"], kind="stable")
    last = dict(zip(consent["subject"], consent["value"], strict=True))
    return {subject for subject, status in last.items() if status == "withdrawn"}


def deal(newcomers: Iterable[str], standing: dict[str, str], stratum: dict[str, str], params: Params) -> dict[str, str]:
    """{person: place} for `newcomers`, given the places of those who `stand` already.

    The test set takes a person by hash alone, so that it does not depend on who else came. A fold takes the person
    whose stratum it has least of, then the fewest persons, then by hash.
    """
    by_stratum: dict[tuple[str, str], int] = defaultdict(int)
    total: Counter[str] = Counter(standing.values())
    for person, fold in standing.items():
        by_stratum[fold, stratum.get(person, "none")] += 1
    dealt: dict[str, str] = {}
    rank = {"event": 0, "lesion": 1, "none": 2}  # the rare ones first, while all folds are open to them
    for person in sorted(newcomers, key=lambda p: (rank[stratum[p]], share(params.salt, "order", p))):
        if share(params.salt, person) < params.test_fraction:
            dealt[person] = TEST
            continue
        fold = min(
            (str(n) for n in range(params.folds)),
            key=lambda f: (by_stratum[f, stratum[person]], total[f], share(params.salt, person, f)),
        )
        dealt[person] = fold
        by_stratum[fold, stratum[person]] += 1
        total[fold] += 1
    return dealt
