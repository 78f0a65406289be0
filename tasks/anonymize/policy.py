"""What happens to each element: Table E.1-1 of PS3.15 (2026d) under the options chosen, then the allow-list by IOD.

An element stays only if a rule of the table keeps or cleans it, or a module of the object's IOD names it and its
value can be checked by VR (below). Everything else goes: unknown tags, group lengths, private groups, overlays, curves,
icons, signatures, colour profiles. `Policy.operation` answers for one (tag, VR, place); the answers are cached.

Data: rules/e1_1.csv (the table, edition 2026d) and rules/iods.json (which attributes the modules of an IOD name, and
of which type; PS3.3 by way of highdicom 0.28.2, MIT).
"""

from __future__ import annotations

import csv
import json
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pydicom.datadict import DicomDictionary

from tasks.anonymize.params import Params, options

EDITION = "PS3.15 2026d"
_POINT = re.compile(r"[0-9A-F]{8}")
RULES = Path(__file__).parent / "rules"

# Operations on one element. Those of KEEP_OPS leave bytes that the VR itself bounds; the others are in values.py.
KEEP = "keep"
DROP = "drop"
EMPTY = "empty"
DUMMY = "dummy"
UID = "uid"
KEPT_UID = "kept_uid"
SUBJECT = "subject"
DATE = "date"
TIME = "time"
AGE = "age"
TEXT = "text"
TECHNICAL = "technical"
CODE = "code"
WORD = "word"
NUMBER = "number"
SEQUENCE = "sequence"
PIXELS = "pixels"
CREATOR = "creator"

CONTRAST_AGENT = 0x00180010
"""That contrast was given must survive even when the words for it do not."""
PATIENT_NAME, PATIENT_ID, TIMEZONE = 0x00100010, 0x00100020, 0x00080201
PIXEL_DATA = frozenset({0x7FE00010, 0x7FE00008, 0x7FE00009})

NUMERIC_VRS = frozenset({"FD", "FL", "SL", "SS", "SV", "UL", "US", "UV", "AT"})
"""Binary numbers: they cannot hold text of a length that matters."""
BYTES = {"FD": 8, "FL": 4, "SL": 4, "SS": 2, "SV": 8, "UL": 4, "US": 2, "UV": 8, "AT": 4}
TEXT_VRS = frozenset({"LO", "SH", "ST", "LT", "UT", "UC"})
TABLES_OF_NUMBERS = frozenset(
    {0x00281201, 0x00281202, 0x00281203, 0x00281204, 0x00281221, 0x00281222, 0x00281223, 0x00281224, 0x00283006}
    | {0x00660016, 0x00660023, 0x00660024, 0x00660025, 0x00660029, 0x00660040, 0x00660041, 0x00660043, 0x00640009}
)
"""OB, OW, OF, OL outside pixel data that stay: palettes and LUTs, surface points and indices, vector grids."""

TECHNICAL_TEXT = frozenset(
    {0x00080070, 0x00081090, 0x00181020, 0x00180024, 0x00189005, 0x00181250, 0x00181251, 0x00189041, 0x00189051}
    | {0x00181016, 0x00181018, 0x00181019, 0x00181210, 0x00189315, 0x00181160, 0x00181261}
)
"""Manufacturer, model, software versions, sequence names, coils, kernels, filters: made by machines, and research
needs them word for word. They are kept while they look like it (values.technical)."""
CODES = frozenset({0x00080100, 0x00080102, 0x00080103, 0x00080104, 0x00080119, 0x00080120})
MARKS = frozenset({0x00120062, 0x00120063, 0x00120064, 0x00280303})
"""Written anew in every released file; whatever the source says there goes."""

EXTRA_GROUPS = frozenset({0x0018, 0x0020, 0x0028, 0x0040, 0x0054})
EXTRA_VRS = NUMERIC_VRS | {"DS", "IS", "CS", "SQ"}
EXTRAS = frozenset({0x00281054, 0x00409096, 0x004008EA, 0x00409210})
"""Rescale type and real world value mapping, which vendors write into classic MR images."""


@dataclass(frozen=True)
class Rule:
    """One row of Table E.1-1."""

    basic: str
    options: dict[str, str] = field(hash=False)


@cache
def table() -> dict[int, Rule]:
    """Table E.1-1 by tag; the rows for repeating and private groups are handled by `Policy` itself."""
    rules = {}
    with open(RULES / "e1_1.csv", encoding="utf-8", newline="") as handle:
        for row in csv.DictReader(handle):
            if not _POINT.fullmatch(row["tag"]):
                continue
            kept = {name: value for name, value in row.items() if name.startswith(("retain_", "clean_")) and value}
            rules[int(row["tag"], 16)] = Rule(row["basic"], kept)
    return rules


@cache
def _iods() -> dict[str, Any]:
    return json.loads((RULES / "iods.json").read_text(encoding="utf-8"))


def known_kinds() -> dict[str, tuple[str, str]]:
    """SOP class -> (IOD, family), all that this edition knows."""
    return {uid: (iod, family) for uid, (iod, family) in _iods()["classes"].items()}


def kind_of(sop_class: str) -> tuple[str, str] | None:
    """(IOD, family) of a storage SOP class, or None when it is not one that this edition knows."""
    known = _iods()["classes"].get(sop_class)
    return (known[0], known[1]) if known else None


