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
from tasks.standardize.params import Localizer

VOTE_MM = 2.0
"""In-plane voxel, about, of the images that vote."""
SLICE_MM = 3.6
"""Thinner slices are averaged up to about this before they vote."""
CELL_MM = 4.0
"""Cell of the vote accumulators."""
RADIUS_STEP_MM = 2.0
VOTERS = 82.0
"""Percentile of the gradient above which a pixel votes."""
SMALLEST_CIRCLE_MM = 8.0
CANDIDATES, REFINED = 16, 6
"""Balls kept from the votes, and those of them that are refined."""
APART_MM = 15.0
"""Two candidates are at least this far apart."""
SURE = 0.74
"""Confidence of each of two facing heads at which the search ends."""
SOCKET_MM = 27.0
OFFSETS_MM = np.array([-16.0, -8.0, 0.0, 8.0, 16.0])
"""Along each axis, where the head opposite a sure one is looked for about its mirror image."""
FLOOR = 0.06
"""Added to brightness (1 is the 97th percentile) before its logarithm: what is darker is noise."""
AIR = float(np.log(FLOOR + 0.09))
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
STEPS = np.arange(9.0, 43.0, 1.0)
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


def view(volume: Volume) -> Volume:
    """log brightness, averaged to about VOTE_MM in plane and SLICE_MM through it, a little smoothed."""
    factors = np.maximum(np.round(VOTE_MM / volume.spacing), 1).astype(int)
    factors[0] = max(int(SLICE_MM // volume.spacing[0]), 1)
    coarse = block_mean(volume, np.minimum(factors, volume.array.shape))
    high = max(float(np.percentile(coarse.array[:, ::4, ::4], 97)), 1e-9)
    logs = np.log(np.maximum(coarse.array, 0) * np.float32(1 / high) + np.float32(FLOOR))
    sigma = (0.0, *(0.5 * VOTE_MM / coarse.spacing[1:]))
    return Volume(ndimage.gaussian_filter(logs, sigma, truncate=2.5), coarse.affine)


def block_mean(volume: Volume, factors: NDArray[np.int_]) -> Volume:
    """Average blocks of `factors` voxels; what does not fill a block at the far end is left out."""
    fd, fh, fw = (int(f) for f in factors)
    d, h, w = (n // f for n, f in zip(volume.array.shape, (fd, fh, fw), strict=True))
    array = volume.array[: d * fd, : h * fh, : w * fw].astype(np.float32)
    if (fd, fh, fw) != (1, 1, 1):
        array = array.reshape(d, fd, h, fh, w, fw).mean(axis=(1, 3, 5))
    affine = volume.affine.copy()
    affine[:3, 3] = volume.to_lps((np.array([fd, fh, fw]) - 1) / 2)
    affine[:3, :3] = volume.affine[:3, :3] * [fd, fh, fw]
    return Volume(array, affine)


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
        confidence = float(what.confidence * (1 - medial_air(seen, centre, what.lateral)))
        found.append(Head(centre, radius, confidence, what.lateral, what.seen))
        if any(facing(found[-1], one, params, SURE) and alike(found[-1], one) for one in found[:-1]):
            break  # nothing better will come
    found = [head for head in found if not any(nested(other, head) for other in found)]
    found.sort(key=lambda head: -head.confidence)
    kept: list[Head] = []
    for head in found:
        if all(np.linalg.norm(head.centre - other.centre) > APART_MM for other in kept):
            kept.append(head)
    return kept


def balls(seen: Volume, sign: int, params: Localizer) -> list[tuple[NDArray[np.float64], float]]:
    """(centre LPS, radius) of the balls with most votes for their size."""
    thin = [2 if spacing < 0.85 * VOTE_MM else 1 for spacing in seen.spacing[1:]]  # `view` has smoothed it
    array, spacing = seen.array[:, :: thin[0], :: thin[1]], seen.spacing * [1, *thin]
    slices, height, width = array.shape
    if height < 8 or width < 8:
        return []
    circle_radii = np.arange(SMALLEST_CIRCLE_MM, params.radius_mm[1] + RADIUS_STEP_MM, RADIUS_STEP_MM)
    gy, gx = np.gradient(array, spacing[1], axis=1), np.gradient(array, spacing[2], axis=2)
    size = np.hypot(gy, gx)
    floor = max(float(np.percentile(size[:, ::2, ::2], VOTERS)), 1e-6)
    s, y, x = np.nonzero(size > floor)
    strength = size[s, y, x]
    weight = np.minimum(strength / (2 * floor), 1.0)
    uy, ux = (sign / CELL_MM) * gy[s, y, x] / strength, (sign / CELL_MM) * gx[s, y, x] / strength
    rows, columns = int(np.ceil(height * spacing[1] / CELL_MM)), int(np.ceil(width * spacing[2] / CELL_MM))
    py, px = (
        (y * (spacing[1] / CELL_MM) + 0.5).astype(np.float32),
        (x * (spacing[2] / CELL_MM) + 0.5).astype(np.float32),
    )
    circles = np.zeros((len(circle_radii), slices, rows, columns), np.float32)
    for j, radius in enumerate(circle_radii):
        cy, cx = np.floor(py + radius * uy).astype(np.int32), np.floor(px + radius * ux).astype(np.int32)
        flat = (s * rows + cy) * columns + cx
        ok = (cy >= 0) & (cy < rows) & (cx >= 0) & (cx < columns)
        found = np.bincount(flat[ok], weight[ok], slices * rows * columns)
        circles[j] = found.reshape(slices, rows, columns)
    circles = box3(box3(circles, 2), 3)
    ball_radii = np.arange(params.radius_mm[0] + 1.5, params.radius_mm[1] + 0.1, RADIUS_STEP_MM)
    middles = np.arange(2 * slices - 1) / 2
    score = np.zeros((len(ball_radii), len(middles), rows, columns), np.float32)
    pixel = float(spacing[1:].mean())
    for i, radius in enumerate(ball_radii):
        for c, middle in enumerate(middles):
            far = (np.arange(slices) - middle) * spacing[0]
            cut = np.flatnonzero(np.abs(far) < 0.9 * radius)
            circle = np.sqrt(radius**2 - far[cut] ** 2)
            bins = np.clip(np.round((circle - circle_radii[0]) / RADIUS_STEP_MM), 0, None).astype(int)
            score[i, c] = circles[bins, cut].sum(axis=0)
            # The whole edge that slices could show; a ball that leaves the stack is not let off for what is missing.
            whole = 2 * np.pi * radius * 0.8 * (1.8 * radius / spacing[0]) / pixel
            score[i, c] /= max(2 * np.pi * float(circle.sum()) / pixel, 0.6 * whole)
    best = score.max(axis=0)
    axes = seen.affine[:3, :3] / seen.spacing
    step = np.array([spacing[0] / 2, CELL_MM, CELL_MM])
    reach = np.ceil(APART_MM / step).astype(int)
    answer = []
    for _ in range(CANDIDATES):
        c, row, column = (int(i) for i in np.unravel_index(int(best.argmax()), best.shape))
        if best[c, row, column] <= 0:
            break
        # Cells count from the corner of the first voxel, voxels from its centre.
        place = np.array([c * step[0], (row + 0.5) * CELL_MM - 0.5 * CELL_MM, (column + 0.5) * CELL_MM - 0.5 * CELL_MM])
        answer.append((seen.affine[:3, 3] + axes @ place, float(ball_radii[int(score[:, c, row, column].argmax())])))
        best[tuple(slice(max(p - n, 0), p + n + 1) for p, n in zip((c, row, column), reach, strict=True))] = 0
    return answer


def box3(values: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Mean of each value and its two neighbours along `axis`; zero beyond the ends."""
    total, along = values.copy(), [slice(None)] * values.ndim
    ahead, behind = list(along), list(along)
    ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
    total[tuple(behind)] += values[tuple(ahead)]
    total[tuple(ahead)] += values[tuple(behind)]
    return total * np.float32(1 / 3)


def drops(
    seen: Volume, sign: int, centre: NDArray[np.float64], by: Fan = FINE
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """(rays, steps) fall of log brightness over 3 mm along rays from `centre`, times `sign`, and which samples lie in
    the volume on rays that cross its slices steeply enough to be sharp."""
    inverse = np.linalg.inv(seen.affine)
    start, rays = inverse[:3, :3] @ centre + inverse[:3, 3], by.rays
    index = (start + (rays @ inverse[:3, :3].T)[:, None, :] * STEPS[:, None]).reshape(-1, 3)
    shape = np.array(seen.array.shape)
    inside = ((index > -0.5) & (index < shape - 0.5)).all(axis=1).reshape(len(rays), len(STEPS))
    across = np.cross(seen.affine[:3, 1], seen.affine[:3, 2])
    blunt = np.abs(rays @ (across / np.linalg.norm(across))) > (0.87 if seen.spacing[0] > 2.5 else 1.1)
    values = ndimage.map_coordinates(seen.array, index.T, order=1, mode="nearest").reshape(len(rays), len(STEPS))
    fall = np.zeros_like(values)
    fall[:, 2:-2] = (0.5 * sign) * (values[:, :-4] + values[:, 1:-3] - values[:, 3:-1] - values[:, 4:])
    return fall, inside & ~blunt[:, None]


def refine(seen: Volume, sign: int, centre: NDArray[np.float64], radius: float) -> tuple[NDArray[np.float64], float]:
    """Least squares ball through the rim points of all rays; points far from the last ball weigh less each round."""
    for window in (6.0, 5.0, 4.0, 3.0):
        fall, ok = drops(seen, sign, centre)
        fall = np.where(ok & (np.abs(STEPS - radius) <= window), fall, 0.0)
        at = np.clip(fall.argmax(axis=1), 1, len(STEPS) - 2)
        rays = np.arange(len(FINE.rays))
        before, top, after = fall[rays, at - 1], fall[rays, at], fall[rays, at + 1]
        bend = before - 2 * top + after
        bent = bend < -1e-6
        peak = STEPS[at] + np.where(bent, np.clip(0.5 * (before - after) / np.where(bent, bend, -1.0), -0.5, 0.5), 0)
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
        radius = float(np.clip(np.clip(wanted, radius - 3, radius + 3), STEPS[0] + 4, STEPS[-1] - 4))
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
    fall, ok = drops(seen, sign, centre, by)
    return max((judged(fall, ok, radius, by) for radius in radii), key=lambda one: one.confidence)


def judged(fall: NDArray[np.float32], ok: NDArray[np.bool_], radius: float, by: Fan) -> Judged:
    near = np.abs(STEPS - radius) <= 1.75
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


def medial_air(seen: Volume, centre: NDArray[np.float64], lateral: float) -> float:
    """Share of air among what the volume shows 30 to 90 mm medially, where a pelvis goes on and a knee ends."""
    out, up = np.meshgrid(np.arange(30.0, 91.0, 5.0), [-10.0, 0.0, 10.0, 20.0])
    points = centre + np.stack([-lateral * out.ravel(), np.zeros(out.size), up.ravel()], axis=-1)
    index = seen.to_index(points)
    inside = ((index > -0.5) & (index < np.array(seen.array.shape) - 0.5)).all(axis=1)
    if inside.sum() < 8:
        return 0.0
    values = ndimage.map_coordinates(seen.array, index[inside].T, order=1, mode="nearest")
    return float((values < AIR).mean())


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
        left, right = (a, b) if a.centre[0] > b.centre[0] else (b, a)
        return Located({"L": left, "R": right}, {}, "pair")
    mirrored: list[Located] = []
    for head in [head for head in found if head.confidence >= params.pair_confidence][:3]:
        middle = midline(seen, head.centre)
        if middle is None or abs(head.centre[0] - middle) < 0.5 * params.separation_mm[0]:
            continue
        side: Side = "L" if head.centre[0] > middle else "R"
        other: Side = "R" if side == "L" else "L"
        if (head.lateral > 0) != (side == "L"):
            continue
        image = np.array([2 * middle - head.centre[0], *head.centre[1:]])
        index = seen.to_index(image)
        reach = OFFSETS_MM[-1] / seen.spacing
        if not ((index > -reach) & (index < np.array(seen.array.shape) - 1 + reach)).all():
            continue
        second, why = facing_head(seen, sign, head, image, params)
        if second is not None:
            mirrored.append(Located({side: head, other: second}, {}, "midline"))
        elif head.confidence >= alone:
            mirrored.append(Located({side: head}, {other: why}, "midline"))
    if mirrored:
        return max(mirrored, key=lambda one: one.confidence)
    best = found[0].confidence if found else 0.0
    if best < alone:
        reason = f"no femoral head found: confidence {best:.2f}, below {alone:g}"
        return Located({}, {"L": reason, "R": reason})
    return one_side(seen, found[0], params)


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
    offsets = np.stack(np.meshgrid(*[OFFSETS_MM] * 3), axis=-1).reshape(-1, 3)
    starts = [
        (_toward(judge(seen, sign, mirrored + offset, (head.radius,), ROUGH), lateral), tuple(mirrored + offset))
        for offset in offsets
    ]
    best: Head | None = None
    for _, start in sorted(starts, reverse=True)[:6]:
        centre, radius = refine(seen, sign, np.array(start), head.radius)
        what = judge(seen, sign, centre, (radius,))
        confidence = _toward(what, lateral)
        away = float(np.linalg.norm(centre - mirrored))
        if away > params.level_mm or abs(radius - head.radius) > 4.0 or (best and best.confidence >= confidence):
            continue
        best = Head(centre, radius, confidence, lateral, what.seen)
    if best is None:
        return None, "no ball at the mirrored place: the head is destroyed, or an implant"
    dark = void(seen, best)
    if dark > 0.35:
        return None, f"signal void in {dark:.0%} of the ball at the mirrored place: an implant"
    if best.confidence < params.facing_confidence:
        return None, f"confidence {best.confidence:.2f} at the mirrored place, below {params.facing_confidence:g}"
    return best, ""


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
