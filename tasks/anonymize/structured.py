"""Clean Structured Content: Table E.3.4-1 of PS3.15 (2026d), which says per concept what happens to a content item.

Works on the items of a content sequence (or of an acquisition context) whose values the policy has cleaned already, and
adds what only the concept tells: an item that names "Observer Name" goes, whatever its value was cleaned to. Items of a
concept that the table does not name keep their cleaned value.
"""

from __future__ import annotations

import csv
import struct
from functools import cache

from tasks.anonymize import policy
from tasks.anonymize.params import Params, options
from tasks.store import dicom

CONTENT = frozenset({0x0040A730, 0x00400555})
CONCEPT_NAME, CODE_VALUE, SCHEME = 0x0040A043, 0x00080100, 0x00080102
DUMMIES = {
    0x0040A160: b"REMOVED ",
    0x0040A123: b"ANONYMIZED",
    0x0040A120: b"19000101",
    0x0040A121: b"19000101",
    0x0040A122: b"000000",
}
"""Text, person, date and time. UIDs are keyed, which is a dummy already."""
VALUES = frozenset({0x0040A168, 0x0040A300, 0x00081199, 0x00700022})
"""Values of which there is no dummy: codes, numbers, references, coordinates."""


@cache
def table(params: Params) -> dict[tuple[str, str], str]:
    """(scheme, code) -> X or D, for the concepts that no chosen option keeps or cleans."""
    chosen = options(params)
    actions = {}
    with open(policy.RULES / "e3_4_1.csv", encoding="utf-8", newline="") as handle:
        for row in csv.DictReader(handle):
            if not any(row.get(name) for name in chosen):
                actions[row["scheme"], row["code"]] = row["basic"][-1]
    return actions


def cleaned(items: bytes, params: Params, explicit: bool, big: bool) -> bytes:
    """The items (lengths given) of a content sequence, by their concepts."""
    head = struct.Struct(">HHL" if big else "<HHL")
    kept, at = [], 0
    while at < len(items):
        _, _, length = head.unpack_from(items, at)
        content = items[at + 8 : at + 8 + length]
        at += 8 + length
        new = _item(content, params, explicit, big)
        if new is not None:
            kept.append(head.pack(0xFFFE, 0xE000, len(new)) + new)
    return b"".join(kept)


def _item(content: bytes, params: Params, explicit: bool, big: bool) -> bytes | None:
    layout = list(dicom.elements(content, 0, len(content), explicit, big))
    action = table(params).get(_concept(content, layout, explicit, big))
    if action is None:
        return content
    if action == "X" or any(element[0] in VALUES for element in layout):
        return None
    pieces, run = [], 0
    for tag, _, _, value, stop, _ in layout:
        if tag in DUMMIES:
            # In the place of the old value: its length stands in the two or four bytes before it.
            wide = not explicit or content[value - 8 : value - 6] in dicom.LONG_VRS
            size = struct.pack((">" if big else "<") + ("L" if wide else "H"), len(DUMMIES[tag]))
            pieces += [content[run : value - len(size)], size, DUMMIES[tag]]
            run = stop
    return b"".join([*pieces, content[run:]])


def _concept(content: bytes, layout: list[dicom.Element], explicit: bool, big: bool) -> tuple[str, str]:
    """(scheme, code) of an item's concept name."""
    for tag, _, _, value, stop, _ in layout:
        if tag == CONCEPT_NAME and stop - value > 8:
            code = {
                inner: content[start:end].strip(b" \0").decode("ascii", "replace")
                for inner, _, _, start, end, _ in dicom.elements(content, value + 8, stop, explicit, big)
            }
            return code.get(SCHEME, ""), code.get(CODE_VALUE, "")
    return "", ""
