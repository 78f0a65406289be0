"""Which visit an annotation belongs to: by its study, else by the nearest day; through merged identities too."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import date
from typing import Any

import pandas as pd

EXCEL_1904_DAYS = 1462
"""Between the first days of a spreadsheet's two calendars."""


@dataclass(frozen=True)
class Place:
    """Where an annotation belongs, or why it belongs nowhere (yet). `waits`: it may join when more images arrive."""

    hip: dict[str, Any] | None
    reason: str = ""
    waits: bool = False


class Visits:
    """Studies and hip-visits of one origin, and the identities that are one person."""

    def __init__(self, studies: pd.DataFrame, hips: pd.DataFrame, merges: list[dict[str, Any]], window: float) -> None:
        self.window = window
        live = studies[studies["status"].isin(["released", "frozen"])]
        self.subject_of = dict(zip(live["study"], live["subject"], strict=True))
        self.day_of = {s: _day(d) for s, d in zip(live["study"], live["date"], strict=True)}
        self.by_subject: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in hips[hips["side"].isin(["L", "R"])].to_dict("records"):
            hip = {str(name): value for name, value in row.items()}
            self.by_subject[hip["subject"]].append(hip | {"day": _day(hip["date"])})
        self.first: dict[str, date] = {}
        for study, subject in self.subject_of.items():
            day = self.day_of[study]
            if day is not None:
                self.first[subject] = min(day, self.first.get(subject, day))
        for subject, rows in self.by_subject.items():
            days = [_back(hip["day"], hip["days"]) for hip in rows if hip["day"] and hip["days"] == hip["days"]]
            if days:  # as `standardize` counted
                self.first[subject] = min(days)
        self.same: dict[str, dict[str, float]] = defaultdict(dict)
        for merge in merges:
            self.same[merge["subject"]][merge["same_as"]] = -merge["shift_days"]
            self.same[merge["same_as"]][merge["subject"]] = merge["shift_days"]

    def identities(self, subject: str) -> dict[str, float]:
        """{identity: days to add to a day of `subject` to stand on that identity's calendar}, itself first."""
        found = {subject: 0.0}
        waiting = [subject]
        while waiting:
            known = waiting.pop(0)
            for other, shift in sorted(self.same.get(known, {}).items()):
                if other not in found:
                    found[other] = found[known] + shift
                    waiting.append(other)
        return found

    def present(self, subject: str, day: date | None) -> list[tuple[str, float | None]]:
        """(identity with images, days of `day` since its first visit) of `subject` and those merged with it."""
        return [
            (other, None if day is None else (day - self.first[other]).days + shift)
            for other, shift in self.identities(subject).items()
            if other in self.first
        ]

    def hips_of_study(self, study: str) -> list[dict[str, Any]]:
        """The hip-visits of the visit that `study` is part of."""
        subject = self.subject_of.get(study)
        rows = self.by_subject.get(subject or "", [])
        own = [hip for hip in rows if hip["study"] == study]
        day = self.day_of.get(study)
        if own or day is None:
            return own
        near = [hip for hip in rows if hip["day"] and abs((hip["day"] - day).days) <= self.window]
        if not near:
            return []
        visit = min(near, key=lambda hip: (abs((hip["day"] - day).days), hip["study"]))["study"]
        return [hip for hip in near if hip["study"] == visit]

    def find(self, subject: str, study: str | None, day: date | None, side: str) -> Place:
        """The hip-visit of `side` for a label of `subject` that names a study, a day, or both."""
        same = self.identities(subject)
        if study is not None:
            if study not in self.subject_of:
                return Place(None, "its study has not arrived", waits=True)
            owner = self.subject_of[study]
            if owner not in same:
                return Place(None, "its study belongs to another patient")
            on = self.day_of[study]
            if day is not None and on is not None:
                apart = abs((day - on).days + same[owner])
                if apart > self.window:
                    why = (
                        " (its spreadsheet counts days from 1904)"
                        if abs(apart - EXCEL_1904_DAYS) <= self.window
                        else ""
                    )
                    return Place(None, f"its date is {apart:g} days from its study{why}")
            return _side(self.hips_of_study(study), side)
        if not any(other in self.first for other in same):
            return Place(None, "its patient has not arrived", waits=True)
        if day is None:
            return Place(None, "it names no visit")
        near = [
            (abs((hip["day"] - day).days - shift), hip["study"], hip)
            for other, shift in same.items()
            for hip in self.by_subject.get(other, [])
            if hip["day"] and abs((hip["day"] - day).days - shift) <= self.window
        ]
        if not near:
            return Place(None, f"no visit within {self.window:g} days of its date", waits=True)
        best = min(near, key=lambda item: item[:2])[1]
        return _side([hip for _, study, hip in near if study == best], side)


def _side(hips: list[dict[str, Any]], side: str) -> Place:
    hip = next((hip for hip in hips if hip["side"] == side), None)
    return Place(hip) if hip else Place(None, "that hip was not found in the images of its visit", waits=True)


def _day(value: object) -> date | None:
    """ISO or DICOM's YYYYMMDD."""
    try:
        return date.fromisoformat(str(value)[:10])
    except ValueError:
        return None


def _back(day: date, days: float) -> date:
    return date.fromordinal(day.toordinal() - int(days))
