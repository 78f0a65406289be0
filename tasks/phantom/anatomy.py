"""Pelvis and thighs around two hips, as shapes painted into the signal of each sequence.

Shapes are in mm. Those of a hip are in hip space of a standard adult (x lateral, y posterior, z superior, origin at
the head's centre); those of the midline are in the same axes about the midpoint between the two heads, x to the
patient's left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Box = tuple[slice, slice, slice]

CHANNELS = {"t1": 0, "stir": 1, "ce": 2}
SIGNAL: dict[str, tuple[float, float, float]] = {
    # tissue: T1, STIR, fat-saturated contrast-enhanced 3D
    "air": (0.0, 0.0, 0.0),
    "skin": (0.45, 0.20, 0.35),
    "fat": (0.95, 0.07, 0.13),
    "fascia": (0.62, 0.10, 0.20),
    "muscle": (0.28, 0.24, 0.40),
    "tendon": (0.10, 0.06, 0.12),
    "cortex": (0.06, 0.03, 0.06),
    "marrow": (0.80, 0.10, 0.16),
    "red_marrow": (0.52, 0.20, 0.30),
    "cartilage": (0.40, 0.40, 0.34),
    "fluid": (0.22, 0.95, 0.20),
    "synovium": (0.34, 0.42, 0.55),
    "bladder": (0.17, 1.05, 0.22),
    "organ": (0.30, 0.45, 0.50),
    "bowel": (0.36, 0.35, 0.45),
    "gas": (0.04, 0.03, 0.04),
    "blood": (0.08, 0.30, 1.00),
}


class Capsule(NamedTuple):
    """A tapered capsule from a to b (a == b: an ellipsoid). `flat` squeezes it along y; tissue paints it."""

    tissue: str
    a: tuple[float, float, float]
    b: tuple[float, float, float]
    radius_a: float
    radius_b: float
    flat: float = 1.0  # extent along y relative to that along x and z


class Ellipsoid(NamedTuple):
    tissue: str
    centre: tuple[float, float, float]
    radii: tuple[float, float, float]


Shape = Capsule | Ellipsoid

NECK_END = (41.0, 8.0, -31.0)
MUSCLES: tuple[Shape, ...] = (
    Capsule("muscle", (28, 8, 112), (57, 8, 14), 19, 11, 2.2),  # gluteus medius
    Capsule("muscle", (18, -6, 88), (52, -4, 16), 12, 7, 2.0),  # gluteus minimus
    Ellipsoid("muscle", (34, 62, 20), (66, 34, 92)),  # gluteus maximus
    Capsule("muscle", (60, -48, 70), (66, -42, -40), 13, 9, 1.3),  # tensor fasciae latae
    Capsule("muscle", (64, 2, -48), (50, -6, -230), 20, 22, 1.5),  # vastus lateralis
    Capsule("muscle", (30, -36, -70), (30, -32, -230), 17, 24, 1.2),  # rectus and vastus intermedius
    Capsule("muscle", (-38, -2, -48), (14, 10, -215), 17, 31, 1.3),  # adductor magnus
    Capsule("muscle", (-44, -22, -46), (4, -16, -190), 14, 22, 1.2),  # adductor longus and brevis
    Capsule("muscle", (-56, 2, -52), (-28, 8, -230), 9, 12, 1.6),  # gracilis
    Capsule("muscle", (-36, 2, -27), (30, 20, -22), 9, 6, 1.5),  # obturator externus
    Capsule("muscle", (-45, 18, 26), (-44, 22, -34), 8, 9, 2.4),  # obturator internus
    Capsule("muscle", (-20, -22, 92), (-6, -30, 10), 15, 14, 1.2),  # iliopsoas
    Capsule("muscle", (-6, -30, 10), (20, -4, -58), 14, 8, 1.1),
    Capsule("muscle", (-48, -30, -8), (8, -12, -62), 12, 9, 1.0),  # pectineus
    Capsule("muscle", (-2, 14, 110), (-14, 12, 44), 9, 12, 2.2),  # iliacus, inside the ilium
    Capsule("muscle", (-20, 40, 10), (44, 30, -8), 7, 6, 1.2),  # short rotators
)
VESSELS: tuple[Shape, ...] = (
    Capsule("blood", (-36, -24, 110), (-14, -42, 0), 5, 4.5),  # external iliac, then femoral
    Capsule("blood", (-14, -42, 0), (-8, -30, -110), 4.5, 4.0),
    Capsule("blood", (-44, -18, 110), (-24, -40, 0), 6, 5.5),
    Capsule("blood", (-24, -40, 0), (-16, -28, -110), 5.5, 5.0),
    Capsule("blood", (4, -26, -34), (50, -16, -40), 1.8, 1.3),  # circumflex arteries
    Capsule("blood", (0, 12, -44), (46, 24, -12), 1.7, 1.2),
)
PELVIS: tuple[Shape, ...] = (
    Ellipsoid("marrow", (-9, 4, 38), (26, 26, 17)),  # roof of the acetabulum
    Capsule("marrow", (-11, 6, 44), (-3, 8, 84), 13, 7.5, 2.2),  # ilium
    Capsule("marrow", (-3, 8, 84), (20, 14, 140), 7.5, 9.5, 2.6),
    Capsule("marrow", (-31, 8, 26), (-33, 12, -24), 7, 8, 2.6),  # medial wall
    Capsule("marrow", (-33, 22, -20), (-36, 28, -60), 12, 13, 1.2),  # ischium
    Capsule("marrow", (-37, 18, -60), (-68, -10, -56), 10, 6, 1.0),  # inferior ramus
    Capsule("marrow", (-27, -14, -4), (-80, -32, -24), 9, 11, 1.0),  # superior ramus
)
FEMUR: tuple[tuple[Shape, float], ...] = (  # with the thickness of its cortex
    (Capsule("marrow", (8, 1.5, -6), NECK_END, 15.5, 16.0), 2.0),
    (Capsule("marrow", (49, 12, -16), (52, 14, -36), 13.5, 15, 1.2), 1.4),  # greater trochanter
    (Capsule("marrow", (46, 10, -36), (41, 8, -82), 18.5, 14.5), 3.0),
    (Capsule("marrow", (27, 19, -60), (34, 14, -66), 7, 9), 1.6),  # lesser trochanter
    (Capsule("marrow", (41, 8, -80), (32, 4, -245), 14.5, 13.0), 5.0),
)
CAVITY: tuple[Shape, ...] = (
    Ellipsoid("fat", (0, 0, 62), (47, 80, 92)),  # the pelvis, about its organs
    Ellipsoid("fat", (0, 2, -66), (22, 60, 52)),  # the perineum
)
MIDLINE: tuple[Shape, ...] = (
    Ellipsoid("bladder", (0, -14, 22), (38, 34, 23)),
    Ellipsoid("organ", (2, 14, -10), (22, 20, 17)),
    Capsule("bowel", (0, 44, 70), (0, 40, -20), 16, 13),
    Ellipsoid("bowel", (-27, -6, 74), (19, 24, 17)),
    Ellipsoid("bowel", (24, 4, 80), (22, 26, 19)),
    Ellipsoid("bowel", (-4, -18, 108), (28, 22, 17)),
    Ellipsoid("bowel", (-36, 10, 112), (15, 22, 21)),
    Ellipsoid("bowel", (38, 8, 116), (15, 20, 19)),
    Ellipsoid("gas", (20, -6, 87), (9, 12, 5)),
)


@dataclass(frozen=True)
class Warp:
    """Bends straight shapes a little, each body in its own way. amplitude: mm; (coordinate, wave) -> two sines."""

    amplitude: float
    phases: NDArray[np.float64]  # (3, 2, 2)
    lengths: NDArray[np.float64]  # (3, 2, 2), mm

    @classmethod
    def drawn(cls, rng: np.random.Generator, amplitude: float) -> Warp:
        return cls(amplitude, rng.uniform(0, 2 * np.pi, (3, 2, 2)), rng.uniform(45, 130, (3, 2, 2)))

    def wave(self, coordinate: int, number: int, at: NDArray[np.float32]) -> NDArray[np.float32]:
        """Displacement in mm, zero at the origin."""
        total = np.zeros_like(at)
        for phase, length in zip(self.phases[coordinate, number], self.lengths[coordinate, number], strict=True):
            total += np.sin(at * np.float32(2 * np.pi / length) + np.float32(phase)) - np.float32(np.sin(phase))
        return total * np.float32(self.amplitude)


@dataclass
class Canvas:
    """Signal of one grid for some channels; `affine` maps (slice, row, column) to LPS mm."""

    affine: Vector
    channels: tuple[int, ...]
    signal: NDArray[np.float32]  # (channels, D, H, W)

    @classmethod
    def blank(cls, shape: tuple[int, int, int], affine: Vector, channels: tuple[int, ...]) -> Canvas:
        return cls(affine, channels, np.zeros((len(channels), *shape), np.float32))

    def halved(self) -> Canvas:
        """A blank canvas of every other row and column, and one beyond the end, for `refine`."""
        slices, rows, columns = self.signal.shape[1:]
        return Canvas.blank(
            (slices, rows // 2 + 1, columns // 2 + 1), self.affine @ np.diag([1.0, 2.0, 2.0, 1.0]), self.channels
        )

    def box(self, centre: Vector, reach: float | Vector) -> Box | None:
        """Voxels within `reach` mm of `centre` (LPS), or None if there are none."""
        steps = np.linalg.norm(self.affine[:3, :3], axis=0)
        middle = np.linalg.solve(self.affine[:3, :3], centre - self.affine[:3, 3])
        shape = np.array(self.signal.shape[1:])
        low = np.clip(np.floor(middle - reach / steps), 0, shape).astype(int)
        high = np.clip(np.ceil(middle + reach / steps) + 1, 0, shape).astype(int)
        return None if (high <= low).any() else tuple(slice(a, b) for a, b in zip(low, high, strict=True))  # type: ignore[return-value]

    def coordinates(
        self, box: Box, local: Vector, warp: Warp | None = None, coarse: bool = False
    ) -> list[NDArray[np.float32]]:
        """x, y, z of the box's voxels in the space that 4x4 `local` maps LPS to, bent by `warp`.

        `coarse`: every other row and column only, and one beyond the end, for `refine`.
        """
        matrix = local @ self.affine
        steps = (1, 2, 2) if coarse else (1, 1, 1)
        along = [
            np.arange(part.start, part.stop + step - 1 if step > 1 else part.stop, step, dtype=np.float32)
            for part, step in zip(box, steps, strict=True)
        ]
        result = []
        for number, row in enumerate(matrix[:3]):
            d, h, w = (np.float32(step) * index for step, index in zip(row[:3], along, strict=True))
            d = d + np.float32(row[3])
            if warp is not None and number != 1:  # x bends along the slice's rows, z along its columns; both from y
                turns = (warp.wave(number, 0, along[0] * np.float32(matrix[1, 0])), None, None)
                d = d + turns[0]
                if number == 0:
                    h = h + warp.wave(0, 1, along[1] * np.float32(matrix[2, 1]) + np.float32(matrix[2, 3]))
                else:
                    w = w + warp.wave(2, 1, along[2] * np.float32(matrix[0, 2]) + np.float32(matrix[0, 3]))
            result.append(d[:, None, None] + (h[:, None] + w[None])[None])
        return result

    def paint(self, box: Box, amount: NDArray[np.float32], tissue: str | tuple[float, ...]) -> None:
        """Blend `tissue` in by `amount` (0 to 1)."""
        values = SIGNAL[tissue] if isinstance(tissue, str) else tissue
        for row, channel in enumerate(self.channels):
            part = self.signal[row][box]
            part += amount * (np.float32(values[channel]) - part)

    @property
    def softness(self) -> float:
        """Width in mm over which an edge is shared between two tissues: about one pixel."""
        return float(np.linalg.norm(self.affine[:3, 2])) * 1.15


def refine(coarse: NDArray[np.float32], box: Box) -> NDArray[np.float32]:
    """Values at every other row and column -> at every one of `box`, linearly between."""
    rows, columns = (part.stop - part.start for part in box[1:])
    tall = np.empty((coarse.shape[0], 2 * coarse.shape[1] - 1, coarse.shape[2]), np.float32)
    tall[:, ::2] = coarse
    tall[:, 1::2] = (coarse[:, 1:] + coarse[:, :-1]) * np.float32(0.5)
    tall = tall[:, :rows]
    wide = np.empty((*tall.shape[:2], 2 * coarse.shape[2] - 1), np.float32)
    wide[:, :, ::2] = tall
    wide[:, :, 1::2] = (tall[:, :, 1:] + tall[:, :, :-1]) * np.float32(0.5)
    return wide[:, :, :columns]


def inside(distance: NDArray[np.float32], softness: float) -> NDArray[np.float32]:
    """Signed distance (negative inside) -> share of the voxel that is inside."""
    return np.clip(np.float32(0.5) - distance * np.float32(1 / softness), 0, 1)


def distance(shape: Shape, xyz: list[NDArray[np.float32]], grow: float = 0.0) -> NDArray[np.float32]:
    """Signed distance in mm (an estimate for ellipsoids) of points to a shape grown by `grow`."""
    x, y, z = xyz
    if isinstance(shape, Ellipsoid):
        radii = np.asarray(shape.radii, dtype=np.float32) + np.float32(grow)
        total = ((x - shape.centre[0]) / radii[0]) ** 2
        total += ((y - shape.centre[1]) / radii[1]) ** 2
        total += ((z - shape.centre[2]) / radii[2]) ** 2
        return (np.sqrt(total) - 1) * np.float32(radii.min())
    squeeze = np.float32(1 / shape.flat)
    a = np.array([shape.a[0], shape.a[1] * squeeze, shape.a[2]], np.float32)
    axis = np.array([shape.b[0], shape.b[1] * squeeze, shape.b[2]], np.float32) - a
    px, py, pz = x - a[0], y * squeeze - a[1], z - a[2]
    length2 = max(float(axis @ axis), 1e-6)
    along = np.clip((px * axis[0] + py * axis[1] + pz * axis[2]) * np.float32(1 / length2), 0, 1)
    total = (px - along * axis[0]) ** 2
    total += (py - along * axis[1]) ** 2
    total += (pz - along * axis[2]) ** 2
    return np.sqrt(total) - (np.float32(shape.radius_a + grow) + along * np.float32(shape.radius_b - shape.radius_a))


def extent(shape: Shape, grow: float = 0.0) -> tuple[Vector, Vector]:
    """Centre and half size, along x, y, z, of the box around a shape."""
    if isinstance(shape, Ellipsoid):
        return np.array(shape.centre, float), np.array(shape.radii, float) + grow
    a, b = np.array(shape.a, float), np.array(shape.b, float)
    radius = max(shape.radius_a, shape.radius_b) + grow
    return (a + b) / 2, np.abs(a - b) / 2 + radius * np.array([1.0, max(shape.flat, 1.0), 1.0])


def _thinnest(shape: Shape) -> float:
    return (
        min(shape.radii) if isinstance(shape, Ellipsoid) else min(shape.radius_a, shape.radius_b) * min(shape.flat, 1)
    )


def place(
    canvas: Canvas, shapes: tuple[Shape, ...], local: Vector, scale: float, grow: float
) -> tuple[Box, Vector] | None:
    """The box around shapes on the grid, and 4x4 LPS -> the standard body's mm."""
    to_standard = np.diag([1 / scale, 1 / scale, 1 / scale, 1.0]) @ local
    bounds = [extent(shape, grow) for shape in shapes]
    low = np.min([centre - half for centre, half in bounds], axis=0)
    high = np.max([centre + half for centre, half in bounds], axis=0)
    back = np.linalg.inv(to_standard)
    reach = np.abs(np.linalg.inv(canvas.affine[:3, :3]) @ back[:3, :3]) @ ((high - low) / 2)  # in voxels
    box = canvas.box(
        back[:3, :3] @ ((low + high) / 2) + back[:3, 3], reach * np.linalg.norm(canvas.affine[:3, :3], axis=0)
    )
    return None if box is None else (box, to_standard)


