"""Two balls that vouch for each other, where neither is sure enough for itself: step 5 of `locate`.

A head that has collapsed or died lacks part of its rim or of its bright marrow, yet its fellow lies opposite and is as
large; the rays that still meet an edge agree on where it is; and around it the socket stays: bone that begins again at
an even distance beyond the joint. What else comes in pairs (trochanters, ischia, the bone of the sockets) is less round
all around, or no bone lies beyond it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.domain.volume import Volume
from tasks.standardize.balls import Votes, balls
from tasks.standardize.head import LEAST_SEEN, METAL, SOCKET_MM, Head, ended, void
from tasks.standardize.mirror import midline, starts_about, toward
from tasks.standardize.params import Localizer
from tasks.standardize.rim import ROUGH, agreed, air_beside, ends, judge, neck_of, refine, socket

LOOKED_AT, REFINED = 40, 8
"""Balls of each half of the body that are compared, and those of them that are refined."""

BESIDE_MM = (40.0, 130.0)
"""From the body's middle to a femoral head, children to large adults, where the middle is not known well."""

INSIDE_MM, INSIDE = 14.0, 0.62
"""A ball as large as the bone about a socket may hold the head: this far towards its neck, of this share of its
radius."""

WORTH, OPPOSITE = 0.45, 3
"""Least socket of a ball whose mirror image is looked at, and how many starts about that are refined."""

ABOUT_MM = tuple(np.arange(-far, far + 1, step) for far, step in ((30.0, 10.0), (8.0, 8.0), (16.0, 8.0)))
"""About the mirror image: the body's middle may be known badly, heights are alike."""

AGREED, AIRLESS = 0.72, 0.3
"""Of the less sure one: the least share of rays whose steepest edge is the ball's; and the most air beside it."""

ENOUGH = 1.2
"""Of `vouched`."""

LEAST_MM, SMALL_MM = 13.5, 16.0
"""What is smaller is none that `refine` can measure; balls smaller than a child's need more, as do such as large as
sockets are."""

UNLEVEL_MM, UNLIKE_MM = 25.0, 5.5
"""The two lie at one height, front to back too, and are about of one size."""


@dataclass(frozen=True)
class Seen:
    head: Head
    ends: float
    agreed: float
    socket: float


def pair(seen: Volume, sign: int, votes: Votes | None, params: Localizer) -> tuple[float, Head, Head] | None:
    """The left and the right head of a field of view that shows the body's middle, and how convincing they are; None
    where no two are convincing."""
    middle = midline(seen, seen.to_lps((np.array(seen.array.shape) - 1) / 2))
    if votes is None or middle is None:
        return None
    beside = votes.across - middle
    left, right = (half(seen, sign, votes, lateral * beside, lateral, params) for lateral in (1.0, -1.0))
    left, right = (
        left + opposite_to(right, seen, sign, middle, params),
        right + opposite_to(left, seen, sign, middle, params),
    )
    both = [(vouched(a, b, middle, params), a.head, b.head) for a in left for b in right]
    best = max(both, key=lambda one: one[0], default=None)
    return None if best is None or best[0] < ENOUGH else best


def half(
    seen: Volume, sign: int, votes: Votes, outwards: NDArray[np.float64], lateral: float, params: Localizer
) -> list[Seen]:
    """The most convincing balls of one half of the body whose necks leave outwards."""
    there = (outwards > BESIDE_MM[0]) & (outwards < BESIDE_MM[1])
    rough = [
        (toward(judge(seen, sign, centre, (radius - 1, radius + 1), ROUGH), lateral), centre, radius)
        for centre, radius in balls(Votes(votes.score * there, votes.radii, seen), LOOKED_AT)
    ]
    rough.sort(key=lambda item: -item[0])
    found = []
    for _, start, size in rough[:REFINED]:
        one = looked_at(seen, sign, start, size, lateral, params)
        if one is not None:
            found.append(one)
            if one.head.radius > SOCKET_MM - 1:
                within = one.head.centre + INSIDE_MM * neck_of(lateral)
                inner = looked_at(seen, sign, within, INSIDE * one.head.radius, lateral, params)
                found += [] if inner is None else [inner]
    return found


def opposite_to(found: list[Seen], seen: Volume, sign: int, middle: float, params: Localizer) -> list[Seen]:
    """Balls about the mirror images of those that are round and have a socket."""
    answer: list[Seen] = []
    for one in found:
        if one.agreed >= AGREED and one.socket >= WORTH:
            head = one.head
            image = np.array([2 * middle - head.centre[0], *head.centre[1:]])
            for start in starts_about(seen, sign, image, head.radius, -head.lateral, ABOUT_MM)[:OPPOSITE]:
                other = looked_at(seen, sign, start, head.radius, -head.lateral, params)
                answer += [] if other is None else [other]
    return answer


def looked_at(
    seen: Volume, sign: int, start: NDArray[np.float64], size: float, lateral: float, params: Localizer
) -> Seen | None:
    centre, radius = refine(seen, sign, start, size)
    what = judge(seen, sign, centre, (radius,))
    if what.lateral != lateral or not LEAST_MM < radius <= params.radius_mm[1] or what.seen < LEAST_SEEN:
        return None
    air = air_beside(seen, centre, lateral)
    end = ends(seen, sign, centre, radius, lateral)
    head = Head(centre, radius, what.confidence * ended(end) * (1 - air), lateral, what.seen)
    if air > AIRLESS or void(seen, head) > METAL:
        return None
    return Seen(
        head, end or 0.0, agreed(seen, sign, centre, radius, lateral), socket(seen, sign, centre, radius, lateral)
    )


def vouched(left: Seen, right: Seen, middle: float, params: Localizer) -> float:
    """How convincing two balls are as the heads of one person; 0 where they cannot be."""
    a, b = left.head, right.head
    apart = np.abs(a.centre - b.centre)
    unlike, unlevel = abs(a.radius - b.radius), float(apart[1:].sum())
    agree, bone, end = (min(getattr(left, of), getattr(right, of)) for of in ("agreed", "socket", "ends"))
    if not params.separation_mm[0] <= apart[0] <= params.separation_mm[1] or unlevel > UNLEVEL_MM or unlike > UNLIKE_MM:
        return 0.0
    if agree < AGREED:
        return 0.0
    beside = abs((a.centre[0] + b.centre[0]) / 2 - middle)
    small, large = max(SMALL_MM - min(a.radius, b.radius), 0.0), max(max(a.radius, b.radius) - SOCKET_MM, 0.0)
    return agree + bone + end / 4 - unlike / 20 - unlevel / 200 - beside / 400 - 0.15 * small - 0.1 * large
