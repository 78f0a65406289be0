"""Three invented scanners of three vendors: protocols, grids and how each one's images come out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tasks.phantom.noise import pool

SeriesName = Literal["t1", "stir", "ce"]


@dataclass(frozen=True)
class Protocol:
    """One series as prescribed. Times in ms, lengths in mm; shape is (slices, rows, columns)."""

    name: SeriesName
    description: str
    protocol: str
    sequence: tuple[str, str]  # ScanningSequence, SequenceVariant
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]  # between slices, rows, columns
    thickness: float
    tr: float
    te: float
    ti: float | None
    flip: float
    train: int
    options: str
    image_type: tuple[str, ...]
    noise: float  # SD relative to fat on T1


@dataclass(frozen=True)
class Scanner:
    vendor: Literal["siemens", "ge", "philips"]
    manufacturer: str
    model: str
    software: str
    field: float
    gain: float
    bits: int
    signed: bool
    order: Literal["ascending", "interleaved", "descending"]  # of InstanceNumber against position (anterior first)
    oblique_deg: float  # how far planes are angled off true coronal, at most
    protocols: tuple[Protocol, ...]


def _protocols(*rows: tuple[Any, ...]) -> tuple[Protocol, ...]:
    return tuple(Protocol(*row) for row in rows)


_SIEMENS_2D, _SIEMENS_3D = ("ORIGINAL", "PRIMARY", "M", "NORM", "DIS2D"), ("ORIGINAL", "PRIMARY", "M", "NORM")
_GE = ("ORIGINAL", "PRIMARY", "OTHER")

# fmt: off
# Each row: series, SeriesDescription, ProtocolName, (ScanningSequence, SequenceVariant), (slices, rows, columns), mm
# between them, thickness in mm, | TR, TE, TI in ms, flip angle, echo train, ScanOptions, ImageType, noise
SIEMENS = Scanner(
    "siemens", "SIEMENS", "Skyra", "syngo MR E11", 3.0, 620.0, 12, False, "ascending", 0.0,
    _protocols(
        ("t1", "t1_tse_cor_bil", "t1_tse_cor_bil", ("SE", "SK\\SP"), (13, 208, 256), (4.0, 1.38, 1.38), 3.6,
         610.0, 11.0, None, 150.0, 3, "", _SIEMENS_2D, 0.026),
        ("stir", "t2_tirm_cor_bil", "t2_tirm_cor_bil", ("IR\\SE", "SK\\SP\\MP"), (13, 208, 256), (4.0, 1.38, 1.38),
         3.6, 4650.0, 42.0, 220.0, 150.0, 9, "", _SIEMENS_2D, 0.032),
        ("ce", "t1_vibe_fs_cor_post", "t1_vibe_fs_cor_p2_KM", ("GR", "SP\\OSP"), (40, 140, 272), (1.35, 1.05, 1.05),
         1.35, 4.6, 1.9, None, 10.0, 1, "PFP\\FS", _SIEMENS_3D, 0.028),
    ),
)
GE = Scanner(
    "ge", "GE MEDICAL SYSTEMS", "DISCOVERY MR450", "25\\LX\\MR Software release:DV25.1_R02", 1.5, 2600.0, 16, True,
    "interleaved", 3.0,
    _protocols(
        ("t1", "COR T1 FSE HIPS", "HIPS BILAT AVN/4", ("SE", "SK"), (12, 208, 256), (4.4, 1.40625, 1.40625), 4.0,
         540.0, 13.2, None, 90.0, 3, "FAST_GEMS\\NPW\\TRF_GEMS\\FILTERED_GEMS", _GE, 0.034),
        ("stir", "COR STIR HIPS", "HIPS BILAT AVN/4", ("SE\\IR", "SK"), (12, 208, 256), (4.4, 1.40625, 1.40625), 4.0,
         4100.0, 48.0, 155.0, 90.0, 12, "FAST_GEMS\\SEQ_GEMS\\IR", _GE, 0.038),
        ("ce", "COR LAVA +C", "HIPS BILAT AVN/4", ("GR", "SS\\SK"), (36, 136, 264), (1.5, 1.1, 1.1), 1.5,
         5.2, 2.4, None, 12.0, 1, "FAST_GEMS\\FS\\EDR_GEMS\\ACC_GEMS", _GE, 0.032),
    ),
)
PHILIPS = Scanner(
    "philips", "Philips Medical Systems", "Ingenia", "5.3.1\\5.3.1.0", 3.0, 1150.0, 12, False, "descending", 5.0,
    _protocols(
        ("t1", "T1W_TSE_COR", "T1W_TSE_COR", ("SE", "SK"), (12, 212, 264), (4.3, 1.34, 1.34), 3.9,
         585.0, 9.5, None, 90.0, 4, "PFF\\SP", ("ORIGINAL", "PRIMARY", "M_SE", "M", "SE"), 0.026),
        ("stir", "STIR_longTE_COR", "STIR_longTE_COR", ("IR\\SE", "SK"), (12, 212, 264), (4.3, 1.34, 1.34), 3.9,
         4300.0, 60.0, 210.0, 90.0, 14, "OTHER", ("ORIGINAL", "PRIMARY", "M_IR", "M", "IR"), 0.034),
        ("ce", "eTHRIVE_COR_GD", "eTHRIVE_COR_GD", ("GR", "SP"), (38, 136, 264), (1.4, 1.08, 1.08), 1.4,
         5.5, 2.7, None, 10.0, 1, "FS\\PFP", ("ORIGINAL", "PRIMARY", "M_FFE", "M", "FFE"), 0.028),
    ),
)
# fmt: on
SCANNERS = (SIEMENS, GE, PHILIPS)


def reduced(protocol: Protocol, factor: float) -> Protocol:
    """The same field of view on a matrix smaller by `factor`; slices stay, apart from the 3D series' thinner ones."""
    if factor == 1:
        return protocol
    slices, rows, columns = protocol.shape
    between, row, column = protocol.spacing
    fewer = round(slices / factor) if protocol.name == "ce" else slices
    return replace(
        protocol,
        shape=(fewer, round(rows / factor), round(columns / factor)),
        spacing=(between * slices / fewer, row * factor, column * factor),
        thickness=protocol.thickness * slices / fewer,
    )


