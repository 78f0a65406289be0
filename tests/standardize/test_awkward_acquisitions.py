"""Acquisitions in which a head was once found where none is, and called one (tests/support/awkward; the whole battery
is `python -m bench heads`): the necks beside collapsed heads, a trochanter, a ball too small or too doubtful opposite a
sure head, the middle of a field that lies beside the body."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from awkward import acquired, judged

from tasks.standardize.balls import view
from tasks.standardize.locate import Head, locate
from tasks.standardize.pairs import ENOUGH, Seen, vouched
from tasks.standardize.params import Params
from tasks.standardize.rim import neck_of, socket

ONCE_WRONG = [
    ("one axial", "bodies", 6), ("fluid", "phantom", 5), ("collapsed", "torsos", 5), ("child", "torsos", 4),
    ("cut", "bodies", 9),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "maker", "seed"), ONCE_WRONG)
def test_what_is_called_a_head_is_one(kind: str, maker: str, seed: int, params: Params) -> None:
    case = acquired(kind, maker, seed)
    answers = judged(case, locate(case.image, case.polarity, params.localizer))
    assert all(what != "wrong" for _, what, _ in answers), answers


@pytest.mark.parametrize(("maker", "seed"), [("phantom", 1), ("bodies", 311)])
def test_two_collapsed_heads_vouch_for_each_other(maker: str, seed: int, params: Params) -> None:
    """Neither is sure enough for itself; in the second pelvis the bone of both sockets, 15 mm off, once was."""
    case = acquired("collapsed", maker, seed)
    answers = judged(case, locate(case.image, case.polarity, params.localizer))
    assert [(side, what) for side, what, _ in answers] == [("L", "right"), ("R", "right")], answers


def test_what_no_two_heads_of_one_person_are(params: Params) -> None:
    left, right = (Seen(Head(np.array([85.0 * out, 0, 0]), 24.0, 0.7, out, 0.9), 0.9, 0.9, 0.7) for out in (1.0, -1.0))

    def of(**changes: Any) -> float:
        head = {name: changes.pop(name) for name in ("centre", "radius", "confidence") if name in changes}
        return vouched(left, replace(right, head=replace(right.head, **head), **changes), 0.0, params.localizer)

    assert of() > ENOUGH
    places = {"near": [-20.0, 0, 0], "far": [-170.0, 0, 0], "higher": [-85.0, 0, 30], "before": [-85.0, 30, 0]}
    assert [of(centre=np.array(place)) for place in places.values()] == [0.0] * 4
    assert of(radius=18.0) == of(agreed=0.7) == 0.0
    assert of(centre=np.array([-120.0, 0, 0])) < of()  # beside the body's middle
    assert of(socket=0.0) < ENOUGH  # no bone beyond the joint
    assert of(radius=32.0, socket=0.6) < ENOUGH  # as large as a socket


def test_bone_begins_again_beyond_the_joint_of_a_head(params: Params) -> None:
    case = acquired("coronal", "bodies", 3)
    seen = view(case.image)
    for joint in case.joints.values():
        lateral = float(np.sign(joint.centre[0] - np.mean([j.centre[0] for j in case.joints.values()])))
        at_head = socket(seen, 1, joint.centre, joint.radius, lateral)
        in_the_neck = joint.centre + 30.0 * neck_of(lateral)
        assert at_head > 0.8 > 0.5 > socket(seen, 1, in_the_neck, joint.radius, lateral)
