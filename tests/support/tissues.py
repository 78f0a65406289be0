"""Bodies of tissue and scanners of physics, a second time: nothing here is taken from tasks/phantom or from `bodies`.

A body is a map from places (patient LPS, mm) to tissue fractions; a scanner turns tissue into signal by the spin echo
and gradient echo equations of its own TR, TE and TI, sees it through coils that stand around the patient, and samples
k-space, so that motion and ghosts come about as they do in a scanner. Numbers are from textbooks of MR and anatomy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tasks.domain.volume import Volume

Points = NDArray[np.float32]

# name: proton density, T1 and T2 in ms at 1.5 T, fat fraction
TISSUES = {
    "air": (0.0, 1.0, 1.0, 0.0),
    "fat": (0.95, 290.0, 85.0, 1.0),
    "muscle": (0.80, 1010.0, 42.0, 0.02),
    "yellow": (0.88, 300.0, 80.0, 0.93),
    "red": (0.85, 520.0, 60.0, 0.55),
    "compact": (0.05, 300.0, 1.5, 0.0),
    "cartilage": (0.75, 1050.0, 38.0, 0.0),
    "water": (1.0, 3300.0, 900.0, 0.0),
    "blood": (0.55, 1450.0, 120.0, 0.0),
    "dead": (0.6, 900.0, 40.0, 0.25),
    "grey": (0.85, 980.0, 98.0, 0.0),
    "white": (0.72, 640.0, 78.0, 0.0),
    "metal": (0.0, 1.0, 1.0, 0.0),
    "oil": (1.0, 310.0, 90.0, 1.0),
}
NAMES = list(TISSUES)
ENHANCED = {"blood": 0.07, "muscle": 0.75, "red": 0.7, "cartilage": 0.9}
"""T1 after contrast, as a share of T1 before it."""


class Field:
    """Tissue at points: each layer covers what lies under it, with an edge `soft` mm wide."""

    def __init__(self, points: Points, soft: float) -> None:
        self.points, self.soft = points, np.float32(soft)
        self.shares = np.zeros((len(points), len(NAMES)), np.float32)
        self.shares[:, 0] = 1.0

    def lay(self, depth: NDArray[np.float32], tissue: str, amount: float = 1.0) -> None:
        """`depth` mm below the surface of the layer; negative outside."""
        touched = np.flatnonzero(depth > -self.soft)
        cover = np.clip(0.5 + depth[touched] / (2 * self.soft), 0, 1) * np.float32(amount)
        self.shares[touched] *= (1 - cover)[:, None]
        self.shares[touched, NAMES.index(tissue)] += cover


def lump(p: Points, middle: NDArray, half: NDArray | float, turn: NDArray | None = None, power: float = 2.0) -> NDArray:
    """Depth in a superellipsoid with half axes `half`, turned by `turn`."""
    half = np.broadcast_to(np.asarray(half, np.float32), 3)
    q = p - np.asarray(middle, np.float32)
    if turn is not None:
        q = q @ np.asarray(turn, np.float32)
    return ((1 - (np.abs(q / half) ** power).sum(-1) ** (1 / power)) * half.min()).astype(np.float32)


def rod(p: Points, a: NDArray, b: NDArray, thick_a: float, thick_b: float) -> NDArray:
    """Depth in a cone with round ends."""
    a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
    axis = b - a
    t = np.clip((p - a) @ axis / (axis @ axis), 0, 1)
    away = np.sqrt((((p - a) - t[:, None] * axis) ** 2).sum(-1))
    return (thick_a + (thick_b - thick_a) * t - away).astype(np.float32)


def ripple(p: Points, rng: np.random.Generator, length: tuple[float, float], count: int = 5) -> NDArray:
    """A smooth random function of place, about -1 to 1."""
    total = np.zeros(len(p), np.float32)
    for _ in range(count):
        wave = rng.normal(size=3)
        wave *= 2 * np.pi / np.linalg.norm(wave) / rng.uniform(*length)
        total += np.cos(p @ wave.astype(np.float32) + np.float32(rng.uniform(0, 2 * np.pi)))
    return total / np.float32(np.sqrt(count))


def turned(x: float, y: float, z: float) -> NDArray[np.float64]:
    """Rotation about the axes, degrees."""
    out = np.eye(3)
    for axis, degrees in enumerate((x, y, z)):
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        one = np.eye(3)
        i, j = [k for k in range(3) if k != axis]
        one[i, i], one[j, j], one[i, j], one[j, i] = c, c, -s, s
        out = one @ out
    return out


@dataclass(frozen=True)
class Sequence:
    """What a scanner plays: times in ms. kind: se | ir | gr. fat: share of fat signal that is left."""

    kind: str
    tr: float
    te: float
    ti: float = 0.0
    flip: float = 90.0
    fat: float = 1.0
    agent: bool = False

    def signals(self) -> NDArray[np.float32]:
        answer = []
        for name, (density, t1, t2, fatty) in TISSUES.items():
            t1 = t1 * ENHANCED.get(name, 1.0) if self.agent else t1
            seen = density * (1 - fatty + fatty * self.fat)
            if self.kind == "gr":
                e, a = np.exp(-self.tr / t1), np.radians(self.flip)
                value = seen * np.sin(a) * (1 - e) / (1 - np.cos(a) * e) * np.exp(-self.te / (0.6 * t2))
            else:
                recovered = 1 - np.exp(-self.tr / t1)
                if self.kind == "ir":
                    recovered = abs(1 - 2 * np.exp(-self.ti / t1) + np.exp(-self.tr / t1))
                value = seen * recovered * np.exp(-self.te / t2)
            answer.append(value)
        return np.array(answer, np.float32)


T1 = Sequence("se", 520, 14)
STIR = Sequence("ir", 3900, 34, ti=150)
T2_FS = Sequence("se", 3600, 62, fat=0.05)
PD_FS = Sequence("se", 2600, 28, fat=0.06)
T1_3D = Sequence("gr", 11, 4.6, flip=22)
ENHANCED_3D = Sequence("gr", 5.9, 2.1, flip=14, fat=0.1, agent=True)
PLAIN_3D = replace(ENHANCED_3D, agent=False)


@dataclass(frozen=True)
class Slab:
    """A stack as an operator lays it: `plane`, mm, and degrees off the plane about the three axes."""

    plane: str
    fov: tuple[float, float]
    matrix: tuple[int, int]
    count: int
    step: float
    thick: float
    middle: NDArray[np.float64]
    off: tuple[float, float, float] = (0.0, 0.0, 0.0)
    shear: float = 0.0
    """mm that each slice is moved along its rows against the one before."""

    def affine(self) -> NDArray[np.float64]:
        right, down, ahead = {
            "coronal": ((1, 0, 0), (0, 0, -1), (0, -1, 0)),
            "axial": ((1, 0, 0), (0, 1, 0), (0, 0, -1)),
            "sagittal": ((0, 1, 0), (0, 0, -1), (1, 0, 0)),
        }[self.plane]
        turn = turned(*self.off)
        pixel = np.array(self.fov) / self.matrix
        affine = np.eye(4)
        affine[:3, 1], affine[:3, 2] = turn @ down * pixel[0], turn @ right * pixel[1]
        affine[:3, 0] = turn @ ahead * self.step + turn @ right * self.shear
        affine[:3, 3] = self.middle - affine[:3, :3] @ ((np.array([self.count, *self.matrix]) - 1) / 2)
        return affine


@dataclass(frozen=True)
class Faults:
    """noise: SD over the brightness of muscle. ghost: share of the signal that breathing moves along the rows or
    columns. jump: mm that the patient moves while half of the slices are taken."""

    noise: float = 0.05
    coil: float = 0.6
    ghost: float = 0.0
    ghost_axis: int = 0
    jump: tuple[float, float, float] = (0.0, 0.0, 0.0)
    gain: float = 900.0


def scanned(
    paint: Callable[[Field], None], slab: Slab, sequences: list[Sequence], rng: np.random.Generator, how: Faults
) -> list[Volume]:
    """One volume per sequence: signal through the slice, coils, ghosts in k-space, Rician noise."""
    affine = slab.affine()
    shape = (slab.count, *slab.matrix)
    index = np.stack(np.meshgrid(*(np.arange(n, dtype=np.float64) for n in shape), indexing="ij"), -1).reshape(-1, 3)
    still = index @ affine[:3, :3].T + affine[:3, 3]
    odd = (index[:, 0].astype(int) % 2 == 1)[:, None]
    still = still + odd * np.array(how.jump)
    normal = affine[:3, 0] / np.linalg.norm(affine[:3, 0])
    through = [0.0] if slab.thick < 2 else [-0.33 * slab.thick, 0.0, 0.33 * slab.thick]
    shares = 0
    for away in through:
        field = Field((still + away * normal).astype(np.float32), 0.6 * slab.fov[0] / slab.matrix[0])
        paint(field)
        shares = shares + field.shares / len(through)
    volumes = []
    middle = still.mean(axis=0)
    for sequence in sequences:
        clean = shares @ sequence.signals()
        sensitivity = np.zeros(len(still))
        for k in range(6):
            angle = 2 * np.pi * k / 6 + rng.uniform(0, 0.6)
            coil = middle + [260 * np.cos(angle), 170 * np.sin(angle), rng.uniform(-80, 80)]
            sensitivity += rng.uniform(0.7, 1.3) / (1 + (np.linalg.norm(still - coil, axis=1) / 210) ** 2)
        image = (clean * (sensitivity / sensitivity.mean()) ** how.coil).reshape(shape)
        if how.ghost:
            image = ghosted(image, how.ghost, 1 + how.ghost_axis, rng)
        unit = float(T1.signals()[NAMES.index("muscle")] if sequence.kind != "gr" else np.percentile(clean, 80))
        noise = rng.normal(0, how.noise * unit, (2, *shape))
        image = np.hypot(image + noise[0], noise[1])
        volumes.append(Volume(np.clip(image / max(unit, 1e-6) * how.gain, 0, 30000).astype(np.uint16), affine))
    return volumes


def ghosted(image: NDArray, share: float, axis: int, rng: np.random.Generator) -> NDArray:
    """Lines of k-space swing in phase with a period of a few lines: copies of the body along `axis`."""
    n = image.shape[axis]
    kspace = np.fft.fft(image, axis=axis)
    swing = share * np.sin(2 * np.pi * np.arange(n) * rng.uniform(0.23, 0.3) + rng.uniform(0, 6))
    form = [1, 1, 1]
    form[axis] = n
    return np.abs(np.fft.ifft(kspace * (1 + swing).reshape(form) * np.exp(1j * swing).reshape(form), axis=axis))
