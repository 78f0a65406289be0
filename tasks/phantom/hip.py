"""One hip-visit: the head, its lesion, oedema, collapse and mimics, painted; and what is true of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.phantom.anatomy import (
    FEMUR,
    PELVIS,
    SIGNAL,
    Box,
    Canvas,
    Capsule,
    Shape,
    Warp,
    draw,
    inside,
    place,
    refine,
    union,
)
from tasks.phantom.noise import texture
from tasks.phantom.presets import WEIGHT_BEARING_DEG
from tasks.phantom.vessels import Tree, distance_to, grow

CUP_AXIS_DEG = -49.0  # direction of the middle of the acetabulum in the coronal plane, from vertical, + lateral
CUP_HALF_DEG = WEIGHT_BEARING_DEG[1] - CUP_AXIS_DEG
INTERIORS = {"fat": (0.76, 0.10, 0.13), "fibrous": (0.34, 0.46, 0.16), "sclerotic": (0.16, 0.10, 0.08)}


@dataclass(frozen=True)
class HipState:
    """One hip at one visit. Lengths mm, angles degrees; `hip_from_lps` is 4x4, hip space with +x lateral."""

    side: str
    hip_from_lps: NDArray[np.float64]
    radius: float
    scale: float
    affected: bool
    half_angle: float
    lateral: float
    anterior: float
    interior: str
    oedema: float
    effusion: float
    collapse: float
    implant: bool
    mimics: tuple[str, ...]
    mimic_level: float
    vessel_length: float
    bifurcations: tuple[float, ...]
    key: tuple[int, ...]  # seeds what stays the same in this hip over all its visits

    @property
    def centre(self) -> NDArray[np.float64]:
        return np.asarray(np.linalg.inv(self.hip_from_lps)[:3, 3])

    @property
    def axis(self) -> NDArray[np.float64]:
        """Unit vector from the head's centre through the middle of the lesion, in hip space."""
        phi, ant = np.deg2rad([self.lateral, self.anterior])
        return np.array([np.sin(phi) * np.cos(ant), -np.sin(ant), np.cos(phi) * np.cos(ant)])

    def tree(self) -> Tree:
        """The vessels at this visit."""
        rng = np.random.default_rng([*self.key, 2])
        return grow(125.0, np.array(self.bifurcations), self.radius, rng).at(self.vessel_length)


@dataclass(frozen=True)
class Truth:
    """Signed distances (mm, negative inside) of head and lesion on `box` of one series' grid."""

    box: Box
    head: NDArray[np.float32]
    lesion: NDArray[np.float32]


def wobble(xyz: Sequence[NDArray], key: tuple[int, ...], length_mm: float) -> NDArray[np.float32]:
    """Smooth field of about unit SD, the same for the same key: six plane waves.

    Coordinates must change linearly along the grid, so that each wave is a product over the three axes.
    """
    rng = np.random.default_rng(key)
    directions, phases = rng.normal(size=(6, 3)), rng.uniform(0, 2 * np.pi, 6)
    lines = [np.broadcast_to(c, np.broadcast_shapes(*(c.shape for c in xyz))) for c in xyz]
    waves = (directions * (2 * np.pi / length_mm / 1.7)).astype(np.float64)
    origin = np.array([float(line[0, 0, 0]) for line in lines])
    d = waves @ np.stack([line[:, 0, 0] for line in lines]) + phases[:, None]
    h = waves @ (np.stack([line[0, :, 0] for line in lines]) - origin[:, None])
    w = waves @ (np.stack([line[0, 0, :] for line in lines]) - origin[:, None])
    plane = np.exp(1j * (d.T[:, None, :] + h.T[None, :, :])).reshape(-1, 6)  # (slices x rows, waves)
    across = np.exp(1j * w)
    # sin(a + b) = sin a cos b + cos a sin b, as one product of real matrices.
    left = np.concatenate([plane.imag, plane.real], axis=1).astype(np.float32)
    right = np.concatenate([across.real, across.imag]).astype(np.float32) * np.float32(1 / np.sqrt(3.0))
    return (left @ right).reshape(lines[0].shape)


def bones(canvas: Canvas, hip: HipState, warp: Warp, rng: np.random.Generator) -> None:
    """Pelvic bone, joint and femur without the inside of the head."""
    _bone(canvas, hip, tuple((shape, 2.0) for shape in PELVIS), 9.0, 0.75, warp, rng)
    neck = 15.6 + 1.8 * hip.effusion
    recess = Capsule("fluid", (2, 0, -1), (25, 4, -18), hip.radius / hip.scale - 1.2 + 0.8 * hip.effusion, neck)
    draw(canvas, recess, hip.hip_from_lps, hip.scale, layers=((3.4, "tendon"), (1.6, "synovium"), (0.0, "fluid")))
    _cup(canvas, hip)
    _bone(canvas, hip, FEMUR, 7.0, 0.45, None, rng)


