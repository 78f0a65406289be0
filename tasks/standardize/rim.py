"""The rim of a ball, looked for along rays from its centre: steps 2 and 3 of `locate`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tasks.domain.volume import Volume
from tasks.standardize.balls import AIR

RIM = 0.35
"""Fall of log brightness over 3 mm that counts as a whole rim (to 70 %)."""

NECK_DEG, NECK_CONE_DEG, SOCKET_DEG = 40.0, 28.0, 55.0
"""The neck leaves the head this far below the horizontal, laterally; the cone that it fills; the cone left out where
the rim is looked for."""


def directions(count: int) -> NDArray[np.float64]:
    """(count, 3) unit vectors spread evenly over the sphere."""
    k = np.arange(count) + 0.5
    z, turn = 1 - 2 * k / count, np.pi * (1 + 5**0.5) * k
    flat = np.sqrt(1 - z**2)
    return np.stack([flat * np.cos(turn), flat * np.sin(turn), z], axis=-1)


@dataclass(frozen=True)
class Fan:
    """Rays, and for a neck to the left (+1) or right (-1): which of them should meet the rim, and which the neck."""

    rays: NDArray[np.float64]
    rim: dict[float, NDArray[np.bool_]]
    neck: dict[float, NDArray[np.bool_]]


def fan(count: int) -> Fan:
    rays, down = directions(count), np.deg2rad(NECK_DEG)
    cosine = {side: rays @ np.array([side * np.cos(down), 0.0, -np.sin(down)]) for side in (1.0, -1.0)}
    rim = {side: along < np.cos(np.deg2rad(SOCKET_DEG)) for side, along in cosine.items()}
    return Fan(rays, rim, {side: along > np.cos(np.deg2rad(NECK_CONE_DEG)) for side, along in cosine.items()})


FINE, ROUGH = fan(300), fan(110)
"""Rays of a ball that is refined and judged, and of one that is only compared with others."""

SOCKET_CONE_DEG = 37.0
"""Rays this near to the direction away from the neck end in the socket."""

ENDS = 0.5
"""Fall of log brightness below the brightest so far by which a ray has left the marrow (to 60 %)."""

ENDS_MM = 8.0
"""It leaves it before this far beyond the ball."""

BOWL_DEG, JOINT_MM, BONE_MM = 60.0, (3.0, 8.0), 8.0
"""Rays this near to the direction away from the neck meet the bowl of the socket: the joint is their darkest place
between so far inside and beyond the ball, and bone lies within so much beyond that."""

RIVALS_MM, SAME_MM, FAINT, UNKNOWN = 9.0, 2.5, 0.1, 0.7
"""Other edges are looked for this far inside and outside the rim; those this near to it are the rim's; weaker ones are
none; and what is taken for agreement where hardly a ray can be looked at."""

FIRST_MM, LAST_MM = 9.0, 42.0
"""Rays are looked at between these distances from the centre, every mm."""


def drops(
    seen: Volume, sign: int, centre: NDArray[np.float64], near: tuple[float, float], by: Fan = FINE
) -> tuple[NDArray[np.float64], NDArray[np.float32], NDArray[np.bool_]]:
    """steps (mm from the centre, those within `near`), (rays, steps) fall of log brightness over 3 mm along rays from
    `centre`, times `sign`, and which samples lie in the volume on rays that cross its slices steeply enough to be
    sharp."""
    low, high = max(np.ceil(near[0]), FIRST_MM + 2), min(np.floor(near[1]), LAST_MM - 2)
    walk = np.arange(low - 2, high + 3)
    inverse = np.linalg.inv(seen.affine)
    start, rays = inverse[:3, :3] @ centre + inverse[:3, 3], by.rays
    index = start + (rays @ inverse[:3, :3].T)[:, None, :] * walk[:, None]
    shape = np.array(seen.array.shape)
    inside = ((index > -0.5) & (index < shape - 0.5)).all(axis=2)
    a, b = seen.affine[:3, 1], seen.affine[:3, 2]
    across = np.array([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])
    blunt = np.abs(rays @ across) > (0.87 if seen.spacing[0] > 2.5 else 1.1) * np.sqrt(across @ across)
    values = ndimage.map_coordinates(seen.array, index.reshape(-1, 3).T, order=1, mode="nearest")
    values = values.reshape(len(rays), len(walk))
    fall = (0.5 * sign) * (values[:, :-4] + values[:, 1:-3] - values[:, 3:-1] - values[:, 4:])
    return walk[2:-2], fall, inside[:, 2:-2] & ~blunt[:, None]


def refine(seen: Volume, sign: int, centre: NDArray[np.float64], radius: float) -> tuple[NDArray[np.float64], float]:
    """Least squares ball through the rim points of all rays; points far from the last ball weigh less each round."""
    for window in (6.0, 5.0, 4.0, 3.0):
        steps, fall, ok = drops(seen, sign, centre, (radius - window - 1, radius + window + 1))
        fall = np.where(ok & (np.abs(steps - radius) <= window), fall, 0.0)
        at = np.clip(fall.argmax(axis=1), 1, len(steps) - 2)
        rays = np.arange(len(FINE.rays))
        before, top, after = fall[rays, at - 1], fall[rays, at], fall[rays, at + 1]
        bend = before - 2 * top + after
        bent = bend < -1e-6
        peak = steps[at] + np.where(bent, np.clip(0.5 * (before - after) / np.where(bent, bend, -1.0), -0.5, 0.5), 0)
        weight = np.clip(top / RIM, 0, 1) * np.maximum(1 - ((peak - radius) / (window + 1)) ** 2, 0)
        use = weight > 0.15
        if int(use.sum()) < 40:
            return centre, radius
        points, root = FINE.rays[use] * peak[use, None], np.sqrt(weight[use])
        design = np.column_stack([2 * points, np.ones(len(points))]) * root[:, None]
        # A weak pull to the last centre steadies directions in which the stack shows little.
        pull = np.array([20.0, 20.0, 20.0, 0.0])
        target = np.concatenate([(points**2).sum(axis=1) * root, np.zeros(4)])
        answer = np.linalg.lstsq(np.vstack([design, np.diag(pull)]), target, rcond=None)[0]
        step = answer[:3] * min(1.0, 4.0 / max(float(np.linalg.norm(answer[:3])), 1e-9))
        centre = centre + step
        wanted = float(np.sqrt(max(answer[3] + step @ step, 1.0)))
        radius = float(np.clip(np.clip(wanted, radius - 3, radius + 3), FIRST_MM + 4, LAST_MM - 4))
    return centre, radius


@dataclass(frozen=True)
class Judged:
    confidence: float
    lateral: float
    seen: float


def judge(seen: Volume, sign: int, centre: NDArray[np.float64], radii: tuple[float, ...], by: Fan = FINE) -> Judged:
    """How much of a femoral head's rim is there, and to which side its neck leaves; at the best of `radii`.

    confidence = rim x (3/4 + 1/4 (rim where the other side's neck would be - rim in the neck)) x what is seen of it.
    """
    steps, fall, ok = drops(seen, sign, centre, (min(radii) - 1.75, max(radii) + 1.75), by)
    found = [judged(np.abs(steps - radius) <= 1.75, fall, ok, by) for radius in radii]
    return max(found, key=lambda one: one.confidence)


def judged(near: NDArray[np.bool_], fall: NDArray[np.float32], ok: NDArray[np.bool_], by: Fan) -> Judged:
    valid = ok[:, near].all(axis=1)
    there = np.clip(fall[:, near].max(axis=1, initial=0.0) / RIM, 0, 1)

    def share(cone: NDArray[np.bool_]) -> float:
        both = valid & cone
        return float(there[both].mean()) if both.any() else 0.5

    best: Judged | None = None
    for lateral in (1.0, -1.0):
        expected = by.rim[lateral]
        contrast = share(by.neck[-lateral]) - share(by.neck[lateral])
        part = float((valid & expected).sum() / expected.sum())
        confidence = share(expected) * (0.75 + 0.25 * contrast) * min(1.0, part / 0.5)
        if best is None or confidence > best.confidence:
            best = Judged(confidence, lateral, part)
    assert best is not None
    return best


def ends(seen: Volume, sign: int, centre: NDArray[np.float64], radius: float, lateral: float) -> float | None:
    """How surely marrow ends where the socket begins, away from the neck: 0 to 1; None where the volume does not show
    it. A neck and a shaft are as round as a head where slices cut them across, and their marrow goes on there."""
    rays = FINE.rays[FINE.rays @ -neck_of(lateral) > np.cos(np.deg2rad(SOCKET_CONE_DEG))]
    walk = np.arange(0.0, radius + ENDS_MM + 1)
    index = seen.to_index(centre + rays[:, None, :] * walk[:, None])
    inside = ((index > -0.5) & (index < np.array(seen.array.shape) - 0.5)).all(axis=(1, 2))
    if inside.mean() < 0.3:
        return None
    values = ndimage.map_coordinates(seen.array, index[inside].reshape(-1, 3).T, order=1, mode="nearest")
    values = sign * values.reshape(-1, len(walk))
    fall = (np.maximum.accumulate(values, axis=1) - values)[:, walk >= 0.6 * radius].max(axis=1)
    return float(np.clip(fall / ENDS, 0, 1).mean())


def neck_of(lateral: float) -> NDArray[np.float64]:
    """The direction in which the neck leaves to this side."""
    down = np.deg2rad(NECK_DEG)
    return np.array([lateral * np.cos(down), 0.0, -np.sin(down)])


def socket(seen: Volume, sign: int, centre: NDArray[np.float64], radius: float, lateral: float) -> float:
    """How surely bone begins again beyond the joint, above and medially, 0 to 1: 0 too where the volume does not show
    it. The socket stays where the head within it is dead or has collapsed."""
    rays = FINE.rays[FINE.rays @ -neck_of(lateral) > np.cos(np.deg2rad(BOWL_DEG))]
    walk = radius + np.arange(-JOINT_MM[0], JOINT_MM[1] + BONE_MM + 1)
    index = seen.to_index(centre + rays[:, None, :] * walk[:, None])
    inside = ((index > -0.5) & (index < np.array(seen.array.shape) - 0.5)).all(axis=(1, 2))
    if inside.mean() < 0.3:
        return 0.0
    values = ndimage.map_coordinates(seen.array, index[inside].reshape(-1, 3).T, order=1, mode="nearest")
    values = sign * values.reshape(-1, len(walk))
    joint = values[:, : int(sum(JOINT_MM)) + 1]
    dark, at = joint.min(axis=1), joint.argmin(axis=1)
    beyond = np.arange(len(walk)) - at[:, None]
    bone = np.where((beyond >= 0) & (beyond <= BONE_MM), values, -np.inf).max(axis=1)
    return float(np.clip((bone - dark) / ENDS, 0, 1).mean())


def agreed(seen: Volume, sign: int, centre: NDArray[np.float64], radius: float, lateral: float) -> float:
    """Share of the rays towards the rim whose steepest fall, near and far, is the ball's: what is none is round by some
    of its edges alone."""
    steps, fall, ok = drops(seen, sign, centre, (max(radius - RIVALS_MM, FIRST_MM + 2), radius + RIVALS_MM))
    fall = np.where(ok, fall, 0.0)
    rim = FINE.rim[lateral] & ok.all(axis=1) & (fall.max(axis=1) > FAINT)
    if int(rim.sum()) < 6:
        return UNKNOWN
    return float((np.abs(steps[fall.argmax(axis=1)] - radius) <= SAME_MM)[rim].mean())


def air_beside(seen: Volume, centre: NDArray[np.float64], lateral: float) -> float:
    """Share of air where a pelvis goes on and a knee ends: the larger of that 30 to 90 mm medially and 30 to 44 mm
    laterally, of what the volume shows."""
    found = [0.0]
    for towards, far in ((-lateral, 91.0), (lateral, 45.0)):
        out, up = np.meshgrid(np.arange(30.0, far, 5.0), [-10.0, 0.0, 10.0, 20.0])
        points = centre + np.stack([towards * out.ravel(), np.zeros(out.size), up.ravel()], axis=-1)
        index = seen.to_index(points)
        inside = ((index > -0.5) & (index < np.array(seen.array.shape) - 0.5)).all(axis=1)
        if inside.sum() >= 8:
            values = ndimage.map_coordinates(seen.array, index[inside].T, order=1, mode="nearest")
            found.append(float((values < AIR).mean()))
    return max(found)
