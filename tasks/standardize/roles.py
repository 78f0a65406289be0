"""Which series plays which role of the protocol: by what the scanner did, never by what someone called it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tasks.domain.volume import Volume
from tasks.standardize.params import Params, Rule
from tasks.store.frames import Frame
from tasks.store.series import Measured, Stack

PLANES = ("sagittal", "coronal", "axial")
"""Named by the LPS axis (x, y, z) that the slices' normal is nearest to."""
WIDE_MM = 280.0
"""A series this wide from left to right shows both hips."""

BESIDE_MM = 100.0
"""Series narrower than that, and this far apart from left to right, show a hip each."""

DEEP_MM = 45.0
"""A stack this deep shows a whole femoral head."""

COMPUTED = {
    "a subtraction": {"SUBTRACT", "SUBTRACTION", "SUBTRACTED", "SUB"},
    "a projection": {"PROJECTION IMAGE", "MIP", "MAX_IP", "MINIP", "MIN_IP", "MNIP", "MAXIMUM INTENSITY", "VRT"},
    "a reformat of another series": {"MPR", "REFORMATTED", "CSA MPR", "RESAMPLED"},
    "a phase image": {"P", "PHASE", "PHASE MAP", "VELOCITY", "VELOCITY MAP", "VELO", "FLOW_ENCODED"},
    "a real or imaginary part": {"R", "I", "REAL", "IMAGINARY"},
    "a fat image": {"FAT", "F"},
    "an opposed phase image": {"OPP_PHASE", "OUT_PHASE", "OUT_OF_PHASE", "OPPOSED_PHASE", "OPPOSED", "OP", "O"},
    "a map": {"ADC", "FA", "TRACEW", "TRACE", "T1 MAP", "T1_MAP", "T2 MAP", "T2_MAP", "T2_STAR MAP", "R2_MAP", "R2 MAP",
              "B0 MAP", "B1 MAP", "FAT_FRACTION", "FATFRACTION", "FF", "WATER_FRACTION", "PERFUSION", "TTP", "RELCBV"},
}  # fmt: skip
"""Words of an image type by which an image is computed from others, or shows something else than signal."""


@dataclass(frozen=True)
class Candidate:
    """A stack that is a volume. role is '' where no rule fits, and `why` then says what did not."""

    stack: Stack
    volume: Volume
    measured: Measured
    role: str
    rule: int
    why: str
    sops: tuple[str, ...]
    """SOPInstanceUIDs in the order of the volume's slices; one for an enhanced object."""
    numbers: tuple[int, ...] = ()
    """Of the frames of an enhanced object, from 1, in the order of the volume's slices."""

    @property
    def plane(self) -> str:
        across = np.cross(self.volume.affine[:3, 1], self.volume.affine[:3, 2])
        return PLANES[int(np.abs(across).argmax())]

    @property
    def width_mm(self) -> float:
        """Extent from left to right in the patient."""
        return float(np.abs(self.volume.affine[0, :3]) @ np.array(self.volume.array.shape))

    def beside(self, other: Candidate) -> bool:
        """This series shows one hip, and `other` the other one."""
        middles = [c.volume.to_lps((np.array(c.volume.array.shape) - 1) / 2)[0] for c in (self, other)]
        return max(self.width_mm, other.width_mm) < WIDE_MM and abs(middles[0] - middles[1]) > BESIDE_MM


def candidate(stack: Stack, volume: Volume, measured: Measured, frames: list[Frame], params: Params) -> Candidate:
    """Find the first role whose rules fit the stack's physics."""
    sops = tuple(dict.fromkeys(frame.sop for frame in frames))
    numbers = tuple(frame.number + 1 for frame in frames) if len(sops) == 1 else ()
    physics = stack.physics | {"thickness_mm": stack.frames[0].thickness or measured.gap_mm}
    if volume.array.shape[0] < params.min_slices:
        return Candidate(stack, volume, measured, "", 0, f"{volume.array.shape[0]} slices: a scout", sops, numbers)
    words = set(physics["kind"].split("+"))
    for what, named in COMPUTED.items():
        if words & named:
            return Candidate(stack, volume, measured, "", 0, f"{what}, by its image type", sops, numbers)
    if (physics["b_value"] or 0) > 50:
        return Candidate(stack, volume, measured, "", 0, f"diffusion weighted, b {physics['b_value']:g}", sops, numbers)
    whys = []
    for role in ("contrast", "fluid", "t1"):  # a rule that needs more comes first
        for number, rule in enumerate(params.roles[role].rules if role in params.roles else ()):
            why = misfit(rule, physics)
            if not why:
                return Candidate(stack, volume, measured, role, number, "", sops, numbers)
            whys.append((role, why))
    why = "; ".join(f"{role}: {why}" for role, why in whys)
    return Candidate(stack, volume, measured, "", 0, f"no role fits ({why})", sops, numbers)


def misfit(rule: Rule, physics: dict[str, Any]) -> str:
    """What keeps `physics` from fitting `rule`; empty when it fits."""
    for name in ("tr_ms", "te_ms", "ti_ms", "thickness_mm"):
        wanted, value = getattr(rule, name), physics[name]
        if wanted is not None and (value is None or not wanted[0] <= value <= wanted[1]):
            return f"{name} {'missing' if value is None else format(value, 'g')}"
    for name in ("fat_suppressed", "contrast", "three_d"):
        wanted = getattr(rule, name)
        if wanted is not None and bool(physics[name]) != wanted:
            return f"{name} {str(bool(physics[name])).lower()}"
    return ""


def rank(one: Candidate, params: Params) -> tuple:
    """Smaller is preferred: wide enough for both hips, better rule, preferred plane, deep enough for a whole head,
    finer voxels, then the brighter (the enhanced phase of several), then by UID so that the order is always the same.
    """
    plane = params.planes.index(one.plane) if one.plane in params.planes else len(params.planes)
    depth = one.volume.array.shape[0] * float(one.volume.spacing[0])
    fineness = round(float(np.prod(one.volume.spacing)), 3)
    brightness = -round(float(one.volume.array[::2, ::4, ::4].mean()), 3)
    return (one.width_mm < WIDE_MM, one.rule, plane, depth < DEEP_MM, fineness, brightness, one.stack.series)


def told(stacks: list[Stack]) -> list[Stack]:
    """The stacks of one study with `contrast` decided. An agent without a value says that contrast was given where
    other series of the study have no agent at all, and nothing where every series has it, or some name theirs."""
    said = {stack.physics["contrast"] for stack in stacks}
    empty_says = True not in said and False in said
    return [
        replace(stack, physics=stack.physics | {"contrast": empty_says}) if stack.physics["contrast"] is None else stack
        for stack in stacks
    ]
