"""Femoral heads found by shape alone: bright balls with a rim, in any plane, in bodies of any size.

1. `balls`: in every slice each edge votes, along its gradient, for the centres of circles; the circles that a ball of
   one radius cuts into the slices are added up, so that a ball is found in stacks of thick slices as well.
2. `refine`: rays from a candidate look for the rim; least squares gives centre and radius, outliers left out.
3. `judge`: a femoral head has a rim above, medially, in front and behind, none towards its neck (below and laterally),
   and the body goes on medially. A condyle, a bladder or a vertebra is otherwise.
4. `choose`: two heads, level and a pelvis apart, are the hips of a wide field of view; else the best one alone.

Intensities are logarithms, so that coil bias adds a slow slope, and an edge is a ratio of brightness.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tasks.domain.hip import Side
from tasks.domain.volume import Volume
from tasks.standardize.balls import AIR, APART_MM, REFINED, balls, view
from tasks.standardize.params import Localizer
from tasks.standardize.rim import ROUGH, Judged, agreed, air_beside, ends, judge, refine

SURE = 0.74
"""Confidence of each of two facing heads at which the search ends."""

LEADS, WEAK = 0.7, 0.6
"""Confidence from which a head says where the other one is; and below which that one is doubted beside a void."""

ENDED, UNSEEN = 0.75, 0.85
"""Share of a socket's end from which nothing is taken off a ball's confidence; what is left of it where the volume does
not show that end."""

LEAST_SEEN = 0.5
"""Of a head's rim; of less of it too much is guessed."""

USUAL_MM, UNUSUAL = (21.0, 28.0), 0.005
SEEN, UNSEEN_SHARE = 0.7, 0.5
DISAGREES = 0.4
"""What a ball that stands alone needs more confidence for: each mm of radius beyond most adults'; what is not seen of
it; rays whose steepest edge is another than its rim."""

LARGER, LARGE_MM = 0.01, 24.0
"""Of several balls the larger one is rather the head than a trochanter: confidence that a mm is worth, up to a size."""

SOCKET_MM = 27.0
"""Radius from which a ball may be a socket and not a head."""

OFFSETS_MM = np.array([-16.0, -8.0, 0.0, 8.0, 16.0])
"""Along each axis, where the head opposite a sure one is looked for about its mirror image."""

UNLIKE_MM = 5.0
"""The two heads of one person differ in radius by less."""

METAL, ALL_METAL = 0.35, 0.8
"""Share of a ball as dark as air from which a ball that was found is an implant, and one that was only looked for."""

IMPLANT = "signal void in {:.0%} of the ball at the mirrored place: an implant"

WIDE_MM = 280.0
"""A field of view wider than this was meant for both hips."""


@dataclass(frozen=True)
class Head:
    """centre: LPS mm. radius: mm, of the marrow. confidence: 0..1. lateral: +1 where the neck leaves to the patient's
    left. seen: share of its rim that the volume shows."""

    centre: NDArray[np.float64]
    radius: float
    confidence: float
    lateral: float
    seen: float


@dataclass(frozen=True)
class Located:
    """heads by side; `missing`: why a side that the volume should show has none; `side_from`: pair | midline | neck;
    `conflict`: two ways to tell the side disagree."""

    heads: dict[Side, Head] = field(default_factory=dict)
    missing: dict[Side, str] = field(default_factory=dict)
    side_from: str = ""
    conflict: str = ""

    @property
    def confidence(self) -> float:
        return sum(head.confidence for head in self.heads.values())


def locate(volume: Volume, polarity: int, params: Localizer) -> Located:
    """Both femoral heads, one, or none. polarity: +1 marrow is brighter than its rim (T1), 0 not known."""
    seen = view(volume)
    alone = params.single_confidence if polarity else params.blind_confidence
    signs = (1,) if polarity else (1, -1)
    answers = [choose(seen, sign, heads(seen, sign, params), alone, params) for sign in signs]
    return max(answers, key=lambda answer: answer.confidence)


