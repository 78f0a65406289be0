"""Where the heads are in one frame of reference: its series by role, the heads that they show, and QC about those."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from tasks.domain.volume import Volume
from tasks.standardize import intensity, quality
from tasks.standardize.locate import SAME_MM, Head, Located, locate, opposite
from tasks.standardize.params import Params
from tasks.standardize.rim import ROUGH
from tasks.standardize.roles import Candidate, rank

SHOWN = 0.5
"""A series shows a head whose place is known where it holds this share of it."""

ELSEWHERE = {
    "ANKLE", "BRAIN", "BREAST", "CHEST", "CSPINE", "ELBOW", "FOOT", "HAND", "HEAD", "HEART", "HUMERUS", "IAC", "JAW",
    "KNEE", "NECK", "ORBIT", "SHOULDER", "SKULL", "TMJ", "TSPINE", "WRIST",
}  # fmt: skip
"""Parts of the body (BodyPartExamined) far from any hip."""

Name = Literal["t1", "fluid", "contrast"]


@dataclass(frozen=True)
class Ready:
    """A series with its role: the image that is resampled, the intensity that becomes 1, and QC about the hips."""

    one: Candidate
    image: Volume
    unit: float
    quality: dict[str, float | None]


@dataclass(frozen=True)
class Place:
    """One frame of reference: its series, and the heads that the series of role `by` showed."""

    frame: str
    roles: dict[str, Ready]
    located: Located
    by: str


def grouped(
    found: list[Candidate], params: Params
) -> tuple[dict[str, list[dict[Name, Candidate]]], list[tuple[Candidate, str]]]:
    """{frame of reference: fields of view, each with its roles}, best series first; and those not needed, with why. A
    frame has several fields where its series show each hip for itself."""
    groups: dict[str, list[dict[Name, Candidate]]] = {}
    left = []
    for one in sorted((c for c in found if c.role), key=lambda c: rank(c, params)):
        # Without a frame of reference a series shares its place with its own study's series only by assumption.
        fields = groups.setdefault(one.stack.frame_of_reference or one.stack.study, [])
        same = [roles for roles in fields if one.role in roles and not one.beside(roles[one.role])]  # type: ignore[index]
        free = [roles for roles in fields if one.role not in roles]
        near = [roles for roles in free if not any(one.beside(other) for other in roles.values())]
        if same:
            left.append((one, f"another series of this visit is a better {one.role}"))
        elif near:
            near[0][one.role] = one  # type: ignore[index]
        else:
            fields.append({one.role: one})  # type: ignore[dict-item]
    return groups, left


def place_of(frame: str, roles: dict[Name, Candidate], params: Params, before: list[Place]) -> Place:
    """A field of view whose frame has shown its head already (`before`) need not show it again; one that shows the
    other hip is looked at with that in mind."""
    located, by = known(frame, roles, before) or localize(roles, params)
    single = [place for place in before if place.frame == frame and len(place.located.heads) == 1]
    if single and not located.heads:
        (head,) = single[0].located.heads.values()
        beside = opposite(roles[by].volume, 1 if by == "t1" else 0, head, params.localizer)  # type: ignore[index]
        located = beside if beside.heads else located
    centres = [head.centre for head in located.heads.values()]
    ready: dict[str, Ready] = {}
    for role, one in roles.items():
        image = intensity.unbiased(one.volume, params.n4) if params.n4.enabled and centres else one.volume
        boxes = intensity.around(image, centres)
        if not boxes:
            ready[role] = Ready(one, image, 1.0, {})
            continue
        values, body = intensity.sample(boxes)
        found = quality.quality(image, boxes, values, body)
        ready[role] = Ready(one, image, intensity.unit(body, params.levels[role]), found)
    return Place(frame, ready, located, by)


def known(frame: str, roles: dict[Name, Candidate], before: list[Place]) -> tuple[Located, str] | None:
    role, one = next(iter(roles.items()))
    for place in before:
        heads = {s: head for s, head in place.located.heads.items() if coverage(one.volume, head) > SHOWN}
        if place.frame == frame and heads:
            return replace(place.located, heads=heads, missing={}), role
    return None


def localize(roles: dict[Name, Candidate], params: Params) -> tuple[Located, str]:
    """Heads in one frame of reference, by its T1, else by contrast or fluid; and the role that showed them. Where a
    series lacks one that it should show, the others are asked for it."""
    best, by = Located(), ""
    order: tuple[Name, ...] = ("t1", "contrast", "fluid")
    for role in order:
        if role not in roles:
            continue
        found = believed(locate(roles[role].volume, 1 if role == "t1" else 0, params.localizer), roles[role])
        if not by or (len(found.heads) > len(best.heads) and confirmed(best, found)):
            best, by = replace(found, heads=found.heads | best.heads), by if best.heads else role
        if len(best.heads) == 2 or (best.heads and not best.missing):
            break
    return best, by


def confirmed(first: Located, then: Located) -> bool:
    """Whether another series shows again the head that the first one showed, and the first saw no metal at the other
    place."""
    same = [side in then.heads and np.linalg.norm(h.centre - then.heads[side].centre) < SAME_MM
            for side, h in first.heads.items()]  # fmt: skip
    return all(same) and not first.implant


def believed(found: Located, one: Candidate) -> Located:
    """One ball alone is no head in a series whose header names a part of the body that is far from any hip; two, with a
    pelvis between them, are."""
    part = body_part(one)
    if len(found.heads) != 1 or part not in ELSEWHERE:
        return found
    reason = f"no femoral head found: one ball alone, in a series whose header says {part}"
    return Located({}, {"L": reason, "R": reason})


def body_part(one: Candidate) -> str:
    return str(one.stack.frames[0].dataset.get("BodyPartExamined", "") or "").strip().upper()


def coverage(image: Volume, head: Head) -> float:
    """Share of the ball of the head (and its rim) that lies in the volume."""
    shells = np.concatenate([ROUGH.rays * (head.radius * share) for share in (0.4, 0.7, 0.9, 1.05)])
    index = image.to_index(head.centre + shells)
    return float(((index > -0.5) & (index < np.array(image.array.shape) - 0.5)).all(axis=1).mean())
