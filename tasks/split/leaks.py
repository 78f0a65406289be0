"""Checks that stop the run: a person, a study or an image on two sides of a split."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import pandas as pd

from tasks.domain.errors import LeakFound

SHOWN = 5


def check(split: pd.DataFrame, person_of: dict[str, str], hips: pd.DataFrame, studies: pd.DataFrame) -> None:
    """Raises LeakFound (exit 3) naming what stands on two sides; `split` has the columns subject and fold."""
    fold_of = dict(zip(split["subject"], split["fold"], strict=True))
    _sides(
        "patient",
        zip(split["subject"], split["fold"], strict=True),
        "data/split.parquet gives it two folds; restore the file from DVC (dvc checkout data/split.parquet)",
    )
    _sides(
        "person",
        ((person, fold_of[subject]) for subject, person in person_of.items() if subject in fold_of),
        "its merged identities differ; check merges.csv",
    )
    pairs = pd.concat([hips[["study", "subject"]], studies[["study", "subject"]]])
    _sides(
        "study",
        ((study, fold_of[subject]) for study, subject in pairs.itertuples(index=False) if subject in fold_of),
        "two patients share it; join them with merges.csv, or erase the wrong one (osteoflow erase)",
    )
    for what, frame in (("image", hips), ("study content", studies)):
        known = frame[frame["digest"].notna() & (frame["digest"] != "")]
        _sides(
            what,
            ((d, fold_of[s]) for d, s in known[["digest", "subject"]].itertuples(index=False) if s in fold_of),
            "the same pixels came under two patients; join them with merges.csv, or erase one (osteoflow erase)",
        )


def _sides(what: str, pairs: Iterable[tuple[str, str]], remedy: str) -> None:
    seen: dict[str, set[str]] = defaultdict(set)
    for key, fold in pairs:
        seen[key].add(fold)
    torn = {key: sorted(folds) for key, folds in sorted(seen.items()) if len(folds) > 1}
    if torn:
        shown = "; ".join(f"{key} in {' and '.join(folds)}" for key, folds in list(torn.items())[:SHOWN])
        more = f" and {len(torn) - SHOWN} more" if len(torn) > SHOWN else ""
        raise LeakFound(f"{len(torn)} x the same {what} on two sides of the split: {shown}{more}. {remedy}")