@cache
def attributes(iod: str) -> tuple[dict[int, str], dict[int, str]]:
    """tag -> type (1, 2, 3) at the top level and inside sequences, over all modules of the IOD."""
    levels: tuple[dict[int, str], dict[int, str]] = ({}, {})
    data = _iods()
    for module in data["iods"][iod]:
        for level, packed in zip(levels, data["modules"][module], strict=True):
            for kind, tags in packed.items():
                for text in tags.split():
                    tag = int(text, 16)
                    level[tag] = min(kind, level.get(tag, "3"))
    return levels


@cache
def extras() -> frozenset[int]:
    """Numbers and defined terms of acquisition that any image IOD names: vendors write those of the enhanced objects
    into classic ones (b-values, rescale in MR), and a number in a numeric VR hides nothing."""
    data = _iods()
    found: set[int] = set()
    for iod, modules in data["iods"].items():
        if iod.endswith("-image"):
            for module in modules:
                for packed in data["modules"][module]:
                    found |= {int(tag, 16) for tags in packed.values() for tag in tags.split()}
    return EXTRAS | {tag for tag in found if tag >> 16 in EXTRA_GROUPS and vr_of(tag) in EXTRA_VRS}


def vr_of(tag: int) -> str:
    """The VR by the data dictionary, '' when it does not know the tag; of several ('US or SS') the first."""
    entry = DicomDictionary.get(tag)
    return entry[0][:2] if entry else ""


@cache
def policy_for(iod: str, params: Params) -> Policy:
    return Policy(iod, params)


@dataclass
class Policy:
    """The decisions for one IOD under one set of options."""

    iod: str
    params: Params

    def __post_init__(self) -> None:
        self.options = options(self.params)
        self.top, self.nested = attributes(self.iod)
        self.learned: dict[tuple[bool, str], dict[Any, Any]] = {}
        """What the rewriter has asked before, by (nested, encoding): its own form, kept with the policy it is of."""

    def operation(self, tag: int, vr: str, nested: bool) -> str:
        """What to do with the element `tag` of value representation `vr` ('' in implicit files)."""
        group = tag >> 16
        if group & 1:
            return CREATOR if self.params.retain_safe_private and group > 8 else DROP
        expected = vr_of(tag)
        if group < 8 or group == 0xFFFC or not expected or tag & 0xFFFF == 0 or tag in MARKS:
            return DROP
        if tag in PIXEL_DATA:
            return DROP if nested else PIXELS
        vr = vr if vr and vr != "UN" else expected
        if not nested and tag in (PATIENT_NAME, PATIENT_ID):
            return SUBJECT
        rule = table().get(tag)
        if rule is None:
            known = self.nested if nested else self.top
            if tag not in known and tag not in self.top and tag not in extras():
                return DROP
            operation = by_vr(tag, vr)
            return KEPT_UID if operation == UID and self.params.retain_uids else operation
        return self._ruled(rule, tag, vr, nested)

    def when_gone(self, tag: int, nested: bool) -> str:
        """What becomes of an element of whose value nothing may stay: what its type in the IOD asks for."""
        if tag == CONTRAST_AGENT:
            return DUMMY
        return {"1": DUMMY, "2": EMPTY, "3": DROP}[(self.nested if nested else self.top).get(tag, "3")]

    def longest(self, tag: int, vr: str) -> int:
        """Bytes that a KEEP element of binary numbers may have: more than its VM allows could spell text."""
        entry = DicomDictionary.get(tag)
        if entry is None or tag in TABLES_OF_NUMBERS:
            return 1 << 31
        most = entry[1].split("-")[-1]
        return BYTES.get(vr, 8) * int(most) if most.isdigit() else 1 << 20

    def _ruled(self, rule: Rule, tag: int, vr: str, nested: bool) -> str:
        said = {rule.options[name] for name in self.options if name in rule.options}
        if "K" in said:
            # What may be kept is still checked by VR where it has a form; identities that a site chose to keep are not.
            chosen = {name for name in self.options if rule.options.get(name) == "K"}
            if vr == "UI":
                return KEPT_UID
            verbatim = chosen & {"retain_device_identity", "retain_institution_identity"} and vr in TEXT_VRS | {"CS"}
            return KEEP if verbatim else by_vr(tag, vr)
        if "C" in said:
            return by_vr(tag, vr)
        action = rule.basic
        if action == "U":
            return UID
        if action.endswith("U*"):
            return SEQUENCE
        if "/" in action:
            kind = (self.nested if nested else self.top).get(tag, "3")
            choices = action.split("/")
            action = {"1": choices[-1], "2": "Z" if "Z" in choices else choices[-1], "3": choices[0]}[kind]
            action = choices[-1] if action not in choices else action
        return {"X": DROP, "Z": EMPTY, "D": DUMMY}[action]


def by_vr(tag: int, vr: str) -> str:
    """What an element that may stay undergoes, by what its VR can hide. C of the table is the same."""
    if tag in CODES:
        return CODE
    if tag in TECHNICAL_TEXT:
        return TECHNICAL
    if tag == TIMEZONE:
        return TIME
    if tag in TABLES_OF_NUMBERS or vr in NUMERIC_VRS:
        return KEEP
    if vr in TEXT_VRS:
        return TEXT
    return _BY_VR.get(vr, DROP)


_BY_VR = {
    "SQ": SEQUENCE,
    "UI": UID,
    "DA": DATE,
    "DT": DATE,
    "TM": TIME,
    "AS": AGE,
    "CS": WORD,
    "DS": NUMBER,
    "IS": NUMBER,
    "PN": EMPTY,
}