def plane(protocol: Protocol, centre_lps: NDArray[np.float64], tilt_deg: NDArray[np.float64]) -> NDArray[np.float64]:
    """4x4, index (slice, row, column) -> LPS mm, of a coronal stack around `centre_lps`, anterior slice first.

    `tilt_deg` turns it about the patient's x and z axes. Positions are rounded to 1e-4 mm, as headers write them.
    """
    about_x, about_z = np.deg2rad(tilt_deg)
    turn_x = np.array([[1, 0, 0], [0, np.cos(about_x), -np.sin(about_x)], [0, np.sin(about_x), np.cos(about_x)]])
    turn_z = np.array([[np.cos(about_z), -np.sin(about_z), 0], [np.sin(about_z), np.cos(about_z), 0], [0, 0, 1]])
    turn = turn_z @ turn_x
    affine = np.eye(4)
    directions = ((0, 1, 0), (0, 0, -1), (1, 0, 0))
    for axis, (direction, step) in enumerate(zip(directions, protocol.spacing, strict=True)):
        affine[:3, axis] = turn @ np.array(direction, dtype=float) * step
    affine[:3, 3] = centre_lps - affine[:3, :3] @ ((np.array(protocol.shape) - 1) / 2)
    affine[:3, 3] = np.round(affine[:3, 3], 4)
    return affine


def acquire(
    signal: NDArray[np.float32], protocol: Protocol, scanner: Scanner, rng: np.random.Generator
) -> NDArray[np.uint16]:
    """Ideal signal (1 = fat on T1) -> stored pixels: coil bias, ghosts, Rician noise, gain."""
    rows, columns = signal.shape[1:]
    h = np.linspace(-1, 1, rows, dtype=np.float32)[:, None]
    w = np.linspace(-1, 1, columns, dtype=np.float32)[None]
    a = rng.normal(0, 0.10, 5).astype(np.float32)
    bias = np.exp(a[0] * h + a[1] * w + a[2] * h * h + (0.10 + a[3]) * w * w + a[4] * h * w)
    image = signal * bias[None]
    if rng.random() < 0.25:
        shift = int(rng.integers(rows // 4, rows // 2))
        image += np.float32(rng.uniform(0.015, 0.04)) * np.roll(image, shift, axis=1)
    sigma = np.float32(protocol.noise * rng.uniform(0.8, 1.25))
    real, imaginary = pool(image.shape, rng), pool(image.shape, rng)
    image += sigma * real
    image *= image
    image += (sigma * imaginary) ** 2
    np.sqrt(image, out=image)
    image *= np.float32(scanner.gain * rng.uniform(0.7, 1.4))
    return np.clip(np.rint(image), 0, 2 ** min(scanner.bits, 15) - 1).astype(np.uint16)
