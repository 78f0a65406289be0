"""Femoral heads of one polarity, each for itself, and what two of them are to each other: steps 1 to 3 of `locate`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tasks.domain.volume import Volume
from tasks.standardize.balls import AIR, APART_MM, REFINED, Votes, balls
from tasks.standardize.params import Localizer
from tasks.standardize.rim import ROUGH, air_beside, ends, judge, refine

SURE = 0.74
"""Confidence of each of two facing heads at which the search ends."""

ENDED, UNSEEN = 0.75, 0.85
"""Share of a socket's end from which nothing is taken off a ball's confidence; what is left of it where the volume does
not show that end."""

LEAST_SEEN = 0.5
"""Of a head's rim; of less of it too much is guessed."""

METAL = 0.35
"""Share of a ball as dark as air from which it is an implant."""

SOCKET_MM = 27.0
"""Radius from which a ball may be a socket and not a head."""


@dataclass(frozen=True)
class Head:
    """centre: LPS mm. radius: mm, of the marrow. confidence: 0..1. lateral: +1 where the neck leaves to the patient's
    left. seen: share of its rim that the volume shows."""

    centre: NDArray[np.float64]
    radius: float
    confidence: float
    lateral: float
    seen: float


def heads(seen: Volume, sign: int, votes: Votes | None, params: Localizer) -> list[Head]:
    """Candidates of one polarity, best first, none within APART_MM of a better one."""
    rough = [
        (judge(seen, sign, centre, (radius - 1, radius + 1), ROUGH).confidence, centre, radius)
        for centre, radius in balls(votes)
    ]
    rough.sort(key=lambda item: -item[0])
    found: list[Head] = []
    for _, start, radius in rough[:REFINED]:
        centre, radius = refine(seen, sign, start, radius)
        if not params.radius_mm[0] <= radius <= params.radius_mm[1]:
            continue
        what = judge(seen, sign, centre, (radius,))
        confidence = float(what.confidence * (1 - air_beside(seen, centre, what.lateral)))
        confidence *= ended(ends(seen, sign, centre, radius, what.lateral))
        head = Head(centre, radius, confidence, what.lateral, what.seen)
        if what.seen < LEAST_SEEN or void(seen, head) > METAL:
            continue
        found.append(head)
        if any(facing(found[-1], one, params, SURE) and alike(found[-1], one) for one in found[:-1]):
            break  # nothing better will come
    found = [head for head in found if not any(nested(other, head) for other in found)]
    found.sort(key=lambda head: -head.confidence)
    kept: list[Head] = []
    for head in found:
        if all(np.linalg.norm(head.centre - other.centre) > APART_MM for other in kept):
            kept.append(head)
    return kept


def ended(share: float | None) -> float:
    """What is left of the confidence of a ball whose marrow goes on into the socket, or may."""
    return UNSEEN if share is None else min(0.5 + 0.5 * share / ENDED, 1.0)


def void(seen: Volume, head: Head) -> float:
    """Share of the inner ball that is as dark as air."""
    points = np.concatenate([head.centre + ROUGH.rays * (head.radius * share) for share in (0.3, 0.55, 0.8)])
    index = seen.to_index(points)
    values = ndimage.map_coordinates(seen.array, index.T, order=1, mode="nearest")
    return float((values < AIR).mean())


def facing(a: Head, b: Head, params: Localizer, least: float) -> bool:
    apart = np.abs(a.centre - b.centre)
    low, high = params.separation_mm
    sure = min(a.confidence, b.confidence) >= least
    left, right = (a, b) if a.centre[0] > b.centre[0] else (b, a)
    outwards = left.lateral > 0 > right.lateral
    return bool(sure and outwards and low <= apart[0] <= high and apart[1:].max() <= params.level_mm)


def alike(a: Head, b: Head) -> bool:
    """Two heads of one person; a ball as large as a socket is not taken for a head before all are seen."""
    return abs(a.radius - b.radius) < 3.0 and max(a.radius, b.radius) < SOCKET_MM


def nested(inner: Head, outer: Head) -> bool:
    """A ball inside a larger one, nearly as sure, is the head in its socket."""
    within = float(np.linalg.norm(inner.centre - outer.centre)) < outer.radius - 0.5 * inner.radius
    return within and inner.radius < 0.8 * outer.radius and inner.confidence > outer.confidence - 0.1
