"""Two balls that vouch for each other, where neither is sure enough for itself: step 5 of `locate`.

A head that has collapsed lacks part of its rim, yet its fellow lies opposite, is as large and as round, and in both the
marrow ends at a socket and the rays agree on where. What else comes in pairs (trochanters, sockets, ischia) is
less round all around: its rays do not agree.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tasks.domain.volume import Volume
from tasks.standardize.balls import Votes, balls
from tasks.standardize.head import LEAST_SEEN, METAL, SOCKET_MM, Head, ended, void
from tasks.standardize.mirror import midline, toward
from tasks.standardize.params import Localizer
from tasks.standardize.rim import ROUGH, agreed, air_beside, ends, judge, refine

LOOKED_AT, REFINED = 40, 6
"""Balls of each half of the body that are compared, and those of them that are refined."""

BESIDE_MM = (40.0, 130.0)
"""From the body's middle to a femoral head, children to large adults, where the middle is not known well."""

AGREED, ENDS, TOGETHER = 0.75, 0.55, 1.2
"""Of the less sure one: the least share of rays whose steepest edge is the ball's, and how surely marrow ends at the
socket; and the least sum of both confidences."""

ENOUGH = 1.05
"""Of `vouched`. Pairs of no heads stayed below 1.04 in 500 series of the awkward cases, heads missed were above it."""

SMALL_MM, LARGE_SUM = 16.0, 1.5
"""Balls smaller than this, a child's, need more; and so large ones, as sockets are, at least this sum."""

UNLEVEL_MM, UNLIKE_MM = 25.0, 3.0
"""The two lie at one height, front to back too, and are of one size."""


@dataclass(frozen=True)
class Seen:
    head: Head
    ends: float
    agreed: float


def pair(seen: Volume, sign: int, votes: Votes | None, params: Localizer) -> tuple[Head, Head] | None:
    """The left and the right head of a field of view that shows the body's middle; None where no two are convincing."""
    middle = midline(seen, seen.to_lps((np.array(seen.array.shape) - 1) / 2))
    if votes is None or middle is None:
        return None
    beside = votes.across - middle
    left, right = (half(seen, sign, votes, lateral * beside, lateral, params) for lateral in (1.0, -1.0))
    both = [(vouched(a, b, middle, params), a.head, b.head) for a in left for b in right]
    best = max(both, key=lambda one: one[0], default=None)
    return None if best is None or best[0] < ENOUGH else (best[1], best[2])


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
        centre, radius = refine(seen, sign, start, size)
        what = judge(seen, sign, centre, (radius,))
        end = ends(seen, sign, centre, radius, lateral)
        head = Head(centre, radius, what.confidence * ended(end), lateral, what.seen)
        if what.lateral != lateral or end is None or radius > params.radius_mm[1]:
            continue
        if what.seen < LEAST_SEEN or void(seen, head) > METAL:
            continue
        head = replace(head, confidence=head.confidence * (1 - air_beside(seen, centre, lateral)))
        found.append(Seen(head, end, agreed(seen, sign, centre, radius, lateral)))
    return found


def vouched(left: Seen, right: Seen, middle: float, params: Localizer) -> float:
    """How convincing two balls are as the heads of one person; 0 where they cannot be."""
    a, b = left.head, right.head
    apart = np.abs(a.centre - b.centre)
    unlike, unlevel = abs(a.radius - b.radius), float(apart[1:].sum())
    together, agree, end = a.confidence + b.confidence, min(left.agreed, right.agreed), min(left.ends, right.ends)
    if not params.separation_mm[0] <= apart[0] <= params.separation_mm[1] or unlevel > UNLEVEL_MM or unlike > UNLIKE_MM:
        return 0.0
    if agree < AGREED or end < ENDS or together < (LARGE_SUM if max(a.radius, b.radius) > SOCKET_MM else TOGETHER):
        return 0.0
    beside = abs((a.centre[0] + b.centre[0]) / 2 - middle)
    small = max(SMALL_MM - min(a.radius, b.radius), 0.0)
    return together / 2 + agree / 2 + end / 4 - unlike / 20 - unlevel / 100 - beside / 200 - 0.15 * small