def _bone(
    canvas: Canvas,
    hip: HipState,
    shapes: tuple[tuple[Shape, float], ...],
    blend: float,
    red: float,
    warp: Warp | None,
    rng: np.random.Generator,
) -> None:
    """Bones grown together: cortex, and marrow that is redder (share `red`) near the joint and mottled everywhere."""
    bend = 4 * warp.amplitude if warp else 0.0
    placed = place(canvas, tuple(shape for shape, _ in shapes), hip.hip_from_lps, hip.scale, canvas.softness + bend)
    if placed is None:
        return
    box, to_standard = placed
    xyz = canvas.coordinates(box, to_standard, warp, coarse=True)
    outer, inner = (refine(gap * np.float32(hip.scale), box) for gap in union(shapes, xyz, blend))
    redder_here = refine(np.float32(red) * np.exp(-((xyz[2] * np.float32(1 / 70)) ** 2)), box)
    canvas.paint(box, inside(outer, canvas.softness), "cortex")
    grain = texture(outer.shape, rng)  # type: ignore[arg-type]
    share = np.clip(redder_here + np.float32(0.10) * grain, 0, 1)
    amount = inside(inner, canvas.softness)
    for row, channel in enumerate(canvas.channels):
        marrow, redder = SIGNAL["marrow"][channel], SIGNAL["red_marrow"][channel]
        part = canvas.signal[row][box]
        part += amount * (np.float32(marrow) + share * np.float32(redder - marrow) - part)


def _cup(canvas: Canvas, hip: HipState) -> None:
    """The acetabulum's bearing: subchondral bone, cartilage and joint fluid around the head."""
    box = canvas.box(hip.centre, hip.radius + 9)
    if box is None:
        return
    x, y, z = canvas.coordinates(box, hip.hip_from_lps)
    r = np.sqrt(x * x + y * y + z * z) + np.float32(1e-3)
    middle = np.deg2rad(CUP_AXIS_DEG)
    along = (x * np.float32(np.sin(middle)) + z * np.float32(np.cos(middle)) + y * np.float32(0.10)) / r
    # The cup's edge, in mm along the sphere.
    rim = (np.arccos(np.clip(along, -1, 1)) - np.float32(np.deg2rad(CUP_HALF_DEG))) * r
    soft = canvas.softness
    canvas.paint(box, inside(np.maximum(r - (hip.radius + 5.6), rim), soft), "cortex")
    canvas.paint(box, inside(np.maximum(r - (hip.radius + 3.6), rim - 2), soft), "cartilage")
    # The acetabular fossa holds fat; the labrum caps the lateral edge.
    fossa = np.maximum(r - (hip.radius + 5.0), np.sqrt((x + hip.radius) ** 2 + y * y + (z + 4) ** 2) - 13)
    canvas.paint(box, inside(fossa, soft), "fascia")
    lateral, up = np.sin(np.deg2rad(WEIGHT_BEARING_DEG[1])), np.cos(np.deg2rad(WEIGHT_BEARING_DEG[1]))
    reach = hip.radius + 3.4
    labrum = np.sqrt((x - reach * lateral - 1) ** 2 + (y * 0.12) ** 2 + (z - reach * up + 1) ** 2) - 3.4
    canvas.paint(box, inside(labrum, soft), "tendon")
    film = np.abs(r - (hip.radius + 1.6)) - np.float32(0.25 + 0.4 * hip.effusion)
    canvas.paint(box, inside(film, soft) * np.float32(0.55 + 0.2 * min(hip.effusion, 2)), "fluid")


