"""Acquisitions that a localizer of femoral heads may be wrong in, by class, from three makers of bodies that share no
code: `torsos` (tissue and physics), `bodies` (balls and capsules) and tasks/phantom. `acquired(kind, maker, seed)` is
always the same case; `judged` compares an answer with the truth. mm, patient LPS."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import bodies
import numpy as np
import tissues
import torsos
from numpy.typing import NDArray

from tasks.domain.volume import Volume
from tasks.phantom import hip as phantom
from tasks.phantom.anatomy import CHANNELS, Canvas, Capsule, Ellipsoid, draw
from tasks.phantom.study import StudyPlan, _body, pose
from tasks.standardize.locate import Head, Located
from tasks.standardize.place import coverage

WRONG_MM = 8.0
"""A head that is called one and lies this far from the truth, or is none, is confidently wrong."""

KINDS = (
    "coronal", "axial", "sagittal", "oblique", "one coronal", "one axial", "one sagittal", "thick", "stretched",
    "noisy", "implant", "two implants", "collapsed", "child", "giant", "arms", "bladder", "cut", "elsewhere", "fluid",
    "contrast", "no hip",
)  # fmt: skip
MAKERS = ("torsos", "bodies", "phantom")
CASES = [(kind, maker) for kind in KINDS for maker in (MAKERS if kind != "no hip" else MAKERS[:1])]


@dataclass(frozen=True)
class Hip:
    """One hip as it is. state: sound | dead | collapsed | metal."""

    centre: NDArray[np.float64]
    radius: float
    state: str


@dataclass(frozen=True)
class Case:
    kind: str
    maker: str
    seed: int
    image: Volume
    polarity: int
    joints: dict[str, Hip]


@dataclass(frozen=True)
class Body:
    """paint: whatever `scan` of its maker needs."""

    maker: str
    joints: dict[str, Hip]
    half_width: float
    made: Any


def acquired(kind: str, maker: str, seed: int, role: str = "") -> Case:
    """`role`: t1, stir or enhanced in place of the kind's own, of the same body in the same place."""
    rng = np.random.default_rng([20260, KINDS.index(kind), MAKERS.index(maker), seed])
    body = _body_of(kind, maker, rng)
    own = str(rng.choice(["stir", "fatsat"])) if kind == "fluid" else "enhanced" if kind == "contrast" else "t1"
    slab = _slab(kind, body, rng)
    role = role or own
    noise = rng.uniform(0.18, 0.4) if kind == "noisy" else rng.uniform(0.04, 0.12)
    scan = {"torsos": _scan_torsos, "bodies": _scan_bodies, "phantom": _scan_phantom}[body.maker]
    image = scan(body.made, slab, role, float(noise), rng)
    return Case(kind, maker, seed, image, int(role == "t1"), {} if kind == "no hip" else body.joints)


def judged(case: Case, found: Located) -> list[tuple[str, str, float]]:
    """(side, right | wrong | missed | none, mm) for each side. Heads of which less than the limit of params is shown
    are not used, here as in a visit; what is missed counts where the whole head is shown."""
    rows = []
    for side in "LR":
        true, head = case.joints.get(side), found.heads.get(side)  # type: ignore[call-overload]
        if head is not None and coverage(case.image, head) >= 0.6:
            mm = np.inf
            if true is not None and true.state != "metal":
                mm = float(np.linalg.norm(head.centre - true.centre))
            rows.append((side, "right" if mm <= WRONG_MM else "wrong", mm))
        elif true is not None and true.state != "metal" and _shown(case.image, true) > 0.97:
            rows.append((side, "missed", np.nan))
        else:
            rows.append((side, "none", np.nan))
    return rows


def _shown(image: Volume, true: Hip) -> float:
    return coverage(image, Head(true.centre, true.radius, 1.0, 1.0, 1.0))


# ---- bodies ---------------------------------------------------------------------------------------------------------


