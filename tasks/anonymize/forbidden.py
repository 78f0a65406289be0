"""What the verifier forbids in a released file, whoever it is of. Reads Table E.1-1 and the word list by itself."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from tasks.anonymize.params import Params, options

_RULES = Path(__file__).parent / "rules"
_SELECTOR_UN = 0x0072006D
_TEMPORAL = {"modified": b"MODIFIED", "full": b"UNMODIFIED", "removed": b"REMOVED"}
_BULK = frozenset((b"OB", b"OW", b"OF", b"OD", b"OL", b"OV"))
_BULK_TAGS = frozenset(
    {0x7FE00010, 0x7FE00008, 0x7FE00009, 0x00281201, 0x00281202, 0x00281203, 0x00281204, 0x00281221, 0x00281222}
    | {0x00281223, 0x00281224, 0x00283006, 0x00660016, 0x00660023, 0x00660024, 0x00660025, 0x00660029, 0x00660040}
    | {0x00660041, 0x00660043, 0x00640009}
)
_MACHINE_TEXT = frozenset(
    {0x00080070, 0x00081090, 0x00181020, 0x00180024, 0x00189005, 0x00181250, 0x00181251, 0x00189041, 0x00189051}
    | {0x00181016, 0x00181018, 0x00181019, 0x00181210, 0x00189315, 0x00181160, 0x00181261}
)
_CODE_TEXT = frozenset({0x00080100, 0x00080102, 0x00080103, 0x00080119, 0x00080120})
_METHOD = b"osteoflow: PS3.15 2026d"
_CHARACTER_SET = re.compile(rb"((ISO_IR \d+|ISO 2022 IR \d+|GB18030|GBK)? *\\?)+")
_OWN_TEXT = {b"REMOVED", b"ANONYMIZED", b"OTHER", b"urn:x"}
_WORD = re.compile(r"\d{1,3}[.,]\d{1,2}[a-z]+|[^\W_]+", re.IGNORECASE)
_SHAPE = re.compile(r"[234]d|\d{1,3}([.,]\d{1,2})?(mm|cm|ms|t|deg|sec|min)|(te|tr|ti|fa)\d{1,5}|b\d{1,4}|p\d")
_CODE = re.compile(rb"[A-Za-z%/{}\[\]0-9*.^-]{0,20}")
_SUSPECT = re.compile(rb"\d{7,}|@|\^|\b(?:dr|prof|herr|frau|mrs|by|von|klinik\w*|hospital|clinic|tel)\b", re.IGNORECASE)


STATED = frozenset({0x00080016, 0x00080018, 0x00100010, 0x00100020, 0x00120062, 0x00120063, 0x00280303})
"""What `judge` looks for over the whole file; every other element is judged alone, or by its private creator."""


@dataclass(frozen=True)
class Found:
    """A released file as the verifier's parser sees it."""

    meta: list[tuple[tuple[int, ...], int, bytes, bytes]]
    elements: list[tuple[tuple[int, ...], int, bytes, bytes]]
    preamble: bytes
    trailing: int


@lru_cache(maxsize=1)
def vocabulary() -> frozenset[str]:
    topics = json.loads((_RULES / "vocabulary.json").read_text(encoding="utf-8"))
    return frozenset(word for words in topics.values() for word in words.split())


@lru_cache(maxsize=1)
def _safe_private() -> dict[tuple[int, str], frozenset[int]]:
    blocks: dict[tuple[int, str], set[int]] = {}
    with open(_RULES / "safe_private.csv", encoding="utf-8", newline="") as handle:
        for row in csv.DictReader(handle):
            blocks.setdefault((int(row["group"], 16), row["creator"]), set()).add(int(row["element"], 16))
    return {key: frozenset(value) for key, value in blocks.items()}


@lru_cache(maxsize=8)
def _table(chosen: tuple[str, ...]) -> dict[int, str]:
    """tag -> the basic action, for the rows where no chosen option says keep or clean."""
    actions = {}
    with open(_RULES / "e1_1.csv", encoding="utf-8", newline="") as handle:
        for row in csv.DictReader(handle):
            if re.fullmatch("[0-9A-F]{8}", row["tag"]) and not any(row[name] for name in chosen):
                actions[int(row["tag"], 16)] = row["basic"]
    return actions


