"""Three invented scanners of three vendors: protocols, grids and how each one's images come out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

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
    noise: float


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


def _mr(
    name: SeriesName,
    description: str,
    protocol: str,
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    thickness: float,
    **physics: object,
) -> Protocol:
    return Protocol(name, description, protocol, shape=shape, spacing=spacing, thickness=thickness, **physics)  # type: ignore[arg-type]


SIEMENS = Scanner(
    "siemens",
    "SIEMENS",
    "Skyra",
    "syngo MR E11",
    3.0,
    620.0,
    12,
    False,
    "ascending",
    0.0,
    (
        _mr(
            "t1",
            "t1_tse_cor_bil",
            "t1_tse_cor_bil",
            (13, 208, 256),
            (4.0, 1.38, 1.38),
            3.6,
            sequence=("SE", "SK\\SP"),
            tr=610.0,
            te=11.0,
            ti=None,
            flip=150.0,
            train=3,
            options="",
            image_type=("ORIGINAL", "PRIMARY", "M", "NORM", "DIS2D"),
            noise=0.026,
        ),
        _mr(
            "stir",
            "t2_tirm_cor_bil",
            "t2_tirm_cor_bil",
            (13, 208, 256),
            (4.0, 1.38, 1.38),
            3.6,
            sequence=("IR\\SE", "SK\\SP\\MP"),
            tr=4650.0,
            te=42.0,
            ti=220.0,
            flip=150.0,
            train=9,
            options="",
            image_type=("ORIGINAL", "PRIMARY", "M", "NORM", "DIS2D"),
            noise=0.032,
        ),
        _mr(
            "ce",
            "t1_vibe_fs_cor_post",
            "t1_vibe_fs_cor_p2_KM",
            (44, 140, 272),
            (1.25, 1.05, 1.05),
            1.25,
            sequence=("GR", "SP\\OSP"),
            tr=4.6,
            te=1.9,
            ti=None,
            flip=10.0,
            train=1,
            options="PFP\\FS",
            image_type=("ORIGINAL", "PRIMARY", "M", "NORM"),
            noise=0.028,
        ),
    ),
)
GE = Scanner(
    "ge",
    "GE MEDICAL SYSTEMS",
    "DISCOVERY MR450",
    "25\\LX\\MR Software release:DV25.1_R02",
    1.5,
    2600.0,
    16,
    True,
    "interleaved",
    3.0,
    (
        _mr(
            "t1",
            "COR T1 FSE HIPS",
            "HIPS BILAT AVN/4",
            (12, 208, 256),
            (4.4, 1.40625, 1.40625),
            4.0,
            sequence=("SE", "SK"),
            tr=540.0,
            te=13.2,
            ti=None,
            flip=90.0,
            train=3,
            options="FAST_GEMS\\NPW\\TRF_GEMS\\FILTERED_GEMS",
            image_type=("ORIGINAL", "PRIMARY", "OTHER"),
            noise=0.034,
        ),
        _mr(
            "stir",
            "COR STIR HIPS",
            "HIPS BILAT AVN/4",
            (12, 208, 256),
            (4.4, 1.40625, 1.40625),
            4.0,
            sequence=("SE\\IR", "SK"),
            tr=4100.0,
            te=48.0,
            ti=155.0,
            flip=90.0,
            train=12,
            options="FAST_GEMS\\SEQ_GEMS\\IR",
            image_type=("ORIGINAL", "PRIMARY", "OTHER"),
            noise=0.038,
        ),
        _mr(
            "ce",
            "COR LAVA +C",
            "HIPS BILAT AVN/4",
            (38, 136, 264),
            (1.4, 1.1, 1.1),
            1.4,
            sequence=("GR", "SS\\SK"),
            tr=5.2,
            te=2.4,
            ti=None,
            flip=12.0,
            train=1,
            options="FAST_GEMS\\FS\\EDR_GEMS\\ACC_GEMS",
            image_type=("ORIGINAL", "PRIMARY", "OTHER"),
            noise=0.032,
        ),
    ),
)
PHILIPS = Scanner(
    "philips",
    "Philips Medical Systems",
    "Ingenia",
    "5.3.1\\5.3.1.0",
    3.0,
    1150.0,
    12,
    False,
    "descending",
    5.0,
    (
        _mr(
            "t1",
            "T1W_TSE_COR",
            "T1W_TSE_COR",
            (12, 212, 264),
            (4.3, 1.34, 1.34),
            3.9,
            sequence=("SE", "SK"),
            tr=585.0,
            te=9.5,
            ti=None,
            flip=90.0,
            train=4,
            options="PFF\\SP",
            image_type=("ORIGINAL", "PRIMARY", "M_SE", "M", "SE"),
            noise=0.026,
        ),
        _mr(
            "stir",
            "STIR_longTE_COR",
            "STIR_longTE_COR",
            (12, 212, 264),
            (4.3, 1.34, 1.34),
            3.9,
            sequence=("IR\\SE", "SK"),
            tr=4300.0,
            te=60.0,
            ti=210.0,
            flip=90.0,
            train=14,
            options="OTHER",
            image_type=("ORIGINAL", "PRIMARY", "M_IR", "M", "IR"),
            noise=0.034,
        ),
        _mr(
            "ce",
            "eTHRIVE_COR_GD",
            "eTHRIVE_COR_GD",
            (40, 136, 264),
            (1.35, 1.08, 1.08),
            1.35,
            sequence=("GR", "SP"),
            tr=5.5,
            te=2.7,
            ti=None,
            flip=10.0,
            train=1,
            options="FS\\PFP",
            image_type=("ORIGINAL", "PRIMARY", "M_FFE", "M", "FFE"),
            noise=0.028,
        ),
    ),
)
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
