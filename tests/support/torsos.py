"""People, and things that are no hip, as layers of tissue for `tissues`: proportions from anatomy books, not from
tasks/phantom or `bodies`. Patient LPS, mm; all sizes random."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tissues import Field, lump, ripple, rod, turned

Paint = Callable[[Field], None]


@dataclass(frozen=True)
class Joint:
    """The truth of one hip. radius: of the bone, cortex included. state: sound | dead | collapsed | metal."""

    side: str
    centre: NDArray[np.float64]
    radius: float
    state: str


@dataclass(frozen=True)
class Person:
    paint: Paint
    joints: dict[str, Joint]
    middle: NDArray[np.float64]
    width: float


def person(
    rng: np.random.Generator, size: float | None = None, states: dict[str, str] | None = None, thin: bool | None = None
) -> Person:
    """size: 1 is a middle-sized adult; 0.72 a child of about nine, 1.22 a very large man."""
    size = float(rng.uniform(0.75, 1.2)) if size is None else size
    middle = rng.uniform(-40, 40, 3)
    roll, turn = rng.normal(0, 2.5), rng.normal(0, 3.0)
    to_patient = turned(rng.normal(0, 4), roll, turn)
    apart = size * rng.uniform(82, 96)
    lard = rng.uniform(6, 14) if (rng.random() < 0.4 if thin is None else thin) else rng.uniform(18, 55)
    seed = int(rng.integers(1 << 31))
    half = np.array([apart + size * rng.uniform(58, 82) + lard, size * rng.uniform(78, 100) + lard])
    joints, parts = {}, []
    for side, out in (("L", 1.0), ("R", -1.0)):
        state = (states or {}).get(side) or str(rng.choice(["sound", "dead", "sound", "collapsed", "sound"]))
        local = np.array([out * apart, rng.normal(0, 2.5), rng.normal(0, 2)])
        radius = float(np.clip(size * rng.normal(24.2, 1.2), 17.5, 30))
        joints[side] = Joint(side, middle + to_patient @ local, radius, state)
        parts.append(_hip(rng, local, radius, out, size, state))
    wall, soft_parts = half - lard, int(rng.integers(1 << 31))

    def paint(field: Field) -> None:
        p = ((field.points - middle.astype(np.float32)) @ to_patient.astype(np.float32)).astype(np.float32)
        local = Field(p, float(field.soft))
        local.shares = field.shares
        draw = np.random.default_rng(seed)
        crotch = -75 * size
        wide = np.where(p[:, 2] > 60 * size, 1 - 0.0016 * (p[:, 2] - 60 * size), 1.0).astype(np.float32)
        trunk = _column(p, np.zeros(2), half, wide)
        legs = np.maximum(
            *(_column(p, np.array([s * half[0] * 0.5, 0]), half * [0.49, 0.86], np.float32(1)) for s in (1, -1))
        )
        skin = np.where(p[:, 2] > crotch, trunk, legs)
        local.lay(skin, "muscle")
        local.lay(skin - 1.5, "fat")
        inner = _column(p, np.zeros(2), wall, wide)
        meat = np.where(p[:, 2] > crotch, inner, legs - lard)
        local.lay(meat, "muscle")
        seams = ripple(p, draw, (35 * size, 80 * size), 6)
        local.lay(np.where(meat > 1, 2.2 - 14 * np.abs(seams), -9).astype(np.float32), "fat", 0.9)
        gut = np.random.default_rng(soft_parts)
        local.lay(lump(p, size * np.array([0, 8, 55]), size * np.array([58, 55, 70]), power=2.6), "fat", 0.85)
        for _ in range(7):
            at = size * gut.uniform([-45, -35, 25], [45, 40, 110])
            tissue = str(gut.choice(["muscle", "air", "water", "muscle"]))
            local.lay(lump(p, at, size * gut.uniform(9, 19, 3), turned(*gut.uniform(0, 90, 3))), tissue, 0.8)
        local.lay(lump(p, size * np.array([gut.normal(0, 5), -22, 22]), size * gut.uniform(22, 46, 3)), "water")
        local.lay(rod(p, size * np.array([0, 62, 20]), size * np.array([0, 40, 130]), 34 * size, 24 * size), "compact")
        local.lay(rod(p, size * np.array([0, 62, 20]), size * np.array([0, 40, 130]), 31 * size, 21 * size), "red")
        for s in (1, -1):
            start, end = size * np.array([s * 42, -10, 130]), size * np.array([s * 62, -62, -120])
            local.lay(rod(p, start, end, 5.5 * size, 4 * size), "blood")
            local.lay(rod(p, start + 11, end + [9, 6, 0], 6 * size, 5 * size), "blood")
        for part in parts:
            part(local)

    return Person(paint, joints, middle, 2 * float(half[0]))


def _column(p: NDArray, at: NDArray, half: NDArray, wide: NDArray | np.float32) -> NDArray[np.float32]:
    q = (np.abs((p[:, :2] - at.astype(np.float32)) / half.astype(np.float32)) ** np.float32(2.3)).sum(-1)
    return ((1 - q ** np.float32(1 / 2.3) / wide) * half.min()).astype(np.float32)


def _hip(rng: np.random.Generator, c: NDArray, r: float, out: float, s: float, state: str) -> Paint:
    shaft_deg, forward_deg = rng.uniform(118, 138), rng.uniform(4, 24)
    long = s * rng.uniform(44, 56)
    neck = np.array([
        out * np.sin(np.radians(180 - shaft_deg)) * np.cos(np.radians(forward_deg)),
        np.sin(np.radians(180 - shaft_deg)) * np.sin(np.radians(forward_deg)),
        -np.cos(np.radians(180 - shaft_deg)),
    ])  # fmt: skip
    base = c + neck * long
    egg = r * np.array([1.0, rng.uniform(0.97, 1.02), rng.uniform(0.96, 1.0)])
    rind, gristle = rng.uniform(1.0, 2.0), rng.uniform(1.4, 2.8)
    mouth = np.array([out * np.cos(np.radians(42)), -0.25, -np.sin(np.radians(42))])
    mouth /= np.linalg.norm(mouth)
    effusion = rng.uniform(0, 7) if rng.random() < 0.4 else 0.0
    pole = np.array([out * rng.normal(0.1, 0.3), -rng.uniform(0.1, 0.6), 1.0])
    pole /= np.linalg.norm(pole)
    dead_at, dead_size = c + pole * r * 0.95, r * rng.uniform(0.5, 0.95)
    red = rng.uniform(0, 0.7)
    grain = int(rng.integers(1 << 31))

    def paint(field: Field) -> None:
        near = np.flatnonzero((np.abs(field.points - c.astype(np.float32)) < [92 * s, 110 * s, 210 * s]).all(-1))
        if not len(near):
            return
        sub = Field(field.points[near], float(field.soft))
        sub.shares = field.shares[near]
        p = sub.points
        away = np.sqrt(((p - c.astype(np.float32)) ** 2).sum(-1))
        # The pelvis about the joint: ilium, pubis and ischium meet in the socket.
        blade = lump(p, c + s * np.array([out * -14, 14, 66]), s * np.array([13, 46, 62]), turned(-18, 0, out * 28))
        roof = rod(p, c + s * np.array([out * -8, 4, 18]), c + s * np.array([out * -10, 8, 48]), 24 * s, 15 * s)
        pubis = rod(p, c + s * np.array([out * -20, -12, -8]), c + s * np.array([out * -74, -42, -34]), 15 * s, 9 * s)
        seat = rod(p, c + s * np.array([out * -16, 20, -10]), c + s * np.array([out * -28, 34, -70]), 16 * s, 15 * s)
        wall = rod(p, c + s * np.array([out * -24, 2, 4]), c + s * np.array([out * -24, 4, -6]), 24 * s, 20 * s)
        bowl = np.maximum.reduce([blade, roof, pubis, seat, wall])
        cup = r + 2 * gristle
        opening = ((p - c.astype(np.float32)) @ mouth.astype(np.float32)).astype(np.float32)
        bone = np.minimum(bowl, np.maximum(away - cup, opening - 6))
        sub.lay(bone, "compact")
        sub.lay(bone - 1.6, "red")
        capsule = np.minimum(cup + 4 + effusion - away, opening + 12 + effusion)
        sub.lay(capsule, "water" if effusion else "muscle", 0.95)
        sub.lay(np.minimum(cup - away, 8 - opening), "cartilage")
        if state == "metal":
            stem = rod(p, c + neck * long * 0.9, c + neck * long + [out * 2, 0, -130 * s], 14 * s, 10 * s)
            sub.lay(np.maximum(r + 9 * s - away, rod(p, c, base, 15 * s, 16 * s)), "metal")
            sub.lay(stem, "metal")
            field.shares[near] = sub.shares
            return
        head = lump(p, c, egg)
        if state == "collapsed":
            flat = (c + pole * r * 0.86).astype(np.float32)
            head = np.minimum(head, ((flat - p) @ pole.astype(np.float32)).astype(np.float32))
        shaft = rod(p, base + [out * 4, 2, -8 * s], base + [out * -6, 4, -190 * s], 17 * s, 14 * s)
        knob = rod(p, base + [out * 11 * s, 8, 4 * s], base + [out * 10 * s, 10, -16 * s], 13 * s, 15 * s)
        small = lump(p, base + s * np.array([out * -13, 16, -42]), 10 * s)
        femur = np.maximum.reduce([head, rod(p, c, base, 0.68 * r, 0.78 * r), shaft, knob, small])
        sub.lay(femur + gristle - 0.3 - np.maximum(away - r - 6, 0), "cartilage", 0.8)
        sub.lay(femur, "compact")
        sub.lay(femur - rind, "yellow")
        speckle = ripple(p, np.random.default_rng(grain), (7, 22), 7)
        sub.lay(np.where(away > r, femur - rind - 1, -5).astype(np.float32), "red", red)
        sub.lay(np.where(femur > rind, 6 * (speckle - 1.1), -5).astype(np.float32), "red", 0.35)
        if state in ("dead", "collapsed"):
            wobble = 2.5 * ripple(p, np.random.default_rng(grain + 1), (9, 20), 4)
            cut = dead_size - np.sqrt(((p - dead_at.astype(np.float32)) ** 2).sum(-1)) + wobble
            sub.lay(np.minimum(cut, femur - rind), "compact", 0.8)
            sub.lay(np.minimum(cut - 2.2, femur - rind), "dead" if grain % 2 else "yellow", 0.9)
            sub.lay(np.minimum(np.where(cut < 0, cut + 7, -5), femur - rind - 0.5).astype(np.float32), "water", 0.25)
        field.shares[near] = sub.shares

    return paint


# ---- what is no hip -------------------------------------------------------------------------------------------------


def knee(rng: np.random.Generator) -> Paint:
    s, c, flex = rng.uniform(0.85, 1.15), rng.uniform(-30, 30, 3), rng.uniform(0, 15)
    fat = rng.uniform(6, 20)

    def paint(field: Field) -> None:
        p = ((field.points - c.astype(np.float32)) @ turned(flex, 0, 8).astype(np.float32)) / np.float32(s)
        leg = 58 + fat - np.hypot(p[:, 0], p[:, 1] * 0.95)
        field.lay(leg, "fat")
        field.lay(leg - fat, "muscle")
        field.lay(lump(p, np.array([0, -30, -6]), np.array([24, 16, 22])), "fat")
        condyles = [lump(p, np.array([k * 23, 8.0, 20]), np.array([19, 31, 23 + k])) for k in (-1, 1)]
        femur = np.maximum.reduce([
            *condyles, lump(p, np.array([0, -6, 38.0]), np.array([34, 24, 24])),
            rod(p, np.array([0, -6, 45.0]), np.array([0, -10, 230.0]), 24, 15),
        ])  # fmt: skip
        tibia = np.maximum(
            lump(p, np.array([0, 2, -20.0]), np.array([40, 27, 17]), power=2.8),
            rod(p, np.array([0, -2, -25.0]), np.array([0, -8, -230.0]), 23, 13),
        )
        fibula = rod(p, np.array([38, 20, -36.0]), np.array([36, 18, -230.0]), 9, 7)
        patella = lump(p, np.array([0, -46, 26.0]), np.array([22, 10, 23]))
        field.lay(np.maximum(femur, tibia) + 3, "cartilage")
        field.lay(lump(p, np.array([0, -18, 52.0]), np.array([26, 8, 22])), "water", 0.8)
        for bone in (femur, tibia, patella, fibula):
            field.lay(bone, "compact")
            field.lay(bone - 1.4, "yellow")

    return paint


def both(make: Callable[[np.random.Generator], Paint], seed: int, apart: float) -> Paint:
    """What `make` makes and its mirror image, `apart` mm from middle to middle: two legs in one field of view."""

    class Mirrored:
        def __init__(self, field: Field, out: float) -> None:
            shift = np.array([out * apart / 2, 0, 0], np.float32)
            self.points, self.lay = (field.points - shift) * np.array([out, 1, 1], np.float32), field.lay

    def paint(field: Field) -> None:
        for out in (1.0, -1.0):
            make(np.random.default_rng(seed))(Mirrored(field, out))  # type: ignore[arg-type]

    return paint


def skull(rng: np.random.Generator) -> Paint:
    s, c = rng.uniform(0.9, 1.1), rng.uniform(-20, 20, 3)

    def paint(field: Field) -> None:
        p = (field.points - c.astype(np.float32)) / np.float32(s)
        head = np.maximum(
            lump(p, np.zeros(3), np.array([77, 96, 88.0])), lump(p, np.array([0, -30, -60.0]), np.array([58, 60, 70.0]))
        )
        field.lay(head, "fat")
        field.lay(head - 5, "muscle")
        brain = lump(p, np.array([0, 2, 8.0]), np.array([66, 84, 66.0]))
        field.lay(brain + 9, "compact")
        field.lay(brain + 7, "yellow")
        field.lay(brain + 4, "compact")
        field.lay(brain + 2.5, "water")
        folds = ripple(p, np.random.default_rng(5), (16, 30), 8)
        field.lay(brain, "grey")
        field.lay(np.minimum(brain - 4, 6 * (folds + 0.9)), "white")
        for k in (-1, 1):
            field.lay(lump(p, np.array([k * 12, -8, 12.0]), np.array([8, 34, 12]), turned(0, 0, k * 8)), "water")
            field.lay(lump(p, np.array([k * 32, -84, -20.0]), 13.5), "fat")
            field.lay(lump(p, np.array([k * 32, -86, -20.0]), 12), "water")
            field.lay(lump(p, np.array([k * 24, 44, -42.0]), np.array([26, 24, 19])), "grey")
            field.lay(lump(p, np.array([k * 26, -52, -42.0]), np.array([15, 18, 18])), "air")
            field.lay(rod(p, np.array([k * 44, -62, -86.0]), np.array([k * 52, 0, -50.0]), 12, 8), "yellow")

    return paint


def bottle(rng: np.random.Generator) -> Paint:
    """Test objects: a sphere, a cylinder with rods and balls, two bottles side by side."""
    kind, c, r = int(rng.integers(3)), rng.uniform(-20, 20, 3), rng.uniform(70, 100)
    filling = str(rng.choice(["oil", "water", "grey"]))

    def paint(field: Field) -> None:
        p = field.points - c.astype(np.float32)
        if kind == 0:
            field.lay(lump(p, np.zeros(3), r), filling)
        elif kind == 1:
            field.lay(np.minimum(r - np.hypot(p[:, 0], p[:, 1]), 80 - np.abs(p[:, 2])).astype(np.float32), filling)
            for k in range(8):
                at = np.array([np.cos(k), np.sin(k), 0.2 * (k - 4)]) * r * 0.55
                field.lay(lump(p, at, 6 + 2.5 * k), "air" if k % 2 else "oil")
        else:
            for k in (-1, 1):
                body = np.minimum(35 - np.hypot(p[:, 0] - k * 75, p[:, 2]), 90 - np.abs(p[:, 1]))
                field.lay(body.astype(np.float32), filling)

    return paint


def shoulder(rng: np.random.Generator) -> Paint:
    """The other ball with a socket."""
    s, c, out = rng.uniform(0.9, 1.1), rng.uniform(-30, 30, 3), float(rng.choice([-1, 1]))

    def paint(field: Field) -> None:
        p = (field.points - c.astype(np.float32)) * np.array([out, 1, 1], np.float32) / np.float32(s)
        trunk = lump(p, np.array([-150, 0, -90.0]), np.array([205, 110, 160]), power=2.5)
        arm = rod(p, np.array([5, 0, 0.0]), np.array([20, 0, -260.0]), 62, 48)
        body = np.maximum(trunk, arm)
        field.lay(body, "fat")
        field.lay(body - 14, "muscle")
        field.lay(lump(p, np.array([-150, 0, -120.0]), np.array([85, 80, 130])), "air")
        blade = np.maximum(
            rod(p, np.array([-36, 6, 0.0]), np.array([-75, 40, -60.0]), 15, 5),
            rod(p, np.array([-10, 22, 34.0]), np.array([-80, 45, 10.0]), 9, 6),
        )
        humerus = np.maximum.reduce([
            lump(p, np.zeros(3), np.array([23.5, 23.5, 23])), lump(p, np.array([16, -2, -6.0]), np.array([15, 18, 20])),
            rod(p, np.array([8, 0, -20.0]), np.array([16, 0, -260.0]), 17, 11),
        ])  # fmt: skip
        field.lay(np.minimum(np.sqrt((p**2).sum(-1)) - 27, blade), "compact")
        field.lay(np.minimum(np.sqrt((p**2).sum(-1)) - 28.5, blade - 1.3), "red")
        field.lay(humerus + 2, "cartilage", 0.7)
        field.lay(humerus, "compact")
        field.lay(humerus - 1.3, "yellow")

    return paint


NO_HIPS: dict[str, tuple[Callable[[np.random.Generator], Paint], float]] = {
    "knee": (knee, 180.0), "skull": (skull, 250.0), "bottle": (bottle, 280.0),
}  # fmt: skip
"""name: how to make it, and a usual field of view in mm."""