def surface(hip: HipState, x: NDArray, y: NDArray, z: NDArray) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(signed distance to the head, distance from the centre); collapse flattens the head over its lesion."""
    r = np.sqrt(x * x + y * y + z * z) + np.float32(1e-3)
    u = hip.axis.astype(np.float32)
    edge = np.cos(np.deg2rad(max(hip.half_angle, 1.0)))
    dent = np.clip(((x * u[0] + y * u[1] + z * u[2]) / r - edge) / (1 - edge), 0, 1)
    depth = hip.collapse * np.minimum(np.sqrt(dent) * 1.25, 1.0) if hip.collapse else np.float32(0)
    return (r - (np.float32(hip.radius) - depth)).astype(np.float32), r


def head(canvas: Canvas, hip: HipState, rng: np.random.Generator) -> Truth | None:
    """Paint the head and what is in it; returns the true shapes on this grid."""
    box = canvas.box(hip.centre, hip.radius + 15)
    if box is None:
        return None
    x, y, z = canvas.coordinates(box, hip.hip_from_lps)
    sdf, r = surface(hip, x, y, z)
    soft = canvas.softness
    grain = texture(sdf.shape, rng)  # type: ignore[arg-type]
    neck_axis = np.array([0.79, 0.15, -0.60], np.float32)
    to_neck = (x * neck_axis[0] + y * neck_axis[1] + z * neck_axis[2]) / r
    bare = to_neck < np.float32(0.72)  # where the head has a surface of its own
    canvas.paint(box, inside(sdf, soft) * bare, "cortex")
    bone = inside(np.where(bare, sdf + np.float32(1.1), sdf), soft)
    island = np.clip(0.25 * (to_neck * r / np.float32(hip.radius)) + 0.05, 0, 0.35)  # red marrow towards the neck
    for row, channel in enumerate(canvas.channels):
        marrow, red = SIGNAL["marrow"][channel], SIGNAL["red_marrow"][channel]
        value = marrow + (red - marrow) * island * np.float32(2.2)
        value = value * (1 + np.float32(0.05) * grain)
        part = canvas.signal[row][box]
        part += bone * (value - part)
    in_neck = inside(_neck(hip, x, y, z), soft)
    marrow_here = np.maximum(bone, in_neck)
    lesion = np.full(sdf.shape, 9.0, np.float32)
    border = lesion
    if hip.affected:
        u = (hip.axis * hip.radius).astype(np.float32)
        chord = 2 * hip.radius * np.sin(np.deg2rad(hip.half_angle) / 2)
        q = np.sqrt((x - u[0]) ** 2 + (y - u[1]) ** 2 + (z - u[2]) ** 2)
        border = q - np.float32(chord) + np.float32(0.045 * chord) * wobble((x, y, z), (*hip.key, 3), 17.0)
        lesion = np.maximum(border, sdf)
    _mimics_and_oedema(canvas, hip, box, (x, y, z), marrow_here, border)
    if hip.affected:
        _lesion(canvas, hip, box, (x, y, z), bone, border, sdf, grain)
    return Truth(box, sdf, lesion)


def _neck(hip: HipState, x: NDArray, y: NDArray, z: NDArray) -> NDArray[np.float32]:
    a = np.array([41.0, 8.0, -31.0], np.float32) * np.float32(hip.scale)
    along = np.clip((x * a[0] + y * a[1] + z * a[2]) / (a @ a), 0, 1)
    return np.sqrt((x - along * a[0]) ** 2 + (y - along * a[1]) ** 2 + (z - along * a[2]) ** 2) - np.float32(
        13.5 * hip.scale
    )


def _mimics_and_oedema(
    canvas: Canvas, hip: HipState, box: Box, xyz: tuple[NDArray, ...], marrow: NDArray, border: NDArray
) -> None:
    x, y, z = xyz
    rng = np.random.default_rng([*hip.key, 4])
    places = rng.uniform(-0.55, 0.55, (4, 3)) * hip.radius
    if "physis" in hip.mimics:  # the scar of the growth plate: a thin dark line across the base of the head
        plane = (x * 0.62 + y * 0.10 - z * 0.55) - np.float32(0.42 * hip.radius)
        line = np.exp(-((plane + 1.2 * wobble((x, y, z), (*hip.key, 5), 24.0)) ** 2) / np.float32(2 * 0.9**2))
        canvas.paint(box, line * marrow * np.float32(0.65), (0.25, 0.10, 0.12))
    if "island" in hip.mimics:  # red marrow: dark on T1, a little bright on STIR, no rim
        for place, size in zip(places[:3], rng.uniform(4.5, 9.0, 3), strict=True):
            gap = np.sqrt((x - place[0]) ** 2 + (y - place[1]) ** 2 + ((z - place[2]) * 1.3) ** 2)
            blob = np.exp(-((gap / size) ** 2)) * (1 + 0.3 * wobble((x, y, z), (*hip.key, 6), 9.0))
            canvas.paint(
                box,
                (np.clip(blob, 0, 1) * marrow * np.float32(0.5 + 0.4 * hip.mimic_level)).astype(np.float32),
                (0.40, 0.27, 0.34),
            )
    if "cyst" in hip.mimics:
        spot = np.array([0.55, 0.1, 0.62]) * hip.radius
        gap = np.sqrt((x - spot[0]) ** 2 + (y - spot[1]) ** 2 + (z - spot[2]) ** 2) - 3.2
        canvas.paint(box, inside(gap, canvas.softness) * marrow, "fluid")
    level = hip.oedema if hip.affected else 0.0
    if level > 0:
        spread = np.exp(-np.maximum(border, 0) / np.float32(5 + 8 * level)) * (
            1 + 0.18 * wobble((x, y, z), (*hip.key, 7), 14.0)
        )
    elif "oedema" in hip.mimics:  # transient oedema without a lesion: head and neck, no band
        level = 0.45 + 0.5 * hip.mimic_level
        gap = np.sqrt((x - 4) ** 2 + (y + 2) ** 2 + (z - 2) ** 2)
        spread = np.clip(1.35 - gap / 22, 0, 1) * (0.85 + 0.2 * wobble((x, y, z), (*hip.key, 7), 16.0))
    else:
        return
    amount = np.clip(spread * min(level, 1.3) * 0.85, 0, 0.95) * marrow
    canvas.paint(box, amount.astype(np.float32), (0.36, 0.78, 0.52))


def _lesion(
    canvas: Canvas,
    hip: HipState,
    box: Box,
    xyz: tuple[NDArray, ...],
    bone: NDArray,
    border: NDArray,
    sdf: NDArray,
    grain: NDArray,
) -> None:
    """Dead bone with its reactive border: dark band, bright inner line on STIR, enhancing rim, crescent once broken."""
    x, y, z = xyz
    kind = hip.interior
    mottle = np.clip(0.5 + 0.45 * wobble((x, y, z), (*hip.key, 8), 11.0), 0, 1)
    if kind == "mixed":
        values = [INTERIORS["fat"][c] * mottle + INTERIORS["fibrous"][c] * (1 - mottle) for c in range(3)]
    else:
        values = [INTERIORS[kind][c] * (0.88 + 0.24 * mottle) for c in range(3)]
    core = inside(border, canvas.softness) * bone
    for row, channel in enumerate(canvas.channels):
        part = canvas.signal[row][box]
        part += core * (values[channel] * (1 + np.float32(0.06) * grain) - part)
    width = max(0.9, canvas.softness * 0.62)

    def band(at: float, wide: float) -> NDArray[np.float32]:
        return np.asarray(np.exp(-((border - at) ** 2) / (2 * wide**2)) * bone, dtype=np.float32)

    granulation = band(-2.4, width * 0.95) * np.float32(0.85)
    canvas.paint(box, granulation, (0.34, 0.80, 0.58))
    canvas.paint(box, band(-0.3, width) * np.float32(0.92), (0.08, 0.06, 0.14))
    if hip.collapse > 0:
        crescent = np.exp(-((sdf + 3.2) ** 2) / (2 * width**2)) * inside(border + 4, canvas.softness * 2)
        canvas.paint(box, (crescent * bone * np.float32(0.9)).astype(np.float32), (0.10, 1.0, 0.10))


def vessels(canvas: Canvas, hip: HipState) -> tuple[Box, NDArray[np.float32]] | None:
    """Paint the head's vessels on a contrast-enhanced grid; returns the signed distance to them on a box."""
    box = canvas.box(hip.centre, hip.radius + 6)
    if box is None:
        return None
    gap = distance_to(hip.tree(), np.linalg.inv(hip.hip_from_lps), canvas.affine, box)
    amount = np.clip(np.float32(0.5) - gap / np.float32(1.25), 0, 1)
    canvas.paint(box, amount * np.float32(0.95), "blood")
    return box, gap


