"""Femoral heads found by shape alone: bright balls with a rim, in any plane, in bodies of any size.

1. `balls`: in every slice each edge votes, along its gradient, for the centres of circles; the circles that a ball of
   one radius cuts into the slices are added up, so that a ball is found in stacks of thick slices as well.
2. `refine`: rays from a candidate look for the rim; least squares gives centre and radius, outliers left out.
3. `judge`: a femoral head has a rim above, medially, in front and behind, none towards its neck (below and laterally),
   and the body goes on medially. A condyle, a bladder or a vertebra is otherwise.
4. `choose`: two heads, level and a pelvis apart, are the hips of a wide field of view; else the best one alone.
5. `pair`: where not both were found, a second look, at balls that vouch for each other: heads that have collapsed.

Intensities are logarithms, so that coil bias adds a slow slope, and an edge is a ratio of brightness.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tasks.domain.hip import Side
from tasks.domain.volume import Volume
from tasks.standardize.balls import view, voted
from tasks.standardize.depth import shallow
from tasks.standardize.head import SOCKET_MM, SURE, Head, alike, facing, heads
from tasks.standardize.mirror import (
    ALL_METAL,
    IMPLANT,
    OFFSETS_MM,
    VOID,
    facing_head,
    metal,
    midline,
    mirrored_place,
    pelvis_at,
)
from tasks.standardize.pairs import pair
from tasks.standardize.params import Localizer
from tasks.standardize.rim import agreed

LEADS = 0.7
"""Confidence from which a head says where the other one is."""

SAME_MM = 8.0
"""Two looks that differ by less have found the same head."""

USUAL_MM, UNUSUAL = (21.0, 28.0), 0.005
SEEN, UNSEEN_SHARE = 0.7, 0.5
DISAGREES = 0.4
"""What a ball that stands alone needs more confidence for: each mm of radius beyond most adults'; what is not seen of
it; rays whose steepest edge is another than its rim."""

LARGER, LARGE_MM = 0.01, 24.0
"""Of several balls the larger one is rather the head than a trochanter: confidence that a mm is worth, up to a size."""

SURE_LARGE, WITHIN = 0.8, 0.8
"""Two balls as large as sockets are looked into where one is less sure; heads within are smaller by this factor."""

UNLIKE_MM = 5.0
"""The two heads of one person differ in radius by less."""


@dataclass(frozen=True)
class Located:
    """heads by side; `missing`: why a side that the volume should show has none; `side_from`: pair | midline | neck."""

    heads: dict[Side, Head] = field(default_factory=dict)
    missing: dict[Side, str] = field(default_factory=dict)
    side_from: str = ""

    @property
    def implant(self) -> bool:
        """Whether there is metal where a head should be."""
        return any(why.startswith(VOID) for why in self.missing.values())

    @property
    def confidence(self) -> float:
        return sum(head.confidence for head in self.heads.values())


def locate(volume: Volume, polarity: int, params: Localizer) -> Located:
    """Both femoral heads, one, or none. polarity: +1 marrow is brighter than its rim (T1), 0 not known."""
    seen = view(volume)
    alone = params.single_confidence if polarity else params.blind_confidence
    answers = []
    for sign in (1,) if polarity else (1, -1):
        votes = voted(seen, sign, params)
        answer = choose(seen, sign, heads(seen, sign, votes, params), alone, params)
        if polarity and (len(answer.heads) < 2 or as_large_as_sockets(answer)):
            answer = completed(answer, pair(seen, sign, votes, params))
        answers.append(answer)
    return of_a_pelvis(seen, polarity, max(answers, key=lambda answer: answer.confidence))


def of_a_pelvis(seen: Volume, polarity: int, answer: Located) -> Located:
    """The answer, or none where two legs, or a chest, lie where a pelvis should be, or one ball lies below the skin as
    that of a shoulder does."""
    centres = [head.centre for head in answer.heads.values()]
    if len(centres) == 1 and shallow(seen, next(iter(answer.heads.values()))):
        reason = "no femoral head found: one ball alone, as near to the skin as that of a shoulder"
        return Located({}, {"L": reason, "R": reason})
    if not centres or answer.side_from == "neck":
        return answer
    middle = np.mean(centres, axis=0)
    if len(centres) == 1:
        across = midline(seen, centres[0])
        middle = middle if across is None else np.array([across, *centres[0][1:]])
    if pelvis_at(seen, middle, polarity):
        return answer
    reason = "no femoral head found: what looks like one has no pelvis beside it, but air or fat alone"
    return Located({}, {"L": reason, "R": reason})


def as_large_as_sockets(answer: Located) -> bool:
    """Two balls that may be the bone about the heads."""
    both = answer.heads.values()
    return len(both) == 2 and max(h.radius for h in both) > SOCKET_MM and min(h.confidence for h in both) < SURE_LARGE


def completed(answer: Located, both: tuple[float, Head, Head] | None) -> Located:
    """What a second look adds: two heads that vouch for each other where there was none, or the other one of a head
    that is one of them; or the heads within what was taken for them. An implant stays one."""
    if both is None or answer.implant:
        return answer
    sides: dict[Side, Head] = {"L": both[1], "R": both[2]}
    if len(answer.heads) == 2:
        smaller = all(sides[side].radius < WITHIN * head.radius for side, head in answer.heads.items())
        return Located(sides, {}, "pair") if smaller else answer
    if any(np.linalg.norm(head.centre - sides[side].centre) > SAME_MM for side, head in answer.heads.items()):
        return answer
    return Located(sides | answer.heads, {}, "pair")


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
    other: Side = "R" if side == "L" else "L"
    if side != by_neck:
        reason = f"a head of neither side for sure: its neck says {by_neck}, the middle of what is shown {side}"
        return Located({}, {"L": reason, "R": reason})
    return Located({side: head}, {other: "the mirrored place lies outside the series"}, "midline")


def opposite(volume: Volume, polarity: int, known: Head, params: Localizer) -> Located:
    """The other head, in a series that shows it alone, where another series of this frame of reference has shown
    `known`: two that face each other need be less sure."""
    seen = view(volume)
    found = [
        head
        for sign in ((1,) if polarity else (1, -1))
        for head in heads(seen, sign, voted(seen, sign, params), params)
        if facing(known, head, params, params.pair_confidence) and alike(known, head)
    ]
    if not found:
        return Located()
    best = max(found, key=lambda head: head.confidence)
    return Located({"L" if best.centre[0] > known.centre[0] else "R": best}, {}, "pair")