def heads(seen: Volume, sign: int, params: Localizer) -> list[Head]:
    """Candidates of one polarity, best first, none within APART_MM of a better one."""
    rough = [
        (judge(seen, sign, centre, (radius - 1, radius + 1), ROUGH).confidence, centre, radius)
        for centre, radius in balls(seen, sign, params)
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


def choose(seen: Volume, sign: int, found: list[Head], alone: float, params: Localizer) -> Located:
    """The two heads that face each other, else one head and its side, else none, with reasons."""
    pairs = [
        (
            a.confidence + b.confidence - abs(a.radius - b.radius) / 20 - np.abs(a.centre - b.centre)[1:].sum() / 200,
            a,
            b,
        )
        for i, a in enumerate(found)
        for b in found[i + 1 :]
        if facing(a, b, params, params.pair_confidence)
    ]
    if pairs:
        _, a, b = max(pairs, key=lambda pair: pair[0])
        return alike_pair(seen, sign, a, b, alone, params)
    mirrored: list[Located] = []
    for head in [head for head in found if head.confidence >= max(params.pair_confidence, LEADS)][:3]:
        middle = midline(seen, head.centre)
        if middle is None or abs(head.centre[0] - middle) < 0.5 * params.separation_mm[0]:
            continue
        side: Side = "L" if head.centre[0] > middle else "R"
        other: Side = "R" if side == "L" else "L"
        if (head.lateral > 0) != (side == "L"):
            continue
        image = mirrored_place(seen, head, middle)
        if image is None:
            continue
        second, why = facing_head(seen, sign, head, image, params)
        if second is not None:
            mirrored.append(Located({side: head, other: second}, {}, "midline"))
        elif head.confidence >= alone:  # the midline has said its side already
            mirrored.append(Located({side: head}, {other: why}, "midline"))
    if mirrored:
        return max(mirrored, key=lambda one: one.confidence)
    if not found:
        reason = f"no femoral head found: confidence 0.00, below {alone:g}"
        return Located({}, {"L": reason, "R": reason})
    best = max(found, key=lambda head: head.confidence + LARGER * min(head.radius, LARGE_MM))
    need = needed(seen, sign, best, alone)
    if best.confidence < need:
        reason = f"no femoral head found: confidence {best.confidence:.2f}, below {need:.2f}"
        return Located({}, {"L": reason, "R": reason})
    return one_side(seen, best, params)


def needed(seen: Volume, sign: int, head: Head, alone: float) -> float:
    """The confidence that a head without a fellow has to have."""
    unusual = max(USUAL_MM[0] - head.radius, head.radius - USUAL_MM[1], 0.0)
    others = 1 - agreed(seen, sign, head.centre, head.radius, head.lateral)
    return alone + UNUSUAL * unusual + UNSEEN_SHARE * max(SEEN - head.seen, 0.0) + DISAGREES * others


def alike_pair(seen: Volume, sign: int, a: Head, b: Head, alone: float, params: Localizer) -> Located:
    """The two heads of one person. Where their sizes differ much the less sure one is something near the head: it is
    looked for again with the other's radius, about its place, or where the other one's mirror image is far from it."""
    if a.confidence < b.confidence:
        a, b = b, a
    here: Side = "L" if a.centre[0] > b.centre[0] else "R"
    there: Side = "R" if here == "L" else "L"
    middle = midline(seen, a.centre)
    image = None if middle is None else mirrored_place(seen, a, middle)
    if image is not None and np.linalg.norm(image - b.centre) > OFFSETS_MM[-1]:
        dark = metal(seen, a, image)
        if dark > ALL_METAL:
            return Located({here: a}, {there: IMPLANT.format(dark)}, "midline")
    unlike = abs(a.radius - b.radius) > UNLIKE_MM
    elsewhere = (
        image is not None
        and params.separation_mm[0] <= abs(image[0] - a.centre[0]) <= params.separation_mm[1]
        and np.linalg.norm(image - b.centre) > params.level_mm
    )
    if image is not None and elsewhere and (unlike or b.confidence < SURE):
        again, why = facing_head(seen, sign, a, image, params)
        if again is None and a.confidence < alone:
            reason = f"no femoral head found: confidence {a.confidence:.2f}, below {alone:g}, and none opposite"
            return Located({}, {"L": reason, "R": reason})
        if again is None:
            return Located({here: a}, {there: why}, "midline")
        b = again
    elif unlike:
        again, _ = facing_head(seen, sign, a, b.centre, params)
        b = again if again is not None else b
    return Located({here: a, there: b}, {}, "pair")


def one_side(seen: Volume, head: Head, params: Localizer) -> Located:
    """A head without a fellow: its side from the body's midline where the volume shows it, else from its neck."""
    middle = midline(seen, head.centre)
    by_neck: Side = "L" if head.lateral > 0 else "R"
    if middle is None or abs(head.centre[0] - middle) < 0.35 * params.separation_mm[0]:
        return Located({by_neck: head}, {}, "neck")
    side: Side = "L" if head.centre[0] > middle else "R"
    conflict = "" if side == by_neck else "the neck points to the other side than the body's midline"
    other: Side = "R" if side == "L" else "L"
    return Located({side: head}, {other: "the mirrored place lies outside the series"}, "midline", conflict)


def facing_head(
    seen: Volume, sign: int, head: Head, mirrored: NDArray[np.float64], params: Localizer
) -> tuple[Head | None, str]:
    """The head opposite a sure one, looked for about its mirror image: collapsed heads have too little rim to be found
    without knowing where. A ball that is mostly signal void is an implant."""
    lateral = -head.lateral
    dark = metal(seen, head, mirrored)
    if dark > ALL_METAL:
        return None, IMPLANT.format(dark)
    offsets = np.stack(np.meshgrid(*[OFFSETS_MM] * 3), axis=-1).reshape(-1, 3)
    starts = [
        (_toward(judge(seen, sign, mirrored + offset, (head.radius,), ROUGH), lateral), tuple(mirrored + offset))
        for offset in offsets
    ]
    best: Head | None = None
    for _, start in sorted(starts, reverse=True)[:6]:
        centre, radius = refine(seen, sign, np.array(start), head.radius)
        what = judge(seen, sign, centre, (radius,))
        confidence = _toward(what, lateral) * ended(ends(seen, sign, centre, radius, lateral))
        away = float(np.linalg.norm(centre - mirrored))
        if away > params.level_mm or abs(radius - head.radius) > 4.0 or (best and best.confidence >= confidence):
            continue
        if what.seen < LEAST_SEEN or not params.radius_mm[0] <= radius <= params.radius_mm[1]:
            continue
        if not params.separation_mm[0] <= abs(centre[0] - head.centre[0]) <= params.separation_mm[1]:
            continue
        best = Head(centre, radius, confidence, lateral, what.seen)
    if best is None:
        return None, "no ball at the mirrored place: the head is destroyed, or an implant"
    if best.confidence < WEAK and (dark := metal(seen, head, mirrored, 24.0)) > ALL_METAL:
        return None, IMPLANT.format(dark)
    if (dark := void(seen, best)) > METAL:
        return None, IMPLANT.format(dark)
    if best.confidence < params.facing_confidence:
        return None, f"confidence {best.confidence:.2f} at the mirrored place, below {params.facing_confidence:g}"
    return best, ""


def mirrored_place(seen: Volume, head: Head, middle: float) -> NDArray[np.float64] | None:
    """Where the other head should be; None where the volume does not go there."""
    image = np.array([2 * middle - head.centre[0], *head.centre[1:]])
    index = seen.to_index(image)
    reach = OFFSETS_MM[-1] / seen.spacing
    shown = ((index > -reach) & (index < np.array(seen.array.shape) - 1 + reach)).all()
    return image if shown else None


def metal(seen: Volume, head: Head, image: NDArray[np.float64], medial: float = 8.0) -> float:
    """The most signal void in a ball as large as `head` about the mirrored place; laterally the body may end."""
    inwards = np.array([head.lateral, 0.0, 0.0])
    across, around = np.arange(0.0, medial + 1, 8.0), np.arange(-medial, medial + 1, 8.0)
    places = [image + x * inwards + np.array([0.0, y, z]) for x in across for y in around for z in around]
    return max(void(seen, Head(place, 0.9 * head.radius, 0.0, 0.0, 0.0)) for place in places)


def _toward(what: Judged, lateral: float) -> float:
    return what.confidence if what.lateral == lateral else 0.8 * what.confidence


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


def opposite(volume: Volume, polarity: int, known: Head, params: Localizer) -> Located:
    """The other head, in a series that shows it alone, where another series of this frame of reference has shown
    `known`: two that face each other need be less sure."""
    seen = view(volume)
    found = [
        head
        for sign in ((1,) if polarity else (1, -1))
        for head in heads(seen, sign, params)
        if facing(known, head, params, params.pair_confidence) and alike(known, head)
    ]
    if not found:
        return Located()
    best = max(found, key=lambda head: head.confidence)
    return Located({"L" if best.centre[0] > known.centre[0] else "R": best}, {}, "pair")


def alike(a: Head, b: Head) -> bool:
    """Two heads of one person; a ball as large as a socket is not taken for a head before all are seen."""
    return abs(a.radius - b.radius) < 3.0 and max(a.radius, b.radius) < SOCKET_MM


def nested(inner: Head, outer: Head) -> bool:
    """A ball inside a larger one, nearly as sure, is the head in its socket."""
    within = float(np.linalg.norm(inner.centre - outer.centre)) < outer.radius - 0.5 * inner.radius
    return within and inner.radius < 0.8 * outer.radius and inner.confidence > outer.confidence - 0.1


def midline(seen: Volume, centre: NDArray[np.float64]) -> float | None:
    """LPS x of the middle of the body at the height of `centre`. Where a wide field of view cuts the body off it is the
    middle of the field; None where a narrow one does."""
    out = np.arange(-300.0, 301.0, 5.0)
    axes = seen.affine[:3, :3] / seen.spacing
    across = axes[:, int(np.abs(axes[0]).argmax())]
    across = across * np.sign(across[0])  # along the stack, so that an oblique one is not left
    middles = []
    for up in (-10.0, 10.0, 30.0, 50.0):
        points = centre + np.array([0.0, 0.0, up]) + out[:, None] * across
        index = seen.to_index(points)
        inside = ((index > -0.5) & (index < np.array(seen.array.shape) - 0.5)).all(axis=1)
        if inside.sum() < 20:
            continue
        values = ndimage.map_coordinates(seen.array, index[inside].T, order=1, mode="nearest")
        body = np.flatnonzero(ndimage.median_filter(values, 3) > AIR)
        shown = points[inside][:, 0]
        if len(body) and shown[-1] - shown[0] > 240 and body[0] > 0 and body[-1] < len(shown) - 1:
            middles.append((shown[body[0]] + shown[body[-1]]) / 2)
        elif len(body) and shown[-1] - shown[0] > WIDE_MM:
            middles.append((shown[0] + shown[-1]) / 2)
    return float(np.median(middles)) if middles else None
