"""Treatments and outcomes of all imports as one history a hip; what a later import says corrects the earlier.

A later table need not repeat what earlier ones said, so a statement is replaced only where the later one can be about
the same thing: it is dated the same day, or names a thing that happens once to a hip, or the same thing within the
window of a visit. Whatever else is wrong is corrected in words: `replaces` (the date first given) or `status`
(withdrawn).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Any

ONCE = (
    "collapse", "arthroplasty", "last_follow_up", "vascularized_bone_graft", "nonvascular_graft", "osteotomy",
)  # fmt: skip
"""What happens once to a hip: a later import that dates it otherwise corrects the date."""

WITHDRAWN = "withdrawn"

Hip = tuple[str, str]
"""(subject, side)"""


@dataclass(frozen=True)
class Statement:
    """That a thing was done or happened on a day. `source` names import, table and row."""

    name: str
    day: date
    source: str
    number: int
    """Of the import."""


@dataclass(frozen=True)
class Correction:
    """A statement of an earlier import that a later one replaced, or withdrew (`by` has no value then)."""

    hip: str
    name: str
    was: str
    now: str
    source: str
    by: str


class Histories:
    """{hip: statements that stand}, built import by import, the earliest first."""

    def __init__(self, window: float) -> None:
        self.window = window
        self.standing: dict[Hip, list[Statement]] = defaultdict(list)
        self.corrections: list[Correction] = []

    def add(self, number: int, rows: Iterable[tuple[dict[str, Any], str, str]]) -> None:
        """Take one table of import `number`: (row, name of the treatment or event, source)."""
        given: dict[Hip, list[tuple[dict[str, Any], Statement]]] = defaultdict(list)
        for row, name, source in rows:
            statement = Statement(name, date.fromisoformat(row["date"]), source, number)
            given[row["subject"], row["side"]].append((row, statement))
        for hip, new in given.items():
            kept = []
            for old in self.standing[hip]:
                by = (
                    None
                    if any(_same(old, one) for row, one in new if not _withdrawn(row))
                    else self._replacing(old, new)
                )
                if by is None:
                    kept.append(old)
                else:
                    self._note(hip, old, *by)
            added = [one for row, one in new if not _withdrawn(row) and not any(_same(one, old) for old in kept)]
            self.standing[hip] = kept + added

    def _replacing(
        self, old: Statement, new: list[tuple[dict[str, Any], Statement]]
    ) -> tuple[dict[str, Any], Statement] | None:
        """The statement that takes the place of `old`, if there is one."""
        for row, one in new:
            told = row.get("replaces")
            if told and date.fromisoformat(told) == old.day:
                return row, one
            if _withdrawn(row):
                if _same(old, one):
                    return row, one
            elif not told:
                near = old.name in ONCE or abs((one.day - old.day).days) <= self.window
                if one.day == old.day or (one.name == old.name and near):
                    return row, one
        return None

    def _note(self, hip: Hip, old: Statement, row: dict[str, Any], new: Statement) -> None:
        if old.name == new.name == "last_follow_up" and new.day > old.day and not _withdrawn(row):
            return  # time went on: nothing was wrong
        now = WITHDRAWN if _withdrawn(row) else new.name
        if now == old.name:
            now += f" {(new.day - old.day).days:+d} days"
        self.corrections.append(Correction("-".join(hip), old.name, old.name, now, old.source, new.source))


def _same(one: Statement, two: Statement) -> bool:
    return (one.name, one.day) == (two.name, two.day)


def _withdrawn(row: dict[str, Any]) -> bool:
    return row.get("status") == WITHDRAWN
