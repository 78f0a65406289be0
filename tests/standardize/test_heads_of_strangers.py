"""The localizer on the bodies of `torsos`, after which no constant of it was chosen: sizes from child to very large
man, fields of view from 165 to 450 mm, every plane, oblique, one hip only, an implant; and none where no hip is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tissues
from pydicom.dataset import Dataset
from torsos import NO_HIPS, both, knee, person, shoulder

import tasks.standardize.locate as located
from tasks.domain.volume import Volume
from tasks.standardize import place
from tasks.standardize.locate import Head, Located, locate
from tasks.standardize.params import Params

# name: seed, size, plane, field of view mm, matrix, slices, step mm, tilt, side shown alone, state of it
CASES = {
    "a child in a small matrix": (1, 0.85, "coronal", 330.0, 96, 12, 4.2, (4, 5, -6), "", "sound"),
    "a very large man": (2, 1.2, "coronal", 450.0, 128, 12, 5.4, (-3, 2, 4), "", "dead"),
    "axial, tilted": (3, 1.0, "axial", 400.0, 112, 15, 5.0, (9, -4, 3), "", "sound"),
    "one hip, 165 mm": (4, 1.0, "coronal", 165.0, 112, 16, 3.6, (5, 3, -5), "R", "sound"),
}


@pytest.mark.parametrize("name", list(CASES))
def test_heads_within_two_millimetres(name: str, params: Params) -> None:
    seed, size, plane, fov, matrix, slices, step, tilt, alone, state = CASES[name]
    rng = np.random.default_rng([2026, seed])
    who = person(rng, size, dict.fromkeys(alone or "L", state) | ({} if alone else {"R": "sound"}))
    middle = np.mean([j.centre for side, j in who.joints.items() if side in (alone or "LR")], axis=0)
    slab = tissues.Slab(plane, (fov, fov), (matrix, matrix), slices, step, 0.85 * step, middle + 4.0, tilt)
    (image,) = tissues.scanned(who.paint, slab, [tissues.T1], rng, tissues.Faults(noise=0.08))
    found = locate(image, 1, params.localizer)
    assert set(found.heads) == set(alone or "LR")
    for side, head in found.heads.items():
        assert np.linalg.norm(head.centre - who.joints[side].centre) < 2.0


@pytest.mark.parametrize("side", ["L", "R"])
def test_an_implant_is_said_to_be_one(side: str, params: Params) -> None:
    rng = np.random.default_rng([2027, ord(side)])
    other = "R" if side == "L" else "L"
    who = person(rng, 1.0, {side: "metal", other: "sound"})
    middle = np.mean([j.centre for j in who.joints.values()], axis=0)
    slab = tissues.Slab("coronal", (400.0, 400.0), (112, 112), 12, 4.6, 4.0, middle, (2, 3, 1))
    (image,) = tissues.scanned(who.paint, slab, [tissues.T1], rng, tissues.Faults())
    found = locate(image, 1, params.localizer)
    assert set(found.heads) == {other}
    assert np.linalg.norm(found.heads[other].centre - who.joints[other].centre) < 2.0
    assert "implant" in found.missing[side]


def test_how_much_of_the_ball_is_void_is_said_as_it_was_measured(
    params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = Volume(np.zeros((8, 8, 8), np.float32), np.eye(4))
    left, right = (Head(np.array([x, 0.0, 0.0]), 24.0, 0.9, np.sign(x), 1.0) for x in (90.0, -60.0))
    monkeypatch.setattr(located, "midline", lambda seen, centre: 0.0)
    monkeypatch.setattr(located, "mirrored_place", lambda seen, head, middle: np.array([-90.0, 0.0, 0.0]))
    monkeypatch.setattr(located, "metal", lambda seen, head, image: 0.87)
    found = located.alike_pair(image, 1, left, right, 0.82, params.localizer)
    assert found.missing["R"].startswith("signal void in 87%")


@pytest.mark.parametrize("name", list(NO_HIPS))
def test_no_hip_where_there_is_none(name: str, params: Params) -> None:
    make, fov = NO_HIPS[name]
    rng = np.random.default_rng([2028, len(name)])
    slab = tissues.Slab("coronal", (fov, fov), (112, 112), 14, 4.6, 4.0, np.zeros(3), (3, -2, 4))
    t1, fluid = tissues.scanned(make(rng), slab, [tissues.T1, tissues.STIR], rng, tissues.Faults())
    assert not locate(t1, 1, params.localizer).heads
    assert not locate(fluid, 0, params.localizer).heads


@pytest.mark.parametrize(("seed", "plane"), [(200, "sagittal"), (203, "coronal")])
def test_a_shoulder_whose_header_does_not_say_so_is_no_hip(
    seed: int, plane: str, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng([6, seed])
    slab = tissues.Slab(plane, (220.0, 220.0), (112, 112), 16, 4.0, 3.4, rng.normal(0, 10, 3), (3, -5, 4))
    (t1,) = tissues.scanned(shoulder(rng), slab, [tissues.T1], rng, tissues.Faults(noise=0.06))
    found = locate(t1, 1, params.localizer)
    assert not found.heads and "near to the skin" in found.missing["L"]
    monkeypatch.setattr(located, "shallow", lambda *ball: False)
    assert locate(t1, 1, params.localizer).heads  # what it was called before


@pytest.mark.parametrize("seed", [16, 17])
def test_two_knees_in_one_field_of_view_are_no_hips(seed: int, params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their condyles are balls, level and a pelvis apart."""
    rng = np.random.default_rng([5, seed])
    apart, fov = 2 * rng.uniform(58, 118), float(rng.uniform(300, 440))
    middle, tilt = rng.normal(0, 6, 3), rng.normal(0, 4, 3)
    slab = tissues.Slab("coronal", (fov, fov), (112, 112), 16, 4.6, 4.0, middle, (tilt[0], tilt[1], tilt[2]))
    (t1,) = tissues.scanned(both(knee, seed, apart), slab, [tissues.T1], rng, tissues.Faults(noise=0.06))
    found = locate(t1, 1, params.localizer)
    assert not found.heads and "no pelvis" in found.missing["L"]
    monkeypatch.setattr(located, "pelvis_at", lambda *place: True)
    assert set(locate(t1, 1, params.localizer).heads) == {"L", "R"}  # what they were called before


