"""Which series plays which role of the protocol: by what the scanner did, never by what someone called it."""

from __future__ import annotations

from dataclasses import dataclass
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


DEEP_MM = 45.0
"""A stack this deep shows a whole femoral head."""


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

    @property
    def plane(self) -> str:
        across = np.cross(self.volume.affine[:3, 1], self.volume.affine[:3, 2])
        return PLANES[int(np.abs(across).argmax())]

    @property
    def width_mm(self) -> float:
        """Extent from left to right in the patient."""
        return float(np.abs(self.volume.affine[0, :3]) @ np.array(self.volume.array.shape))


def candidate(stack: Stack, volume: Volume, measured: Measured, frames: list[Frame], params: Params) -> Candidate:
    """Find the first role whose rules fit the stack's physics."""
    sops = tuple(dict.fromkeys(frame.sop for frame in frames))
    physics = stack.physics | {"thickness_mm": stack.frames[0].thickness or measured.gap_mm}
    if volume.array.shape[0] < params.min_slices:
        return Candidate(stack, volume, measured, "", 0, f"{volume.array.shape[0]} slices: a scout", sops)
    if physics["derived"] and "MPR" in physics["kind"]:
        return Candidate(stack, volume, measured, "", 0, "a reformat of another series", sops)
    whys = []
    for role in ("contrast", "fluid", "t1"):  # a rule that needs more comes first
        for number, rule in enumerate(params.roles[role].rules if role in params.roles else ()):
            why = misfit(rule, physics)
            if not why:
                return Candidate(stack, volume, measured, role, number, "", sops)
            whys.append((role, why))
    why = "; ".join(f"{role}: {why}" for role, why in whys)
    return Candidate(stack, volume, measured, "", 0, f"no role fits ({why})", sops)


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