def _body_of(kind: str, maker: str, rng: np.random.Generator) -> Body:
    if kind == "no hip":
        names = [*torsos.NO_HIPS, "knee", "skull", "abdomen"]
        number = int(rng.integers(len(names)))
        if number < len(torsos.NO_HIPS):
            make, fov = torsos.NO_HIPS[names[number]]
            return Body("torsos", {}, fov / 2, make(rng))
        at, size = rng.normal(0, 5, 3), float(rng.uniform(0.85, 1.15))
        other = {"knee": bodies.Knee(at, size), "skull": bodies.Head(at, size)}
        made = other.get(names[number]) or bodies.Abdomen(at, (float(165 * size), float(110 * size)))
        return Body("bodies", {}, {"knee": 85.0, "skull": 120.0, "abdomen": 190.0}[names[number]], made)
    size = {"child": rng.uniform(0.62, 0.78), "giant": rng.uniform(1.15, 1.28)}.get(kind, rng.uniform(0.82, 1.18))
    side = str(rng.choice(["L", "R"]))
    states = {
        "implant": {side: "metal"}, "two implants": {"L": "metal", "R": "metal"},
        "collapsed": {"L": "collapsed", "R": "collapsed"},
    }.get(kind, {})  # fmt: skip
    return {"torsos": _torso, "bodies": _pelvis, "phantom": _phantom}[maker](kind, float(size), states, rng)


def _torso(kind: str, size: float, states: dict[str, str], rng: np.random.Generator) -> Body:
    who = torsos.person(rng, size, states)
    extra = np.random.default_rng(rng.integers(1 << 31))

    def paint(field: tissues.Field) -> None:
        p = field.points
        if kind == "arms":
            for out in np.random.default_rng(1).permutation([1.0, -1.0])[: 1 + int(size * 100) % 2]:
                a = who.middle + [out * (who.width / 2 + 42), -10, 140]
                b = who.middle + [out * (who.width / 2 + 36), -25, -90]
                for tissue, thick in (("fat", 40), ("muscle", 33), ("compact", 11), ("yellow", 8)):
                    field.lay(tissues.rod(p, a, b, size * thick, size * 0.8 * thick), tissue)
        who.paint(field)
        if kind == "bladder":
            draws = np.random.default_rng(7)
            at = who.middle + size * np.array([draws.normal(0, 8), -25.0, 38.0])
            field.lay(tissues.lump(p, at, size * full), "water")
            for where in gut:
                field.lay(tissues.lump(p, who.middle + where, 23 * size), "fat")
                field.lay(tissues.lump(p, who.middle + where, 21 * size), "air" if where[0] > 0 else "grey")

    full, gut = extra.uniform(45, 66, 3), size * extra.uniform([-55, -50, 45], [55, 20, 120], (3, 3))
    joints = {side: Hip(j.centre, j.radius, j.state) for side, j in who.joints.items()}
    return Body("torsos", joints, who.width / 2, paint)


def _pelvis(kind: str, size: float, states: dict[str, str], rng: np.random.Generator) -> Body:
    metal = [side for side, state in states.items() if state == "metal"]
    person, hips = bodies.pelvis(rng, implant=metal[0] if metal else "")
    joints = {}
    for side, hip in hips.items():
        hip.implant = side in metal
        if states.get(side) == "collapsed":
            hip.lesion_deg, hip.lesion_tilt = float(rng.uniform(60, 85)), (float(rng.normal(5, 10)), 15.0)
        state = "metal" if hip.implant else "dead" if hip.lesion_deg else "sound"
        joints[side] = Hip(hip.centre, hip.radius, state)
    extra = []
    if kind == "arms":
        for out in (1.0, -1.0)[: 1 + int(rng.integers(2))]:
            extra.append((person.middle + [out * (person.half[0] + 45), -10.0, 0.0], 38.0))
    full = person.middle + [rng.normal(0, 6), -25.0, 38.0], rng.uniform(45, 64, 3)

    class More:
        def paint(self, canvas: bodies.Canvas) -> None:
            p = canvas.points
            for at, thick in extra:
                for tissue, radius in (("fat", thick), ("muscle", thick - 7), ("cortex", 11.0), ("marrow", 8.0)):
                    canvas.paint(bodies.tube(p, at[0], at[1], radius, radius), tissue)
            values = canvas.values.copy() if extra else None
            person.paint(canvas)
            if values is not None:  # the trunk is painted from the outside in; arms stay where it is not
                outside = bodies.tube(p, person.middle[0], person.middle[1], *person.half) > 2
                canvas.values[outside] = np.maximum(values, canvas.values)[outside]
            if kind == "bladder":
                canvas.paint(bodies.ellipsoid(p, *full), "fluid")

    return Body("bodies", joints, person.half[0], More())