def judge(found: Found, params: Params, subject: str, good: set[Any]) -> Iterator[str]:
    """`good`: elements in which nothing was found before under the same parameters and subject; it grows."""
    if found.preamble.strip(b"\0"):
        yield "preamble"
    if found.trailing:
        yield "trailing bytes"
    if [tag & 0xFFFF for _, tag, _, _ in found.meta] != [0, 1, 2, 3, 0x10, 0x12, 0x13]:
        yield "file meta"
    top = {tag: raw.strip(b" \0") for path, tag, _, raw in found.elements if tag in STATED and not path}
    meta = {tag: raw.strip(b" \0") for _, tag, _, raw in found.meta}
    if meta.get(0x00020013) != b"OSTEOFLOW_1" or not meta.get(0x00020012, b"").startswith(b"2.25."):
        yield "file meta"
    if meta.get(0x00020003) != top.get(0x00080018) or meta.get(0x00020002) != top.get(0x00080016):
        yield "file meta"
    marked = {0x00120062: b"YES", 0x00280303: _TEMPORAL[params.longitudinal]}
    if any(top.get(tag) != value for tag, value in marked.items()) or not top.get(0x00120063, b"").startswith(_METHOD):
        yield "no mark (0012,0062)"
    if top.get(0x00100010) != subject.encode() or top.get(0x00100020) != subject.encode():
        yield "subject (0010,0020)"
    yield from _every(found, params, subject, good)
    if params.clean_structured_content:
        yield from _content(found, params)


@lru_cache(maxsize=8)
def _concepts(chosen: tuple[str, ...]) -> dict[tuple[bytes, bytes], str]:
    """(scheme, code) -> the basic action of Table E.3.4-1, for the concepts that no chosen option keeps or cleans."""
    with open(_RULES / "e3_4_1.csv", encoding="utf-8", newline="") as handle:
        rows = [row for row in csv.DictReader(handle) if not any(row.get(name) for name in chosen)]
    return {(row["scheme"].encode(), row["code"].encode()): row["basic"] for row in rows}


_CONTENT_VALUES = {0x0040A160: b"REMOVED", 0x0040A123: b"ANONYMIZED", 0x0040A120: b"19000101"}
_CONTENT_VALUES |= {0x0040A121: b"19000101", 0x0040A122: b"000000"}


def _content(found: Found, params: Params) -> Iterator[str]:
    """Content items of a concept that must go, or whose value must be a dummy."""
    codes: dict[tuple[int, ...], dict[int, bytes]] = {}
    values: dict[tuple[int, ...], list[tuple[int, bytes]]] = {}
    for path, tag, _, raw in found.elements:
        if len(path) >= 4 and path[-2:] == (0x0040A043, 0) and tag in (0x00080100, 0x00080102):
            codes.setdefault(path[:-2], {})[tag] = raw.strip(b" \0")
        elif path and tag in _CONTENT_VALUES:
            values.setdefault(path, []).append((tag, raw.strip(b" \0")))
    for path, code in codes.items():
        action = _concepts(options(params)).get((code.get(0x00080102, b""), code.get(0x00080100, b"")))
        if path[-2] not in (0x0040A730, 0x00400555) or action is None:
            continue
        if action == "X":
            yield f"forbidden concept {_tag(0x0040A043)}"
        elif any(value != _CONTENT_VALUES[tag] for tag, value in values.get(path, [])):
            yield f"not a dummy {_tag(0x0040A730)}"


def _every(found: Found, params: Params, subject: str, good: set[Any]) -> Iterator[str]:
    rules = _table(options(params))
    creators: dict[tuple[tuple[int, ...], int], str] = {}
    own = {subject.encode(), *_OWN_TEXT}
    for element in found.elements:
        if element in good:
            continue
        path, tag, vr, raw = element
        group, number = tag >> 16, tag & 0xFFFF
        if group & 1:
            if 0x10 <= number <= 0xFF:
                creator = raw.strip(b" \0").decode("ascii", "replace")
                creators[path, group << 8 | number] = creator
                fine = params.retain_safe_private and (group, creator) in _safe_private()
            else:
                creator = creators.get((path, group << 8 | number >> 8), "")
                known = _safe_private().get((group, creator), frozenset())
                fine = params.retain_safe_private and number & 0xFF in known and not _spells(vr, raw)
            if not fine:
                yield f"private {_tag(tag)}"
            continue
        if not _standard(tag):
            yield f"unknown element {_tag(tag)}"
            continue
        complaint = _wrong(tag, vr, raw, rules.get(tag, ""), own, params)
        if complaint is not None:
            yield f"{complaint} {_tag(tag)}"
        elif len(good) < 4096 and len(raw) <= 1024:
            good.add(element)


def _wrong(tag: int, vr: bytes, raw: bytes, action: str, own: set[bytes], params: Params) -> str | None:
    """What is wrong with an element of an even group; `action` is the table's where no option keeps or cleans it."""
    value = raw.strip(b" \0")
    if raw and ((vr == b"UN" and tag != _SELECTOR_UN) or (vr in _BULK and tag not in _BULK_TAGS and value)):
        return "bulk data"
    if action == "X" or (action in ("Z", "X/Z") and value not in (b"", *own)):
        return "forbidden element"
    if value and value not in own and (action in ("D", "Z/D", "X/D", "X/Z/D") and vr in _TEXTS | {b"PN"}):
        return "not a dummy"
    return _by_vr(tag, vr, value, own, params) if value else None


_TEXTS = frozenset((b"LO", b"SH", b"ST", b"LT", b"UT", b"UC"))