def seen_by(monkeypatch: pytest.MonkeyPatch, part: str = "", **found: Located) -> dict[Any, Any]:
    """Series of these roles, in which the localizer has found this."""
    header = Dataset()
    header.BodyPartExamined = part
    stack = SimpleNamespace(frames=[SimpleNamespace(dataset=header)])
    answers = iter([found[role] for role in ("t1", "contrast", "fluid") if role in found])
    monkeypatch.setattr(place, "locate", lambda *args: next(answers))
    return {role: SimpleNamespace(volume=None, stack=stack) for role in found}


LEFT, RIGHT = (Head(np.array([x, 0.0, 0.0]), 24.0, 0.9, np.sign(x), 1.0) for x in (90.0, -90.0))
MOVED = Head(np.array([70.0, 0.0, 0.0]), 24.0, 0.9, 1.0, 1.0)


def test_another_series_shows_the_head_that_the_first_one_missed(
    params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = Located({"L": LEFT}, {"R": "destroyed"}), Located({"L": LEFT, "R": RIGHT}, {}, "pair")

    def heads_of(**found: Located) -> set[str]:
        return set(place.localize(seen_by(monkeypatch, **found), params)[0].heads)

    assert heads_of(t1=one, fluid=two) == {"L", "R"}
    assert heads_of(t1=one, contrast=Located(), fluid=two) == {"L", "R"}
    assert heads_of(t1=one, fluid=Located({"L": MOVED, "R": RIGHT})) == {"L"}  # they do not agree
    assert heads_of(t1=Located({"L": LEFT}, {"R": "signal void in 90%"}), fluid=two) == {"L"}
    assert heads_of(t1=two) == {"L", "R"}


def test_a_header_of_another_part_of_the_body_makes_one_ball_none(
    params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = Located({"L": LEFT}), Located({"L": LEFT, "R": RIGHT}, {}, "pair")
    for part, heads in (("SHOULDER", 0), ("PELVIS", 1), ("", 1)):
        assert len(place.localize(seen_by(monkeypatch, part, t1=one), params)[0].heads) == heads
    assert len(place.localize(seen_by(monkeypatch, "KNEE", t1=two), params)[0].heads) == 2
