"""Treatments and outcomes of all imports as one history a hip; what a later import says corrects the earlier.

A later table need not repeat what earlier ones said, so a statement is replaced only where the later one can be about
the same thing: it names a thing that happens once to a hip, or the same thing within the window of a visit, or is
another treatment of the same day. Outcomes of one day stand beside each other: a collapse raises the stage, and is seen
at the visit that ends follow-up. Whatever else is wrong is corrected in words: `replaces` (the date first given) or
`status` (withdrawn).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Any

FOLLOW_UP = "last_follow_up"
"""Says how long a hip was watched, not what happened to it: neither corrects the other."""

ONCE = (
    "collapse", "arthroplasty", FOLLOW_UP, "vascularized_bone_graft", "nonvascular_graft", "osteotomy",
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
    """{hip: statements that stand}, built import by import, the earliest first. `one_a_day`: what is dated like an
    earlier statement replaces it."""

    def __init__(self, window: float, one_a_day: bool) -> None:
        self.window, self.one_a_day = window, one_a_day
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
                    else self._replacing(old, self.standing[hip], new)
                )
                if by is None:
                    kept.append(old)
                else:
                    self._note(hip, old, *by)
            added = [one for row, one in new if not _withdrawn(row) and not any(_same(one, old) for old in kept)]
            self.standing[hip] = kept + added

    def _replacing(
        self, old: Statement, standing: list[Statement], new: list[tuple[dict[str, Any], Statement]]
    ) -> tuple[dict[str, Any], Statement] | None:
        """The statement that takes the place of `old`, if there is one."""
        for row, one in new:
            told = row.get("replaces")
            if told and old in _meant(one, date.fromisoformat(told), standing):
                return row, one
            if _withdrawn(row):
                if _same(old, one):
                    return row, one
                continue
            near = not told and abs((one.day - old.day).days) <= self.window
            if one.name == old.name and (near or old.name in ONCE):
                return row, one
            if self.one_a_day and not told and one.day == old.day:
                return row, one
        return None

    def _note(self, hip: Hip, old: Statement, row: dict[str, Any], new: Statement) -> None:
        if old.name == new.name == FOLLOW_UP and new.day > old.day and not _withdrawn(row):
            return  # time went on: nothing was wrong
        now = WITHDRAWN if _withdrawn(row) else new.name
        if now == old.name:
            now += f" {(new.day - old.day).days:+d} days"
        self.corrections.append(Correction("-".join(hip), old.name, old.name, now, old.source, new.source))


def _meant(one: Statement, day: date, standing: list[Statement]) -> list[Statement]:
    """What `one`, which says that it replaces `day`, is about: its own kind where that stands on the day."""
    there = [old for old in standing if old.day == day and (old.name == FOLLOW_UP) == (one.name == FOLLOW_UP)]
    return [old for old in there if old.name == one.name] or there


def _same(one: Statement, two: Statement) -> bool:
    return (one.name, one.day) == (two.name, two.day)


def _withdrawn(row: dict[str, Any]) -> bool:
    return row.get("status") == WITHDRAWN