def implant(canvas: Canvas, hip: HipState) -> None:
    """A hip replaced by metal: a void with a bright, distorted edge."""
    box = canvas.box(hip.centre, hip.radius + 34)
    if box is None:
        return
    x, y, z = canvas.coordinates(box, hip.hip_from_lps)
    stem = Capsule("air", (0, 0, 4), (42, 8, -34), hip.radius + 8, 15)
    a, b = np.array(stem.a), np.array(stem.b)
    axis = b - a
    along = np.clip(((x - a[0]) * axis[0] + (y - a[1]) * axis[1] + (z - a[2]) * axis[2]) / (axis @ axis), 0, 1)
    gap = np.sqrt(
        (x - a[0] - along * axis[0]) ** 2 + (y - a[1] - along * axis[1]) ** 2 + (z - a[2] - along * axis[2]) ** 2
    )
    gap = (
        gap - (stem.radius_a + along * (stem.radius_b - stem.radius_a)) + 3 * wobble((x, y, z), (*hip.key, 9), 40.0)
    ).astype(np.float32)
    canvas.paint(box, np.exp(-((gap - 2.5) ** 2) / np.float32(24)) * np.float32(0.7), (1.3, 1.2, 1.1))
    canvas.paint(box, inside(gap, 3.0), "air")