def _phantom(kind: str, size: float, states: dict[str, str], rng: np.random.Generator) -> Body:
    hips = []
    for side in "LR":
        state = states.get(side) or str(rng.choice(["sound", "dead", "collapsed"], p=[0.4, 0.4, 0.2]))
        depth = {"collapsed": rng.uniform(3, 9)}.get(state, 0.0)
        hips.append({
            "side": side, "affected": state in ("dead", "collapsed"), "half_angle_deg": rng.uniform(25, 65),
            "lateral_tilt_deg": rng.normal(0, 14), "anterior_tilt_deg": rng.normal(16, 9),
            "interior": str(rng.choice(["fat", "fibrous", "mixed"])), "oedema": rng.uniform(0, 1.5),
            "effusion": rng.uniform(0, 2), "collapse_mm": depth, "implant": state == "metal",
            "mimic": str(rng.choice(["none", "physis", "island", "oedema", "cyst"])), "mimic_level": rng.uniform(0, 1),
            "vessel_length_mm": 45.0, "bifurcations": (9.0, 17.0), "state": state,
        })  # fmt: skip
    height, sex = 1.72 * size ** (1 / 0.8), str(rng.choice(["F", "M"]))
    weight = rng.uniform(18, 38) * height**2
    key = int(rng.integers(1 << 31))
    plan = StudyPlan((key,), (key, 1), 0, sex, height, weight, tuple(hips))
    scale, fat_mm, half_width, real, _ = pose(plan, np.random.default_rng([key, 10]))
    joints = {one["side"]: Hip(real[one["side"]].centre, real[one["side"]].radius, one["state"]) for one in hips}
    return Body("phantom", joints, half_width + scale * (60 + fat_mm), (kind, plan, key))


# ---- scans ----------------------------------------------------------------------------------------------------------


def _slab(kind: str, body: Body, rng: np.random.Generator) -> tissues.Slab:
    """How the stack is laid over the body."""
    centres = {side: joint.centre for side, joint in body.joints.items()}
    middle = np.mean([*centres.values()], axis=0) if centres else np.zeros(3)
    one = centres.get(str(rng.choice(["L", "R"])), middle)
    plane = str(rng.choice(["coronal", "axial", "sagittal"], p=[0.5, 0.25, 0.25]))
    wide = float(np.clip(2 * body.half_width * rng.uniform(1.0, 1.15), 300, 460))
    if kind in ("coronal", "oblique", "arms", "child", "giant", "bladder", "implant", "collapsed", "cut"):
        plane = "axial" if kind not in ("coronal", "oblique") and rng.random() < 0.3 else "coronal"
    elif kind in ("axial", "sagittal"):
        plane = kind
    elif kind.startswith("one "):
        plane = kind[4:]
    elif kind == "contrast":
        plane = "coronal"
    small = kind.startswith("one ") or (kind in ("thick", "stretched", "noisy", "fluid") and rng.random() < 0.4)
    small = small or (plane == "sagittal" and kind != "sagittal" and rng.random() < 0.8)
    fov = float(rng.uniform(160, 260)) if small else 2 * body.half_width if kind == "no hip" else wide
    at = one + rng.normal(0, 6, 3) if small and kind != "no hip" else middle + rng.normal(0, 7, 3)
    step = float(rng.uniform(7, 15) if kind == "thick" else rng.uniform(3, 5.2))
    step = float(rng.uniform(1.3, 2.0)) if kind == "contrast" else step
    deep = rng.uniform(58, 90) if plane != "sagittal" or small else 2 * np.ptp([c[0] for c in centres.values()] or 90.0)
    if plane == "sagittal" and not small and centres:
        deep = float(np.ptp([c[0] for c in centres.values()])) + rng.uniform(60, 90)
        fov, step = float(rng.uniform(220, 380)), max(step, 4.0)
    if kind == "cut":
        at = at + rng.normal(0, 1, 3) * [60, 22, 50] * (1 if plane == "coronal" else 0.8)
    if kind == "elsewhere":
        at = at + [0.0, 0.0, float(rng.choice([rng.uniform(100, 150), -rng.uniform(110, 180)]))]
        fov = min(fov, 150.0) if plane != "axial" else fov  # so that the heads stay out of it
    matrix = np.array([1, 1]) * int(rng.choice([80, 96, 112, 128, 144]))
    if kind == "stretched":
        matrix = np.array(rng.permutation([1.0, rng.uniform(0.35, 0.6)]) * matrix).astype(int)
    tall = 0.72 if plane == "axial" and not small else 1.0
    off = rng.normal(0, 1, 3) * (16 if kind == "oblique" else 4)
    shape = (max(int(matrix[0] * tall), 24), int(matrix[1]))
    count = int(max(round(deep / step), 5))
    return tissues.Slab(plane, (fov * tall, fov), shape, count, step, 0.88 * step, at, tuple(off))


