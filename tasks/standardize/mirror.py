"""The other head: where the middle of the body says that it is, and what is there."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tasks.domain.volume import Volume
from tasks.standardize.balls import AIR, FLOOR
from tasks.standardize.head import LEAST_SEEN, METAL, Head, ended, void
from tasks.standardize.params import Localizer
from tasks.standardize.rim import ROUGH, Judged, ends, judge, refine

WIDE_MM = 280.0
"""A field of view wider than this was meant for both hips."""

EDGE = 8
"""Steps of 5 mm: where more air than this lies beside the body at one end of a field, its middle is not the body's."""

FAT = float(np.log(FLOOR + 0.6))
"""What is brighter, where fat is bright, is fat."""

PELVIS, LEAST_POINTS = 0.28, 30
"""Least share of what is neither air nor fat at the middle of a pelvis (0.36 and more in 60 of them, and below 0.25
between two knees that were taken for one); and with fewer points nothing can be said."""

OFFSETS_MM = np.array([-16.0, -8.0, 0.0, 8.0, 16.0])
"""Along each axis, where the head opposite a sure one is looked for about its mirror image."""

ALL_METAL, WEAK = 0.8, 0.6
"""Share of the mirrored place as dark as air from which it holds an implant; and the confidence below which a ball
beside a void is doubted."""

VOID = "signal void"
IMPLANT = VOID + " in {:.0%} of the ball at the mirrored place: an implant"


def midline(seen: Volume, centre: NDArray[np.float64]) -> float | None:
    """LPS x of the middle of the body at the height of `centre`. Where a wide field of view cuts the body off it is the
    middle of the field; None where a narrow one does, or a wide one that lies beside it."""
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
        elif len(body) and shown[-1] - shown[0] > WIDE_MM and body[0] <= EDGE and body[-1] >= len(shown) - 1 - EDGE:
            middles.append((shown[0] + shown[-1]) / 2)
    return float(np.median(middles)) if middles else None


def pelvis_at(seen: Volume, middle: NDArray[np.float64], polarity: int) -> bool:
    """Whether what lies about the body's middle at the height of the heads may be a pelvis. Two legs have air or their
    skin's fat there, and a chest has lungs. In what is not T1-like nothing is known to be fat."""
    aside, around, up = np.meshgrid([-6.0, 0.0, 6.0], np.arange(-20.0, 21, 5), np.arange(-10.0, 46, 5), indexing="ij")
    points = middle + np.stack([aside.ravel(), around.ravel(), up.ravel()], axis=-1)
    index = seen.to_index(points)
    inside = ((index > -0.5) & (index < np.array(seen.array.shape) - 0.5)).all(axis=1)
    if inside.sum() < LEAST_POINTS:
        return True
    values = ndimage.map_coordinates(seen.array, index[inside].T, order=1, mode="nearest")
    fat = (values >= FAT) & (polarity > 0)
    return bool(((values > AIR) & ~fat).mean() >= PELVIS)


def mirrored_place(seen: Volume, head: Head, middle: float) -> NDArray[np.float64] | None:
    """Where the other head should be; None where the volume does not go there."""
    image = np.array([2 * middle - head.centre[0], *head.centre[1:]])
    index = seen.to_index(image)
    reach = OFFSETS_MM[-1] / seen.spacing
    shown = ((index > -reach) & (index < np.array(seen.array.shape) - 1 + reach)).all()
    return image if shown else None


def facing_head(
    seen: Volume, sign: int, head: Head, mirrored: NDArray[np.float64], params: Localizer
) -> tuple[Head | None, str]:
    """The head opposite a sure one, looked for about its mirror image: collapsed heads have too little rim to be found
    without knowing where. A ball that is mostly signal void is an implant."""
    lateral = -head.lateral
    dark = metal(seen, head, mirrored)
    if dark > ALL_METAL:
        return None, IMPLANT.format(dark)
    best: Head | None = None
    for start in starts_about(seen, sign, mirrored, head.radius, lateral)[:6]:
        centre, radius = refine(seen, sign, start, head.radius)
        what = judge(seen, sign, centre, (radius,))
        confidence = toward(what, lateral) * ended(ends(seen, sign, centre, radius, lateral))
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


def starts_about(
    seen: Volume,
    sign: int,
    place: NDArray[np.float64],
    radius: float,
    lateral: float,
    offsets: tuple[NDArray[np.float64], ...] = (OFFSETS_MM, OFFSETS_MM, OFFSETS_MM),
) -> list[NDArray[np.float64]]:
    """Places about this one, that where a ball of this radius fits best first."""
    around = np.stack(np.meshgrid(*offsets), axis=-1).reshape(-1, 3)
    fits = [(toward(judge(seen, sign, place + o, (radius,), ROUGH), lateral), tuple(place + o)) for o in around]
    return [np.array(start) for _, start in sorted(fits, reverse=True)]


def metal(seen: Volume, head: Head, image: NDArray[np.float64], medial: float = 8.0) -> float:
    """The most signal void in a ball as large as `head` about the mirrored place; laterally the body may end."""
    inwards = np.array([head.lateral, 0.0, 0.0])
    across, around = np.arange(0.0, medial + 1, 8.0), np.arange(-medial, medial + 1, 8.0)
    places = [image + x * inwards + np.array([0.0, y, z]) for x in across for y in around for z in around]
    return max(void(seen, Head(place, 0.9 * head.radius, 0.0, 0.0, 0.0)) for place in places)


def toward(what: Judged, lateral: float) -> float:
    return what.confidence if what.lateral == lateral else 0.8 * what.confidence
