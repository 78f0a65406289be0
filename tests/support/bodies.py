"""Bodies of balls, capsules and ellipsoids, scanned into volumes: written apart from tasks/phantom and sharing nothing
with it, so that the localizer is tried on anatomy that nobody tuned it to. Patient LPS, mm.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tasks.domain.volume import Volume

Paint = Callable[[NDArray[np.float32], "Canvas"], None]

# tissue -> (T1, fluid, contrast) brightness
TISSUE = {
    "air": (0.02, 0.02, 0.02),
    "fat": (0.95, 0.16, 0.22),
    "muscle": (0.33, 0.26, 0.36),
    "marrow": (0.80, 0.14, 0.20),
    "red": (0.58, 0.24, 0.30),
    "cortex": (0.06, 0.04, 0.05),
    "cartilage": (0.42, 0.45, 0.40),
    "fluid": (0.22, 1.00, 0.25),
    "vessel": (0.25, 0.60, 0.95),
    "necrosis": (0.30, 0.30, 0.15),
    "band": (0.12, 0.12, 0.12),
    "oedema": (0.45, 0.60, 0.50),
    "brain": (0.55, 0.50, 0.40),
    "void": (0.01, 0.01, 0.01),
}
ROLES = ("t1", "fluid", "contrast")


@dataclass
class Canvas:
    """Brightness of the three contrasts at points, painted from the outside in, soft at the edges."""

    points: NDArray[np.float32]
    soft: float
    values: NDArray[np.float32] = field(init=False)

    def __post_init__(self) -> None:
        self.values = np.empty((*self.points.shape[:-1], 3), np.float32)
        self.values[:] = TISSUE["air"]

    def paint(self, distance: NDArray, tissue: str, strength: float = 1.0) -> None:
        """`distance` < 0 is inside."""
        near = distance < 2 * self.soft
        cover = np.clip(0.5 - distance[near] / (2 * self.soft), 0, 1)[:, None] * np.float32(strength)
        self.values[near] = self.values[near] * (1 - cover) + np.array(TISSUE[tissue], np.float32) * cover


def ball(p: NDArray, centre: NDArray, radius: float) -> NDArray:
    return np.linalg.norm(p - np.asarray(centre, np.float32), axis=-1) - np.float32(radius)


def capsule(p: NDArray, a: NDArray, b: NDArray, radius: float) -> NDArray:
    a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
    along = np.clip(((p - a) @ (b - a)) / np.float32(((b - a) ** 2).sum()), 0, 1)[..., None]
    return np.linalg.norm(p - a - along * (b - a), axis=-1) - np.float32(radius)


def ellipsoid(p: NDArray, centre: NDArray, radii: NDArray) -> NDArray:
    """About the distance: right at the surface, scaled elsewhere."""
    q = (p - np.asarray(centre, np.float32)) / np.asarray(radii, np.float32)
    return (np.linalg.norm(q, axis=-1) - 1) * np.float32(min(radii))


def tube(p: NDArray, x: float, y: float, rx: float, ry: float) -> NDArray:
    """An endless elliptic cylinder along z."""
    q = np.hypot((p[..., 0] - np.float32(x)) / rx, (p[..., 1] - np.float32(y)) / ry)
    return (q - 1) * np.float32(min(rx, ry))


@dataclass
class Hip:
    centre: NDArray[np.float64]
    radius: float
    lateral: float  # +1 left, -1 right
    scale: float
    lesion_deg: float = 0.0  # half angle of the necrotic cap; 0 is none
    lesion_tilt: tuple[float, float] = (10.0, 10.0)
    effusion: float = 0.0
    implant: bool = False
    neck_deg: float = 40.0

    def paint(self, canvas: Canvas) -> None:
        c, r, s = self.centre, self.radius, self.scale
        out = np.array([self.lateral, 0.0, 0.0])
        near = (np.abs(canvas.points[..., 0] - c[0]) < 95 * s) & (np.abs(canvas.points[..., 2] - c[2]) < 190 * s)
        sub = Canvas(canvas.points[near], canvas.soft)
        sub.values = canvas.values[near]
        p = sub.points

        def at(lateral: float, posterior: float, superior: float) -> NDArray:
            return c + s * (out * lateral + np.array([0.0, posterior, superior]))

        pelvis = np.minimum.reduce([
            capsule(p, at(-12, 4, 30), at(8, 14, 105), 19 * s),
            capsule(p, at(-18, -12, -6), at(-78, -40, -42), 10 * s),
            capsule(p, at(-20, 18, -22), at(-24, 30, -82), 13 * s),
            ball(p, at(-10, 2, 12), r + 13 * s),
        ])  # fmt: skip
        roof = ((p - c) @ np.array([-0.55 * self.lateral, 0.1, 0.83])).astype(np.float32)
        socket = np.maximum(pelvis, (r + 3.5) - np.linalg.norm(p - c, axis=-1).astype(np.float32))
        socket = np.maximum(socket, -roof - 4)  # open below and laterally
        sub.paint(socket - 1.5, "cortex")
        sub.paint(socket + 0.7, "red")
        joint = ball(p, c, r + 3.3)
        sub.paint(np.maximum(joint, -roof - 6), "cartilage")
        if self.effusion:
            sub.paint(np.maximum(ball(p, c, r + self.effusion), roof - 8), "fluid")
        tilt = np.deg2rad(self.neck_deg)
        neck = at(58 * np.cos(tilt), 8, -58 * np.sin(tilt))
        femur = np.minimum.reduce([
            ball(p, c, r),
            capsule(p, c, neck, 0.6 * r),
            ball(p, at(56, 12, -22), 17 * s),
            capsule(p, at(48, 10, -48), at(36, 6, -190), 15 * s),
        ])  # fmt: skip
        sub.paint(femur, "cortex")
        sub.paint(femur + 1.6, "marrow")
        sub.paint(np.maximum(femur + 1.6, p[..., 2] - np.float32(c[2] - 30 * s)), "red", 0.6)
        if self.lesion_deg:
            side, front = np.deg2rad(self.lesion_tilt)
            pole = np.array([self.lateral * np.sin(side), -np.sin(front), np.cos(side) * np.cos(front)])
            cap = ball(p, c + r * pole / np.linalg.norm(pole), 2 * r * np.sin(np.deg2rad(self.lesion_deg) / 2))
            dead = np.maximum(cap, ball(p, c, r - 1.0))
            sub.paint(np.maximum(cap - 9, ball(p, c, r - 1.5)), "oedema", 0.5)
            sub.paint(dead, "band")
            sub.paint(dead + 2.5, "necrosis")
        if self.implant:
            sub.paint(ball(p, c, r + 14 * s), "void")
            sub.paint(capsule(p, c, neck, 0.95 * r), "void")
            sub.paint(np.abs(ball(p, c, r + 17 * s)) - 3, "fluid")
        canvas.values[near] = sub.values


@dataclass
class Pelvis:
    hips: list[Hip]
    half: tuple[float, float]
    fat: float
    middle: NDArray[np.float64]
    texture: int

    def paint(self, canvas: Canvas) -> None:
        p = canvas.points
        (a, b), m = self.half, self.middle
        trunk = tube(p, m[0], m[1], a, b)
        split = m[2] - 95
        thigh = np.minimum(
            tube(p, m[0] + 0.5 * a, m[1], 0.46 * a, 0.8 * b), tube(p, m[0] - 0.5 * a, m[1], 0.46 * a, 0.8 * b)
        )
        body = np.where(p[..., 2] > np.float32(split), trunk, thigh).astype(np.float32)
        canvas.paint(body, "fat")
        wave = np.zeros(p.shape[:-1], np.float32)
        rng = np.random.default_rng(self.texture)
        for _ in range(4):
            k = rng.normal(size=3) / rng.uniform(12, 30)
            wave += np.sin(p @ k.astype(np.float32) * 2 * np.pi + rng.uniform(0, 6)).astype(np.float32)
        canvas.paint(body + self.fat, "muscle")
        canvas.paint(np.maximum(body + self.fat, 1.9 - wave), "fat", 0.8)
        canvas.paint(ellipsoid(p, m + np.array([0, -15, 25]), np.array([42.0, 32, 28])), "fluid", 0.9)
        canvas.paint(ball(p, m + np.array([4, 40, 30]), 20), "muscle")
        canvas.paint(ball(p, m + np.array([4, 40, 30]), 12), "air")
        for lateral in (-1, 1):
            x = m[0] + lateral * 0.45 * a
            canvas.paint(tube(p, x, m[1] - 0.5 * b, 6, 6), "vessel")
        for hip in self.hips:
            hip.paint(canvas)


@dataclass
class Knee:
    centre: NDArray[np.float64]
    scale: float

    def paint(self, canvas: Canvas) -> None:
        p, c, s = canvas.points, self.centre, self.scale
        canvas.paint(tube(p, c[0], c[1], 62 * s, 65 * s), "fat")
        canvas.paint(tube(p, c[0], c[1], 52 * s, 55 * s), "muscle")
        femur = np.minimum.reduce([
            ellipsoid(p, c + s * np.array([-22, 6, 18]), s * np.array([17.0, 30, 21])),
            ellipsoid(p, c + s * np.array([22, 4, 17]), s * np.array([18.0, 32, 22])),
            capsule(p, c + s * np.array([0, -6, 40]), c + s * np.array([0, -6, 220]), 17 * s),
            ball(p, c + s * np.array([0, -8, 34]), 25 * s),
        ])  # fmt: skip
        tibia = np.minimum(
            ellipsoid(p, c + s * np.array([0, 2, -24]), s * np.array([39.0, 26, 19])),
            capsule(p, c + s * np.array([0, 0, -40]), c + s * np.array([0, -2, -220]), 15 * s),
        )
        patella = ellipsoid(p, c + s * np.array([0, -44, 24]), s * np.array([20.0, 9, 21]))
        canvas.paint(np.minimum(femur, tibia) - 2.5, "cartilage", 0.7)
        for bone in (femur, tibia, patella):
            canvas.paint(bone, "cortex")
            canvas.paint(bone + 1.6, "marrow")


@dataclass
class Head:
    centre: NDArray[np.float64]
    scale: float

    def paint(self, canvas: Canvas) -> None:
        p, c, s = canvas.points, self.centre, self.scale
        skull = ellipsoid(p, c, s * np.array([78.0, 98, 85]))
        canvas.paint(skull, "fat")
        canvas.paint(skull + 6, "cortex")
        canvas.paint(skull + 8, "marrow")
        canvas.paint(skull + 11, "cortex")
        canvas.paint(skull + 13, "fluid")
        canvas.paint(skull + 16, "brain")
        for x in (-1, 1):
            canvas.paint(ellipsoid(p, c + s * np.array([14 * x, 5, 8]), s * np.array([8.0, 32, 11])), "fluid")
            canvas.paint(ball(p, c + s * np.array([32 * x, -86, -22]), 16 * s), "fat")
            canvas.paint(ball(p, c + s * np.array([32 * x, -88, -22]), 12 * s), "fluid")
            canvas.paint(ellipsoid(p, c + s * np.array([26 * x, 50, -48]), s * np.array([26.0, 22, 18])), "brain", 0.5)


@dataclass
class Abdomen:
    middle: NDArray[np.float64]
    half: tuple[float, float]

    def paint(self, canvas: Canvas) -> None:
        p, m = canvas.points, self.middle
        body = tube(p, m[0], m[1], *self.half)
        canvas.paint(body, "fat")
        canvas.paint(body + 25, "muscle")
        canvas.paint(body + 40, "fat", 0.8)
        for x in (-1, 1):
            canvas.paint(ellipsoid(p, m + np.array([62 * x, 40, 5]), np.array([27.0, 24, 52])), "muscle")
            canvas.paint(ellipsoid(p, m + np.array([58 * x, 40, 5]), np.array([11.0, 10, 25])), "fat")
        for z in range(-160, 161, 34):
            spine = ellipsoid(p, m + np.array([0, 55, z]), np.array([24.0, 18, 14]))
            canvas.paint(spine, "cortex")
            canvas.paint(spine + 1.5, "red")
        canvas.paint(ellipsoid(p, m + np.array([-70, -30, 60]), np.array([70.0, 55, 60])), "brain", 0.8)
        canvas.paint(ball(p, m + np.array([-40, -60, 10]), 19), "fluid")


@dataclass(frozen=True)
class Scan:
    """How a stack is laid: `rows` and `columns` are directions of increasing row and column index."""

    plane: str  # coronal | axial | sagittal
    fov: float
    matrix: int
    gap: float  # mm between slice centres
    thickness: float
    slices: int
    centre: NDArray[np.float64]
    tilt_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def affine(self) -> NDArray[np.float64]:
        across, down, through = {
            "coronal": ([1, 0, 0], [0, 0, -1], [0, 1, 0]),
            "axial": ([1, 0, 0], [0, 1, 0], [0, 0, 1]),
            "sagittal": ([0, 1, 0], [0, 0, -1], [-1, 0, 0]),
        }[self.plane]
        turn = rotation(self.tilt_deg)
        pixel = self.fov / self.matrix
        affine = np.eye(4)
        steps = np.array([through, down, across], float).T * [self.gap, pixel, pixel]
        affine[:3, :3] = turn @ steps
        middle = (np.array([self.slices, self.matrix, self.matrix]) - 1) / 2
        affine[:3, 3] = self.centre - affine[:3, :3] @ middle
        return affine


def rotation(degrees: tuple[float, float, float]) -> NDArray[np.float64]:
    x, y, z = np.deg2rad(degrees)
    rx = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    ry = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    rz = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    return rx @ ry @ rz


def scan(body: Pelvis | Knee | Head | Abdomen, how: Scan, rng: np.random.Generator, roles: tuple[str, ...], noise=0.03):
    """{role: Volume} of one geometry, uint16, with partial volume through the slice, coil bias and Rician noise."""
    affine = how.affine()
    index = np.stack(np.meshgrid(*(np.arange(n) for n in (how.slices, how.matrix, how.matrix)), indexing="ij"), -1)
    total = np.zeros((*index.shape[:-1], 3), np.float32)
    share = how.thickness / how.gap
    offsets = (-0.3, 0.0, 0.3) if how.thickness > 2.5 else (0.0,)
    for offset in offsets:
        points = (index + [offset * share, 0, 0]) @ affine[:3, :3].T + affine[:3, 3]
        canvas = Canvas(points.astype(np.float32), soft=0.5 * how.fov / how.matrix)
        body.paint(canvas)
        total += canvas.values / len(offsets)
    unit = index / (np.array(index.shape[:-1]) - 1) - 0.5
    volumes = {}
    for role in roles:
        slope = rng.normal(0, 0.35, 3)
        bias = np.exp(unit @ slope + rng.normal(0, 0.5) * (unit[..., 1:] ** 2).sum(-1))
        clean = total[..., ROLES.index(role)] * bias
        noisy = np.hypot(clean + rng.normal(0, noise, clean.shape), rng.normal(0, noise, clean.shape))
        volumes[role] = Volume((noisy * rng.uniform(400, 2500)).astype(np.uint16), affine)
    return volumes


def pelvis(rng: np.random.Generator, *, lesions: bool = True, implant: str = "") -> tuple[Pelvis, dict[str, Hip]]:
    """A random person, children's to large men's size, standing a little crooked."""
    s = rng.uniform(0.82, 1.2)
    middle = rng.uniform(-25, 25, 3)
    half_distance = s * rng.uniform(80, 98)
    roll = np.deg2rad(rng.normal(0, 2))
    hips = {}
    for side, lateral in (("L", 1.0), ("R", -1.0)):
        offset = np.array([
            lateral * half_distance * np.cos(roll),
            rng.normal(0, 3),
            lateral * half_distance * np.sin(roll) + rng.normal(0, 2),
        ])  # fmt: skip
        hips[side] = Hip(
            centre=middle + offset,
            radius=float(np.clip(23.5 * s * rng.uniform(0.9, 1.1), 18.5, 31)),
            lateral=lateral,
            scale=s,
            lesion_deg=float(rng.uniform(20, 60)) if lesions and rng.random() < 0.6 else 0.0,
            lesion_tilt=(float(rng.normal(5, 15)), float(rng.normal(15, 10))),
            effusion=float(rng.choice([0.0, rng.uniform(3, 8)])),
            implant=side == implant,
            neck_deg=float(rng.uniform(30, 50)),
        )
    half = (half_distance + s * rng.uniform(75, 110), s * rng.uniform(95, 135))
    person = Pelvis(list(hips.values()), half, rng.uniform(12, 45), middle, int(rng.integers(1 << 30)))
    return person, hips
