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


@cache
def table() -> dict[tuple[int, str], dict[int, tuple[str, int]]]:
    """(group, creator) -> element within the block -> (VR, most values)."""
    found: dict[tuple[int, str], dict[int, tuple[str, int]]] = {}
    with open(policy.RULES / "safe_private.csv", encoding="utf-8", newline="") as handle:
        for row in csv.DictReader(handle):
            block = found.setdefault((int(row["group"], 16), row["creator"]), {})
            block[int(row["element"], 16)] = (row["vr"], int(row["most"]))
    return found


def is_creator(group: int, creator: str) -> bool:
    return (group, creator) in table()


def stays(group: int, element: int, creator: str, vr: str, raw: bytes, patient: Patient) -> bool:
    """Does this private element stay as it is?"""
    known = table().get((group, creator), {}).get(element)
    if known is None:
        return False
    expected, most = known
    if vr not in (expected, "UN", ""):
        return False
    size = policy._BYTES.get(expected)
    if size is not None:
        return len(raw) <= size * most and len(raw) % size == 0
    operation = {"DS": policy.NUMBER, "IS": policy.NUMBER, "CS": policy.WORD}.get(expected)
    if operation is None or len(raw) > 17 * most:
        return False
    return patient.value(operation, policy.PATIENT_ID, expected, raw) is raw
