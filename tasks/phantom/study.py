"""One study: a patient's pelvis at one visit, rendered as the three series of a scanner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.phantom import hip as hips
from tasks.phantom.anatomy import (
    CAVITY,
    CHANNELS,
    MIDLINE,
    MUSCLES,
    SIGNAL,
    VESSELS,
    Box,
    Canvas,
    Warp,
    background,
    draw,
    refine,
)
from tasks.phantom.hip import HipState, Truth
from tasks.phantom.noise import texture
from tasks.phantom.scanners import SCANNERS, Protocol, acquire, plane, reduced


@dataclass(frozen=True)
class StudyPlan:
    """All that one study is made of (picklable). hips: one dict of latent values for L and for R (`disease`)."""

    seed: tuple[int, ...]
    patient_seed: tuple[int, ...]
    scanner: int
    sex: str
    height_m: float
    weight_kg: float
    hips: tuple[dict[Any, Any], ...]
    matrix: float = 1.0


@dataclass(frozen=True)
class Series:
    """pixels: (slices, rows, columns), anterior first; affine: index -> LPS mm."""

    protocol: Protocol
    pixels: NDArray[np.uint16]
    affine: NDArray[np.float64]


@dataclass(frozen=True)
class Rendered:
    """truth: side -> true shapes on the T1 grid; vessels: side -> (box, signed distance) on the contrast grid."""

    series: tuple[Series, ...]
    states: dict[str, HipState]
    truth: dict[str, Truth]
    vessels: dict[str, tuple[Box, NDArray[np.float32]]]


def render(plan: StudyPlan) -> Rendered:
    rng = np.random.default_rng([*plan.seed, 10])
    scanner = SCANNERS[plan.scanner]
    scale, fat_mm, half_width, states, pelvis = pose(plan, rng)
    tilt = rng.normal(0, scanner.oblique_deg / 2, 2).clip(-scanner.oblique_deg, scanner.oblique_deg)
    origin = np.linalg.inv(pelvis)[:3, 3]
    truth: dict[str, Truth] = {}
    tubes: dict[str, tuple[Box, NDArray[np.float32]]] = {}
    series: list[Series] = []
    by_name = {protocol.name: reduced(protocol, plan.matrix) for protocol in scanner.protocols}

    aim = origin + [0, rng.normal(3, 2), -22 * scale + rng.normal(0, 4)]
    flat = plane(by_name["t1"], aim, tilt)
    canvas = Canvas.blank(by_name["t1"].shape, flat, (CHANNELS["t1"], CHANNELS["stir"]))
    warps = _body(canvas, pelvis, states, scale, fat_mm, half_width, plan, rng)
    for side, state in states.items():
        hips.bones(canvas, state, warps[side], rng)
        shapes = hips.head(canvas, state, rng)
        if state.implant:
            hips.implant(canvas, state)
        elif shapes is not None:
            truth[side] = shapes
    for number, name in enumerate(("t1", "stir")):
        series.append(Series(by_name[name], acquire(canvas.signal[number], by_name[name], scanner, rng), flat))  # type: ignore[index]

    aim = origin + [0, rng.normal(1, 1.5), -8 * scale + rng.normal(0, 3)]
    thin = plane(by_name["ce"], aim, tilt * rng.uniform(0, 1))
    canvas = Canvas.blank(by_name["ce"].shape, thin, (CHANNELS["ce"],))
    warps = _body(canvas, pelvis, states, scale, fat_mm, half_width, plan, rng)
    for side, state in states.items():
        hips.bones(canvas, state, warps[side], rng)
        hips.head(canvas, state, rng)
        if state.implant:
            hips.implant(canvas, state)
        elif (found := hips.vessels(canvas, state)) is not None:
            tubes[side] = found
    series.append(Series(by_name["ce"], acquire(canvas.signal[0], by_name["ce"], scanner, rng), thin))
    return Rendered(tuple(series), states, truth, tubes)


def pose(
    plan: StudyPlan, rng: np.random.Generator
) -> tuple[float, float, float, dict[str, HipState], NDArray[np.float64]]:
    """(body scale, fat in mm, half distance of the heads in mm, hips, 4x4 LPS -> pelvis) of this visit.

    Size is the patient's own and stays; position and rotation are those of the day.
    """
    own = np.random.default_rng([*plan.patient_seed, 11])
    scale = float((plan.height_m / 1.72) ** 0.8 * own.normal(1, 0.02))
    radius = float(24.2 * scale * (1.025 if plan.sex == "M" else 0.955) * own.normal(1, 0.025))
    half_width = float((87.0 if plan.sex == "M" else 89.5) * scale * own.normal(1, 0.025))
    bmi = plan.weight_kg / plan.height_m**2
    fat_mm = float(np.clip(7 + (bmi - 18) * 1.5 + (4 if plan.sex == "F" else 0), 6, 45))

    angles = np.deg2rad(rng.normal(0, [1.5, 2.0, 2.0]))
    pelvis = np.eye(4)
    pelvis[:3, :3] = _rotation(angles)
    shift = rng.normal(0, [5.0, 5.0, 6.0])
    pelvis[:3, 3] = -pelvis[:3, :3] @ shift
    states = {}
    for values in plan.hips:
        mirror = np.diag([1.0 if values["side"] == "L" else -1.0, 1.0, 1.0, 1.0])
        move = np.eye(4)
        move[0, 3] = -half_width
        states[values["side"]] = HipState(
            side=values["side"],
            hip_from_lps=move @ mirror @ pelvis,
            radius=radius,
            scale=scale,
            affected=bool(values["affected"]),
            half_angle=float(values["half_angle_deg"]),
            lateral=float(values["lateral_tilt_deg"]),
            anterior=float(values["anterior_tilt_deg"]),
            interior=str(values["interior"]),
            oedema=float(values["oedema"]),
            effusion=float(values["effusion"]) + (1.0 if "effusion" in values["mimic"] else 0.0),
            collapse=float(values["collapse_mm"]),
            implant=bool(values["implant"]),
            mimics=tuple(values["mimic"].split("+")),
            mimic_level=float(values["mimic_level"]),
            vessel_length=float(values["vessel_length_mm"]),
            bifurcations=tuple(values["bifurcations"]),
            key=(*plan.patient_seed, 20 if values["side"] == "L" else 21),
        )
    return scale, fat_mm, half_width, states, pelvis


def _rotation(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x)


def _body(
    canvas: Canvas,
    pelvis: NDArray,
    states: dict[str, HipState],
    scale: float,
    fat_mm: float,
    half_width: float,
    plan: StudyPlan,
    rng: np.random.Generator,
) -> dict[str, Warp]:
    """Paint all but the hips; returns how each side's shapes are bent (the patient's own, at every visit)."""
    own = np.random.default_rng([*plan.patient_seed, 12])
    middle = Warp.drawn(own, 1.4)
    warps = {side: Warp.drawn(own, 1.6) for side in states}
    tone = own.uniform(0.90, 1.14, (len(states), len(MUSCLES)))
    # Soft tissue needs no more than 1.4 mm pixels: finer grids get it from every other pixel.
    rough = canvas.halved() if canvas.softness < 1.45 else canvas
    background(rough, pelvis, scale, fat_mm, half_width, middle)
    for number, (side, state) in enumerate(states.items()):
        for shape, level in zip(MUSCLES, tone[number], strict=True):
            flesh = tuple(value * level for value in SIGNAL["muscle"])
            draw(rough, shape, state.hip_from_lps, scale, warp=warps[side], layers=((1.5, "fascia"), (0.0, flesh)))
    for shape in CAVITY:
        draw(rough, shape, pelvis, scale, warp=middle)
    for shape in MIDLINE:
        draw(rough, shape, pelvis, scale, warp=middle, layers=((1.2, "tendon"), (0.0, shape.tissue)))
    if rough is not canvas:
        whole: Box = tuple(slice(0, n) for n in canvas.signal.shape[1:])  # type: ignore[assignment]
        for number, signal in enumerate(rough.signal):
            canvas.signal[number] = refine(signal, whole)
    for side, state in states.items():
        for shape in VESSELS:
            draw(canvas, shape, state.hip_from_lps, scale, warp=warps[side])
    grain = texture(canvas.signal.shape[1:], rng)  # type: ignore[arg-type]
    streaks = np.clip(grain - np.float32(1.3), 0, 2) * np.float32(0.22)  # fat between the fibres
    for row, channel in enumerate(canvas.channels):
        canvas.signal[row] += streaks * (np.float32(SIGNAL["fascia"][channel]) - canvas.signal[row])
        canvas.signal[row] *= 1 + np.float32(0.04) * grain
    return warps