def draw(
    canvas: Canvas,
    shape: Shape,
    local: Vector,
    scale: float,
    *,
    warp: Warp | None = None,
    layers: tuple[tuple[float, str | tuple[float, ...]], ...] = (),
) -> None:
    """Paint one shape given in a local space (4x4 `local`: LPS -> local mm) of a body `scale` times the standard.

    `layers` are (grow in mm, tissue), outermost first; without them the shape's own tissue is painted.
    """
    layers = layers or ((0.0, shape.tissue),)
    bend = 4 * warp.amplitude if warp else 0.0
    placed = place(canvas, (shape,), local, scale, max(grow for grow, _ in layers) + canvas.softness + bend)
    if placed is None:
        return
    box, to_standard = placed
    coarse = _thinnest(shape) > 4 * canvas.softness
    gap = distance(shape, canvas.coordinates(box, to_standard, warp, coarse)) * np.float32(scale)
    if coarse:
        gap = refine(gap, box)
    for grow, tissue in layers:
        canvas.paint(box, inside(gap - np.float32(grow * scale), canvas.softness), tissue)


def union(
    shapes: tuple[tuple[Shape, float], ...], xyz: list[NDArray[np.float32]], blend: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Signed distances to the smooth union of bones (shape, cortex in mm): (outer surface, inner surface)."""
    outer = inner = None
    for shape, cortex in shapes:
        gap = distance(shape, xyz)
        outer = gap if outer is None else _smooth_least(outer, gap, blend)
        deep = gap + np.float32(cortex)
        inner = deep if inner is None else _smooth_least(inner, deep, blend)
    assert outer is not None and inner is not None
    return outer, inner


def _smooth_least(a: NDArray[np.float32], b: NDArray[np.float32], blend: float) -> NDArray[np.float32]:
    near = np.maximum(np.float32(blend) - np.abs(a - b), 0)
    return np.minimum(a, b) - near * near * np.float32(0.25 / blend)


def background(canvas: Canvas, local: Vector, scale: float, fat_mm: float, half_width: float, warp: Warp) -> None:
    """Skin, subcutaneous fat, and muscle throughout. `half_width` is from the midline to a head's centre."""
    box: Box = tuple(slice(0, n) for n in canvas.signal.shape[1:])  # type: ignore[assignment]
    x, y, z = canvas.coordinates(box, local, warp, coarse=True)
    x, y, z = np.abs(x) * np.float32(1 / scale), y * np.float32(1 / scale), z * np.float32(1 / scale)
    width = np.float32(half_width / scale)
    below = ((z + 42).clip(None, 0) * np.float32(1 / 52)) ** 2
    trunk = (x * (1 / (width + np.float32(60 + fat_mm)))) ** 2 + (y * np.float32(1 / 118)) ** 2
    trunk += ((z - 30).clip(0) * np.float32(1 / 420)) ** 2 + below * below
    trunk = (np.sqrt(trunk) - 1) * 90
    centre = width + 2 + (z + 60) * np.float32(0.05)
    thigh = np.sqrt((x - centre) ** 2 + y * y * np.float32(0.8)) - (
        np.float32(68 + fat_mm) + (z + 60) * np.float32(0.07)
    )
    thigh = np.maximum(thigh, z - 10)
    skin = refine(_smooth_least(thigh, trunk, 30.0) * np.float32(scale), box)
    soft = canvas.softness
    canvas.paint(box, inside(skin, soft), "skin")
    canvas.paint(box, inside(skin + 2.0, soft), "fat")
    canvas.paint(box, inside(skin + np.float32(fat_mm * scale), soft * 1.5), "muscle")
