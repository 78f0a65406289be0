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
    "fluid": (0.20, 1.05, 0.20),
    "synovium": (0.34, 0.45, 0.62),
    "bladder": (0.17, 1.15, 0.22),
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
    Ellipsoid("red_marrow", (-9, 4, 40), (27, 26, 20)),  # roof of the acetabulum
    Capsule("red_marrow", (-12, 6, 44), (14, 12, 128), 12, 6, 2.4),  # ilium
    Capsule("red_marrow", (-31, 8, 22), (-32, 12, -24), 7, 8, 2.6),  # medial wall
    Capsule("red_marrow", (-34, 22, -22), (-36, 28, -62), 12, 13, 1.2),  # ischium
    Capsule("red_marrow", (-36, 18, -62), (-66, -12, -58), 9, 6, 1.0),  # inferior ramus
    Capsule("red_marrow", (-26, -16, -8), (-80, -32, -24), 9, 10, 1.0),  # superior ramus
)
FEMUR: tuple[tuple[Shape, float], ...] = (  # with the thickness of its cortex
    (Capsule("red_marrow", (8, 1.5, -6), NECK_END, 15.5, 16.5), 2.2),
    (Capsule("marrow", (50, 13, -18), (55, 15, -34), 14, 15, 1.2), 1.6),  # greater trochanter
    (Capsule("red_marrow", (47, 10, -34), (42, 8, -80), 18, 14.5), 3.4),
    (Capsule("marrow", (26, 20, -62), (34, 14, -66), 7, 9), 1.6),  # lesser trochanter
    (Capsule("marrow", (42, 8, -78), (32, 4, -240), 14.5, 13.0), 5.2),
)
MIDLINE: tuple[Shape, ...] = (
    Ellipsoid("bladder", (0, -14, 22), (40, 34, 25)),
    Ellipsoid("organ", (2, 14, -8), (23, 20, 17)),
    Capsule("bowel", (0, 44, 70), (0, 40, -20), 16, 13),
    Ellipsoid("bowel", (-34, -6, 78), (25, 24, 19)),
    Ellipsoid("bowel", (28, 4, 82), (28, 26, 21)),
    Ellipsoid("bowel", (2, -18, 104), (34, 22, 17)),
    Ellipsoid("bowel", (-56, 10, 108), (20, 22, 24)),
    Ellipsoid("bowel", (58, 8, 112), (21, 20, 22)),
    Ellipsoid("gas", (22, -6, 90), (11, 12, 6)),
)


@dataclass
class Canvas:
    """Signal of one grid for some channels; `affine` maps (slice, row, column) to LPS mm."""

    affine: Vector
    channels: tuple[int, ...]
    signal: NDArray[np.float32]  # (channels, D, H, W)

    @classmethod
    def blank(cls, shape: tuple[int, int, int], affine: Vector, channels: tuple[int, ...]) -> Canvas:
        return cls(affine, channels, np.zeros((len(channels), *shape), np.float32))

    def box(self, centre: Vector, reach: float | Vector) -> Box | None:
        """Voxels within `reach` mm of `centre` (LPS), or None if there are none."""
        steps = np.linalg.norm(self.affine[:3, :3], axis=0)
        middle = np.linalg.solve(self.affine[:3, :3], centre - self.affine[:3, 3])
        shape = np.array(self.signal.shape[1:])
        low = np.clip(np.floor(middle - reach / steps), 0, shape).astype(int)
        high = np.clip(np.ceil(middle + reach / steps) + 1, 0, shape).astype(int)
        return None if (high <= low).any() else tuple(slice(a, b) for a, b in zip(low, high, strict=True))  # type: ignore[return-value]

    def coordinates(self, box: Box, local: Vector) -> list[NDArray[np.float32]]:
        """x, y, z of the box's voxels in the space that 4x4 `local` maps LPS to."""
        matrix = local @ self.affine
        d, h, w = (np.arange(part.start, part.stop, dtype=np.float32) for part in box)
        return [
            (np.float32(row[0]) * d + np.float32(row[3]))[:, None, None]
            + ((np.float32(row[1]) * h)[:, None] + (np.float32(row[2]) * w)[None])[None]
            for row in matrix[:3]
        ]

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


def draw(canvas: Canvas, shape: Shape, local: Vector, scale: float, *, grow: float = 0.0, tissue: str | tuple[float, ...] | None = None,
         grain: NDArray[np.float32] | None = None) -> None:  # fmt: skip
    """Paint one shape given in a local space (4x4 `local`: LPS -> local mm) of a body `scale` times the standard."""
    to_standard = np.diag([1 / scale, 1 / scale, 1 / scale, 1.0]) @ local
    centre, half = extent(shape, grow + canvas.softness)
    back = np.linalg.inv(to_standard)
    reach = np.abs(back[:3, :3]) @ half  # along LPS
    steps = np.abs(np.linalg.inv(canvas.affine[:3, :3])) @ reach  # along the grid
    box = canvas.box(back[:3, :3] @ centre + back[:3, 3], steps * np.linalg.norm(canvas.affine[:3, :3], axis=0))
    if box is None:
        return
    xyz = canvas.coordinates(box, to_standard)
    amount = inside(distance(shape, xyz, grow) * np.float32(scale), canvas.softness)
    canvas.paint(box, amount, tissue or shape.tissue)


def background(canvas: Canvas, local: Vector, scale: float, fat_mm: float, half_width: float) -> None:
    """Skin, subcutaneous fat and fascia of pelvis and thighs. `half_width` is from the midline to a head's centre."""
    box = tuple(slice(0, n) for n in canvas.signal.shape[1:])
    x, y, z = canvas.coordinates(box, local)  # type: ignore[arg-type]
    x, y, z = np.abs(x) / np.float32(scale), y / np.float32(scale), z / np.float32(scale)
    width = np.float32(half_width / scale)
    trunk = np.sqrt((x / (width + 62 + fat_mm)) ** 2 + (y / 118) ** 2 + ((z - 30).clip(0) / 420) ** 2 + ((z + 30).clip(None, 0) / 75) ** 4)
    trunk = (trunk - 1) * 90
    centre = width + 6 + (z + 60) * np.float32(0.06)
    thigh = np.sqrt((x - centre) ** 2 + (y * 0.9) ** 2) - (np.float32(66 + fat_mm) + (z + 60) * np.float32(0.07))
    thigh = np.maximum(thigh, z - 10)
    blend = np.float32(12)
    mix = np.clip(0.5 + 0.5 * (thigh - trunk) / blend, 0, 1)
    skin = (thigh * (1 - mix) + trunk * mix - blend * mix * (1 - mix)) * np.float32(scale)
    canvas.paint(box, inside(skin, canvas.softness), "skin")  # type: ignore[arg-type]
    canvas.paint(box, inside(skin + 2.0, canvas.softness), "fat")  # type: ignore[arg-type]
    canvas.paint(box, inside(skin + np.float32(fat_mm * scale), canvas.softness * 1.5), "muscle")  # type: ignore[arg-type]
    canvas.paint(box, inside(skin + np.float32(fat_mm * scale + 2.5), canvas.softness * 1.5), "fat")  # type: ignore[arg-type]
