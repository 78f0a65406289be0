"""Landmark labels: which event comes first, who was followed long enough, who is not at risk."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from feature_cohort import PARAMS

from tasks.assemble import Params
from tasks.assemble.labels import Course, Label, courses, ineligible, label
from tasks.assemble.params import Eligibility
from tasks.domain.params import load


def params(**changed: Any) -> Params:
    return load("assemble", Params, {"assemble": PARAMS["assemble"] | {"horizon_days": 365.0} | changed})


def at(days: float, *events: tuple[float, str, str, str], settings: Params | None = None) -> Label:
    """Label on `days` of a hip with `events` of (day, kind, name, value)."""
    rows = [
        {"hip_visit": None, "subject": "S", "side": "L", "reader": "consensus" if kind == "label" else None,
         "kind": kind, "name": name, "value": value, "source": "", "days": day}
        for day, kind, name, value in events
    ]  # fmt: skip
    found = courses(pd.DataFrame(rows))
    return label(found[("S", "L")], days, np.nan, settings or params())


def arco(day: float, stage: str) -> tuple[float, str, str, str]:
    return (day, "label", "arco", stage)


def depth(day: float, mm: float) -> tuple[float, str, str, str]:
    return (day, "label", "collapse_mm", str(mm))


def outcome(day: float, name: str) -> tuple[float, str, str, str]:
    return (day, "outcome", name, "1")


@pytest.mark.parametrize(
    ("events", "value", "event"),
    [
        ([depth(0, 0), depth(200, 2.0)], 1.0, "collapse"),
        ([depth(0, 0), depth(200, 1.9), depth(400, 1.9)], 0.0, None),
        ([depth(0, 0.5), depth(366, 3.0)], 0.0, "collapse"),  # an event beyond the horizon: followed over it without
        ([depth(0, 0), depth(364, 0.0)], np.nan, None),  # lost a day before the horizon
        ([depth(0, 0), depth(365, 0.0)], 0.0, None),
        ([depth(0, 3.0), depth(200, 4.9), depth(400, 4.9)], 0.0, None),  # came collapsed: 2 mm more are needed
        ([depth(0, 3.0), depth(200, 5.0)], 1.0, "collapse"),
        ([arco(0, "2"), arco(180, "3A")], 1.0, "stage_up"),
        ([arco(0, "3A"), arco(180, "2"), arco(370, "3A")], 0.0, None),
        ([arco(0, "1"), outcome(90, "stage_up")], 1.0, "stage_up"),
        ([arco(0, "1"), outcome(90, "collapse"), outcome(80, "stage_up")], 1.0, "stage_up"),
        ([arco(0, "1"), outcome(500, "last_follow_up")], 0.0, None),
        ([arco(0, "1"), outcome(300, "last_follow_up")], np.nan, None),
        ([arco(0, "2"), outcome(100, "arthroplasty")], 1.0, "arthroplasty"),
        ([arco(0, "2"), (100, "treatment", "arthroplasty", "1")], 1.0, "arthroplasty"),
        ([arco(0, "2")], np.nan, None),
    ],
)
def test_the_first_event_after_the_visit_within_the_horizon(events: list, value: float, event: str | None) -> None:
    found = at(0.0, *events)
    assert found.value == pytest.approx(value, nan_ok=True)
    assert found.event == event
    assert found.not_at_risk == ""


@pytest.mark.parametrize(("policy", "value"), [("event", 1.0), ("competing", 0.0), ("censor", np.nan)])
def test_arthroplasty_is_what_the_parameter_says(policy: str, value: float) -> None:
    found = at(0.0, arco(0, "2"), outcome(100, "arthroplasty"), settings=params(arthroplasty=policy))
    assert found.value == pytest.approx(value, nan_ok=True)


def test_an_event_before_a_competing_arthroplasty_counts() -> None:
    events = (arco(0, "2"), outcome(90, "collapse"), outcome(100, "arthroplasty"))
    assert at(0.0, *events, settings=params(arthroplasty="competing")).value == 1.0


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        ([outcome(50, "arthroplasty"), arco(500, "2")], "arthroplasty"),
        ([outcome(50, "collapse"), arco(60, "3A")], "collapse"),
        ([depth(0, 0.0), depth(60, 2.5)], "collapse"),
        ([(0, "label", "lesion", "0")], "no lesion"),
    ],
)
def test_a_hip_that_is_not_at_risk_has_no_label(events: list, reason: str) -> None:
    found = at(100.0, *events, outcome(900, "last_follow_up"))
    assert np.isnan(found.value)
    assert reason in found.not_at_risk


def test_what_ends_the_risk_is_a_parameter() -> None:
    events = (arco(0, "1"), arco(60, "2"), outcome(900, "last_follow_up"))
    assert at(100.0, *events).value == 0.0
    assert "stage" in at(100.0, *events, settings=params(ends_risk=["collapse", "stage_up"])).not_at_risk
    healthy = ((0, "label", "lesion", "0"), outcome(900, "last_follow_up"))
    assert at(100.0, *healthy, settings=params(at_risk="all")).value == 0.0


def test_a_lesion_that_is_read_later_does_not_make_an_earlier_visit_at_risk() -> None:
    events = ((0, "label", "lesion", "0"), arco(400, "2"), outcome(900, "last_follow_up"))
    assert "no lesion" in at(0.0, *events).not_at_risk
    assert at(400.0, *events).not_at_risk == ""


RULE = PARAMS["assemble"]["eligibility"]


@pytest.mark.parametrize(
    ("rule", "age", "said", "reason"),
    [
        ({}, 17.9, None, "younger than 18 years"),
        ({}, 18.0, None, ""),
        ({}, np.nan, None, ""),
        ({"unknown_age": "exclude"}, np.nan, None, "age not known"),
        ({"max_age_years": 65}, 66.0, None, "older than 65 years"),
        ({"aetiologies": ["STEROID", "alcohol"]}, 40.0, "TRAUMA", "aetiology trauma"),
        ({"aetiologies": ["STEROID", "alcohol"]}, 40.0, "ALCOHOL", ""),
        ({"aetiologies": ["STEROID"]}, 40.0, None, ""),
        ({"aetiologies": ["STEROID"], "unknown_aetiology": "exclude"}, 40.0, None, "aetiology not known"),
    ],
)
def test_whom_the_estimate_is_for_is_a_parameter(rule: dict, age: float, said: str | None, reason: str) -> None:
    course = Course(aetiology=[(0.0, said)] if said else [])
    assert ineligible(course, 10.0, age, Eligibility(**(RULE | rule))) == reason


def test_an_aetiology_that_is_given_later_is_not_known_yet() -> None:
    course = Course(aetiology=[(50.0, "TRAUMA")])
    rule = Eligibility(**(RULE | {"aetiologies": ["STEROID"]}))
    assert ineligible(course, 10.0, 40.0, rule) == ""
    assert ineligible(course, 60.0, 40.0, rule) == "aetiology trauma"