def _scan_torsos(paint: Any, slab: tissues.Slab, role: str, noise: float, rng: np.random.Generator) -> Volume:
    played = {"t1": tissues.T1, "stir": tissues.STIR, "enhanced": tissues.ENHANCED_3D}.get(role, tissues.T2_FS)
    coil = float(rng.uniform(0.2, 1.0))
    return tissues.scanned(paint, slab, [played], rng, tissues.Faults(noise=noise, coil=coil))[0]


def _scan_bodies(body: Any, slab: tissues.Slab, role: str, noise: float, rng: np.random.Generator) -> Volume:
    affine, shape = slab.affine(), (slab.count, *slab.matrix)
    channel = {"t1": "t1", "enhanced": "contrast"}.get(role, "fluid")
    index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1)
    clean = np.zeros(shape, np.float32)
    for away in _through(slab):
        points = (index + [away / slab.step, 0, 0]) @ affine[:3, :3].T + affine[:3, 3]
        canvas = bodies.Canvas(points.astype(np.float32), soft=0.5 * slab.fov[1] / slab.matrix[1])
        body.paint(canvas)
        clean += canvas.values[..., bodies.ROLES.index(channel)] / len(_through(slab))
    return _seen(clean, affine, 0.33 * noise, rng)


def _scan_phantom(made: Any, slab: tissues.Slab, role: str, noise: float, rng: np.random.Generator) -> Volume:
    kind, plan, key = made
    affine, shape = slab.affine(), (slab.count, *slab.matrix)
    channel = CHANNELS[{"t1": "t1", "enhanced": "ce"}.get(role, "stir")]
    clean = np.zeros(shape, np.float32)
    for away in _through(slab):
        moved = affine.copy()
        moved[:3, 3] += affine[:3, 0] * away / slab.step
        draws = np.random.default_rng([key, 10])
        scale, fat_mm, half_width, states, pelvis = pose(plan, draws)
        canvas = Canvas.blank(shape, moved, (channel,))
        warps = _body(canvas, pelvis, states, scale, fat_mm, half_width, plan, draws)
        for side, state in states.items():
            phantom.bones(canvas, state, warps[side], draws)
            phantom.head(canvas, state, draws)
            if state.implant:
                phantom.implant(canvas, state)
        for shape_, layers in _extra(kind, scale, half_width + scale * (60 + fat_mm), key):
            draw(canvas, shape_, pelvis, 1.0, layers=layers)
        clean += canvas.signal[0] / len(_through(slab))
    return _seen(clean, affine, 0.33 * noise, rng)


def _extra(kind: str, scale: float, edge: float, key: int) -> list[tuple[Any, Any]]:
    rng = np.random.default_rng([key, 3])
    if kind == "arms":
        limb = partial(Capsule, "fat")
        layers = ((0.0, "fat"), (-7.0, "muscle"), (-27.0, "cortex"), (-30.0, "marrow"))
        outs = (1.0, -1.0)[: 1 + int(rng.integers(2))]
        return [(limb((o * (edge + 45), -10, 150), (o * (edge + 40), -20, -120), 38.0, 34.0), layers) for o in outs]
    if kind == "bladder":
        half = tuple(float(v) for v in scale * rng.uniform(45, 62, 3))
        return [(Ellipsoid("fluid", (0.0, -25 * scale, 42 * scale), half), ((0.0, "fluid"),))]  # type: ignore[arg-type]
    return []


def _through(slab: tissues.Slab) -> tuple[float, ...]:
    return (0.0,) if slab.thick < 2.5 else tuple(slab.thick * share for share in (-0.3, 0.0, 0.3))


def _seen(clean: NDArray[np.float32], affine: NDArray[np.float64], noise: float, rng: np.random.Generator) -> Volume:
    """Coils, Rician noise and a gain."""
    unit = np.stack(np.meshgrid(*(np.linspace(-0.5, 0.5, n) for n in clean.shape), indexing="ij"), -1)
    bias = np.exp(unit @ rng.normal(0, 0.35, 3) + rng.normal(0, 0.5) * (unit[..., 1:] ** 2).sum(-1))
    noisy = np.hypot(clean * bias + rng.normal(0, noise, clean.shape), rng.normal(0, noise, clean.shape))
    return Volume((noisy * rng.uniform(400, 2500)).astype(np.uint16), affine)
