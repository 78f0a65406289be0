"""Retain Safe Private: private elements that are known to hold numbers of the acquisition, and nothing else.

rules/safe_private.csv names them by creator, group and element; the creator must be written exactly so, the VR must be
the one named (or UN, where a gateway forgot it), and the value must be what that VR says. The rest goes.
"""

from __future__ import annotations

import csv
from functools import cache
from typing import TYPE_CHECKING

from tasks.anonymize import policy

if TYPE_CHECKING:
    from tasks.anonymize.values import Patient


Elements = dict[int, tuple[str, int]]
"""element within the block -> (VR, most values)"""
Blocks = dict[int, Elements]
"""group and block number, (gggg << 8 | nn), -> the safe elements of its creator"""


@cache
def table() -> dict[tuple[int, str], Elements]:
    """(group, creator) -> the safe elements of its block."""
    found: dict[tuple[int, str], Elements] = {}
    with open(policy.RULES / "safe_private.csv", encoding="utf-8", newline="") as handle:
        for row in csv.DictReader(handle):
            block = found.setdefault((int(row["group"], 16), row["creator"]), {})
            block[int(row["element"], 16)] = (row["vr"], int(row["most"]))
    return found


def elements_of(group: int, creator: str) -> Elements | None:
    """The safe elements of a creator's block, or None when nothing of that creator is known to be safe."""
    return table().get((group, creator))


def stays(known: tuple[str, int], vr: bytes, raw: bytes, patient: Patient) -> bool:
    """Is this the value of the safe element that `known` (VR, most values) describes?"""
    expected, most = known
    if vr not in (expected.encode(), b"UN", b""):
        return False
    size = policy.BYTES.get(expected)
    if size is not None:
        return len(raw) <= size * most and len(raw) % size == 0
    operation = {"DS": policy.NUMBER, "IS": policy.NUMBER, "CS": policy.WORD}.get(expected)
    if operation is None or len(raw) > 17 * most:
        return False
    return patient.value(operation, policy.PATIENT_ID, expected, raw) is raw