def _by_vr(tag: int, vr: bytes, value: bytes, own: set[bytes], params: Params) -> str | None:
    """The kind of what is wrong with this value, or None."""
    if value in own:
        return None
    if vr in (b"UN", b"AE", b"UR"):
        return "value representation"
    if vr in _BULK:
        return None if tag in _BULK_TAGS else "bulk data"
    if vr == b"PN":
        return "name"
    if vr == b"UI":
        return None if params.retain_uids or all(_known_uid(tag, part) for part in value.split(b"\\")) else "uid"
    if vr == b"AS":
        return None if re.fullmatch(rb"\d{3}[DWMY]", value) and _years(value) <= params.age_cap + 1 else "age"
    if vr == b"DA":
        return None if re.fullmatch(rb"(\d{8}\\?)+", value) else "date"
    if vr == b"DT":
        return None if re.fullmatch(rb"[\d.+\-\\]{4,60}", value) else "date"
    if vr == b"TM":
        return None if re.fullmatch(rb"[\d.: \\]+", value) else "time"
    if vr in (b"DS", b"IS"):
        return None if re.fullmatch(rb"[\deE+\-. \\]+", value) else "number"
    if vr == b"CS":
        if tag in (0x00080005, 0x00280303):
            return None if tag == 0x00280303 or _CHARACTER_SET.fullmatch(value) else "character set"
        return None if _all_known(value, 2) else "coded string"
    if vr in _TEXTS:
        return _text(tag, value, params)
    return None


def _text(tag: int, value: bytes, params: Params) -> str | None:
    if tag in (0x00120063, 0x00080201):
        return None
    if tag in _MACHINE_TEXT:
        return "machine text" if _SUSPECT.search(value) or len(value) > 256 else None
    if tag in _CODE_TEXT:
        return None if _CODE.fullmatch(value) or _all_known(value, 0) else "code"
    if tag == 0x00080104:
        return None if _all_known(value, 0) or value in _METHOD_MEANINGS else "code meaning"
    kept = (params.retain_device_identity or params.retain_institution_identity) and _is_identity(tag, params)
    return None if kept or _all_known(value, 0) else "free text"


_METHOD_MEANINGS = frozenset(
    {b"Basic Application Confidentiality Profile", b"Clean Pixel Data Option", b"Clean Graphics Option"}
    | {b"Clean Structured Content Option", b"Clean Descriptors Option", b"Retain Patient Characteristics Option"}
    | {b"Retain Longitudinal Temporal Information Full Dates Option", b"Retain Device Identity Option"}
    | {b"Retain Longitudinal Temporal Information Modified Dates Option", b"Retain UIDs Option"}
    | {b"Retain Safe Private Option", b"Retain Institution Identity Option"}
    | {b"Clean Recognizable Visual Features Option"}
)


@lru_cache(maxsize=65536)
def _all_known(value: bytes, short: int) -> bool:
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        text = value.decode("latin-1")
    words = vocabulary()
    return all(
        len(word) <= short
        or word.casefold() in words
        or _SHAPE.fullmatch(word.casefold())
        or re.sub(r"(?<=[a-z]{3})\d\d?$", "", word.casefold()) in words
        for word in _WORD.findall(text)
    )


@lru_cache(maxsize=64)
def _is_identity(tag: int, params: Params) -> bool:
    with open(_RULES / "e1_1.csv", encoding="utf-8", newline="") as handle:
        for row in csv.DictReader(handle):
            if row["tag"] == f"{tag:08X}":
                device = params.retain_device_identity and bool(row["retain_device_identity"])
                return device or (params.retain_institution_identity and bool(row["retain_institution_identity"]))
    return False


def _spells(vr: bytes, raw: bytes) -> bool:
    """Could this value of a safe private element spell a word? Numbers as text and small binary ones cannot."""
    if vr in (b"DS", b"IS"):
        return re.fullmatch(rb"[\deE+\-. \\\0]*", raw) is None
    if vr == b"CS":
        return not _all_known(raw.strip(b" \0"), 2)
    if vr in _TEXTS or vr in (b"PN", b"UR", b"AE"):
        return True
    return len(raw) > 4096


def _years(value: bytes) -> float:
    return int(value[:3]) / {68: 365.25, 87: 52.18, 77: 12, 89: 1}[value[3]]


@lru_cache(maxsize=65536)
def _known_uid(tag: int, uid: bytes) -> bool:
    from pydicom.uid import UID_dictionary

    text = uid.strip(b" \0").decode("ascii", "replace")
    if text.startswith("2.25.") and text[5:].isdigit() and len(text) <= 44:
        return True
    return text in UID_dictionary or (tag == 0x0008010C and text.startswith("2.16.840.1.113883."))


@lru_cache(maxsize=16384)
def _standard(tag: int) -> bool:
    """In the data dictionary, in a group that may be there, and no group length."""
    from pydicom.datadict import DicomDictionary

    group = tag >> 16
    return tag in DicomDictionary and tag & 0xFFFF != 0 and 8 <= group < 0xFFFA and not 0x5000 <= group < 0x5100


def _tag(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
