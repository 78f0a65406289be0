"""The verifier: a second pair of eyes on every file, before it is released.

It shares no code with the modules that make the file (policy, values, rewrite, words): it has its own parser, reads
Table E.1-1 itself, and asks two questions. Does the released file hold an identifier of its own source (names and
their parts, ids, dates, UIDs, phones, addresses, wherever the source has them, nested and private included)? Does it
hold anything that the policy forbids, whoever it may be of? Answers name the kind and the tag, never the value.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache

from pydicom import errors

from tasks.anonymize.forbidden import Found, judge
from tasks.anonymize.params import Params

_LONG = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
_IDS = frozenset(
    {0x00100020, 0x00101000, 0x00101001, 0x00101090, 0x00080050, 0x00200010, 0x00380010, 0x00380060, 0x00401001}
    | {0x00402016, 0x00402017, 0x00400253, 0x00400009, 0x00120040, 0x00120042, 0x00102154, 0x00101040, 0x00321034}
    | {0x00181000, 0x00081010, 0x00081080, 0x00080094, 0x00080092, 0x00402010, 0x00402009, 0x00402008, 0x00101080}
    | {0x00100050, 0x00100021, 0x00180012 + 0x2, 0x00400241, 0x00400242, 0x00400243, 0x00380300, 0x00380400}
)
"""Ids, numbers, addresses, phones: whole values and their parts are needles."""
_PLACES = frozenset({0x00080080, 0x00080081, 0x00081040, 0x00102299, 0x00102152, 0x00102150})
_DATES = (b"DA", b"DT")
_TEXT = frozenset((b"LO", b"SH", b"ST", b"LT", b"UT", b"UC", b"PN", b"AE", b"CS", b"UR", b"AS", b"OB", b"UN"))
_NUMBERS = frozenset((b"DS", b"IS"))
_TECHNICAL = frozenset({0x00080070, 0x00081090, 0x00181020, 0x00180024, 0x00189005, 0x00181250, 0x00181251})

Element = tuple[tuple[int, ...], int, bytes, bytes]
"""path of the sequences and items above, tag, VR, value."""


class Unreadable(Exception):
    """This parser cannot follow the file."""


@dataclass(frozen=True)
class Parsed:
    meta: list[Element]
    elements: list[Element]
    end: int
    size: int
    preamble: bytes


def leaks(source: bytes, released: bytes, params: Params, subject: str, shift: int) -> list[str]:
    """What is wrong with `released`, as 'kind (gggg,eeee)'; empty when it may go out."""
    try:
        out = parse(released)
    except (Unreadable, struct.error):
        return ["unreadable"]
    try:
        original = parse(source).elements
    except (Unreadable, struct.error):
        try:
            original = _by_pydicom(source)
        except _PYDICOM_FAILS:
            return ["source unreadable"]
    uids: set[bytes] = set()
    before: dict[tuple[tuple[int, ...], int], bytes] = {}
    needles: dict[Needles, None] = {}
    for element in original:
        kind, found = _HARVESTED.get(element) or _harvest(element)
        if kind == "":
            continue
        if kind == "uid":
            uids |= found
        else:
            needles[found] = None
            if kind == "date":
                before[element[0], element[1]] = element[3]
    search = _search(tuple(needles), params, subject)
    found_here = Found(out.meta, out.elements, out.preamble, out.size - out.end)
    complaints = list(judge(found_here, params, subject, search.good))
    for element in out.elements:
        vr = element[2]
        if vr == b"UI":
            if not params.retain_uids and not uids.isdisjoint(_uids(element[3])):
                complaints.append(f"uid {_tag(element[1])}")
        elif element not in search.clean and (complaint := search.identifies(element)) is not None:
            complaints.append(complaint)
        if vr in _DATES and (complaint := _unmoved(before.get((element[0], element[1])), element, shift)) is not None:
            complaints.append(complaint)
    return complaints


_PYDICOM_FAILS = (
    *(errors.InvalidDicomError, errors.BytesLengthException, ValueError, TypeError, LookupError, AttributeError),
    *(NotImplementedError, EOFError, OverflowError, AssertionError, OSError, zlib.error, struct.error),
    *(RecursionError, MemoryError),
)
Needles = frozenset[bytes]
_NOTHING: Needles = frozenset()
_HARVESTED: dict[Element, tuple[str, Needles]] = {}
"""What each element of a source gives, kept because the files of a study say mostly the same. A bounded cache."""


def _harvest(element: Element) -> tuple[str, Needles]:
    """(kind, identifiers) of one element of a source: uid, name, id, place, date, or '' for none."""
    _, tag, vr, raw = element
    result: tuple[str, Needles] = ("", _NOTHING)
    if raw and vr == b"UI":
        result = "uid", frozenset(part for part in _uids(raw) if part and not part.startswith(b"1.2.840.10008."))
    elif raw and vr == b"PN":
        result = "name", frozenset(part for part in re.split(rb"[\^=\\ ,.\0]+", raw) if len(part) >= 3)
    elif raw and vr in _DATES:
        result = "date", frozenset(part[:8] for part in raw.split(b"\\") if len(part) >= 8)
    elif raw and (tag in _IDS or (tag & 0x10000 and vr in (b"LO", b"SH") and tag & 0xFFFF > 0xFF and _idlike(raw))):
        result = "id", frozenset(_parts(raw))
    elif raw and tag in _PLACES:
        result = "place", frozenset(b"\0" + part for part in _parts(raw))
    if result[0] not in ("", "uid"):
        # A leading NUL marks the words of places, which machines may share ("GE MEDICAL SYSTEMS").
        ordinary = _ordinary()
        result = result[0], frozenset(part for part in result[1] if not _is_ordinary(part.lstrip(b"\0"), ordinary))
        if result[0] == "id":
            result = "id", frozenset(b"\1" + part if len(part) >= 5 else part for part in result[1])
    if len(_HARVESTED) > 50_000:
        _HARVESTED.clear()
    if len(raw) <= 1024:
        _HARVESTED[element] = result
    return result


def _is_ordinary(part: bytes, ordinary: frozenset[bytes]) -> bool:
    """Made of words of imaging alone ("MR HIP" as the name of a station)?"""
    words = re.findall(rb"[0-9A-Za-z]+", part)
    return bool(words) and part.isascii() and all(word.lower() in ordinary for word in words)


class Search:
    """The search for one set of identifiers, and the elements that it has found clean before."""

    def __init__(self, needles: Iterable[Needles], params: Params) -> None:
        every = frozenset().union(*needles)
        bare = {part.lstrip(b"\1") for part in every if not part.startswith(b"\0")}
        self.strict = _needles(frozenset(bare))
        self.loose = _needles(frozenset(bare | {part[1:] for part in every if part.startswith(b"\0")}))
        self.long_ids = _needles(frozenset(part[1:] for part in every if part.startswith(b"\1")))
        self.only_strict = params.retain_institution_identity
        self.allowed = {0x00181000, 0x00081010, 0x00081080} if params.retain_device_identity else set()
        self.clean: set[Element] = set()
        self.good: set[Element] = set()
        """Elements in which `forbidden.judge` has found nothing; kept here because it depends on the subject."""

    def identifies(self, element: Element) -> str | None:
        _, tag, vr, raw = element
        pattern = None
        if vr in _TEXT and tag not in self.allowed:
            pattern = self.strict if tag in _TECHNICAL or self.only_strict else self.loose
        elif vr in _NUMBERS:
            pattern = self.long_ids
        if raw and pattern is not None and pattern.search(raw[:65536]):
            return f"identifier {_tag(tag)}"
        if len(self.clean) < 20_000:
            self.clean.add(element)
        return None


@lru_cache(maxsize=16)
def _search(needles: tuple[Needles, ...], params: Params, subject: str) -> Search:
    return Search(needles, params)


def _uids(raw: bytes) -> list[bytes]:
    return [part.strip(b" \0") for part in raw.split(b"\\")] if b"\\" in raw else [raw.strip(b" \0")]


def _idlike(raw: bytes) -> bool:
    return sum(48 <= byte <= 57 for byte in raw) >= 5


def _parts(raw: bytes) -> set[bytes]:
    whole = raw.strip(b" \0")
    parts = {part.strip() for part in re.split(rb"[\\^,;\r\n]+", whole)} | {whole}
    parts |= {part for part in re.split(rb"[\s\\^,;./_-]+", whole) if len(part) >= 4 and not part.isdigit()}
    return {part for part in parts if len(part) >= 3}


@lru_cache(maxsize=64)
def _needles(needles: frozenset[bytes]) -> re.Pattern[bytes] | None:
    """One pattern over all needles, whole words only for ASCII ones; case does not count."""
    if not needles:
        return None
    ascii_words = [re.escape(needle) for needle in sorted(needles) if needle.isascii()]
    others = [re.escape(needle) for needle in sorted(needles) if not needle.isascii()]
    parts = []
    if ascii_words:
        parts.append(rb"(?<![0-9A-Za-z])(?:" + b"|".join(ascii_words) + rb")(?![0-9A-Za-z])")
    return re.compile(b"|".join([*parts, *others]), re.IGNORECASE)


@lru_cache(maxsize=1)
def _ordinary() -> frozenset[bytes]:
    """Words of imaging: a patient called Hip is not found by the word hip."""
    from tasks.anonymize.forbidden import vocabulary

    return frozenset(word.encode() for word in vocabulary())


def _unmoved(source: bytes | None, element: Element, shift: int) -> str | None:
    """Every date that is still there must be the source's, moved by the patient's shift."""
    raw = element[3].strip(b" \0")
    if source is None or raw in (b"19000101", b""):
        return None
    for old, new in zip(source.split(b"\\"), raw.split(b"\\"), strict=False):
        if _moved(old, shift) not in (None, new.strip(b" \0")[:8]):
            return f"date {_tag(element[1])}"
    return None


@lru_cache(maxsize=4096)
def _moved(old: bytes, shift: int) -> bytes | None:
    digits = re.sub(rb"[.\-]", b"", old.strip(b" \0")[:10])[:8] if old[4:5] in (b".", b"-") else old.strip(b" \0")[:8]
    if len(digits) != 8 or not digits.isdigit():
        return None
    try:
        day = date(int(digits[:4]), int(digits[4:6]), int(digits[6:8])) + timedelta(days=shift)
    except (ValueError, OverflowError):
        return None
    return f"{day.year:04d}{day.month:02d}{day.day:02d}".encode()


# The parser: strict, its own, of all elements at any depth.


def parse(data: bytes) -> Parsed:
    if data[128:132] != b"DICM":
        raise Unreadable
    meta: list[Element] = []
    at = 132
    while data[at : at + 2] == b"\x02\0":
        one, at = _one(data, at, len(data), True, "<", ())
        meta += one
    syntax = next((raw.strip(b" \0") for _, tag, _, raw in meta if tag == 0x00020010), b"")
    if syntax == b"1.2.840.10008.1.2.1.99":
        inflater = zlib.decompressobj(-15)
        try:
            data = data[:at] + inflater.decompress(data[at:], 1 << 30)
        except zlib.error:
            raise Unreadable from None
    explicit, order = syntax != b"1.2.840.10008.1.2", ">" if syntax == b"1.2.840.10008.1.2.2" else "<"
    elements: list[Element] = []
    end, last, size = at, -1, len(data)
    head, long = struct.Struct("<HH2sH").unpack_from, struct.Struct("<L").unpack_from
    plain = explicit and order == "<"
    while end < size:
        if plain:
            # The common case, written out: a short element of the top level.
            group, number, vr, length = head(data, end)
            value = end + 8
            if vr in _BULK:
                length, value = long(data, value)[0], end + 12
            if vr in _PLAIN and value + length <= size and length != 0xFFFFFFFF and group != 0xFFFE:
                tag = group << 16 | number
                if tag <= last:
                    raise Unreadable
                last, end = tag, value + length
                elements.append(((), tag, vr, data[value:end] if vr not in _BULK or length <= 1024 else _MUCH))
                continue
        one, end = _one(data, end, size, explicit, order, ())
        if one[0][1] <= last:
            raise Unreadable
        last = one[0][1]
        elements += one
    return Parsed(meta, elements, end, size, data[:128])


_MUCH = b"more than this parser hands out"
_BULK = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW"))
_PLAIN = _BULK | frozenset(
    b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split()  # those of 16-bit length
)


def _one(
    data: bytes, at: int, end: int, explicit: bool, order: str, path: tuple[int, ...]
) -> tuple[list[Element], int]:
    """The element at `at` and all that are nested in it, and where the next one starts."""
    if len(path) > 64:
        raise Unreadable
    group, number = struct.unpack_from(order + "HH", data, at)
    tag = group << 16 | number
    if explicit:
        vr = data[at + 4 : at + 6]
        if vr in _LONG:
            length, value = struct.unpack_from(order + "L", data, at + 8)[0], at + 12
        else:
            length, value = struct.unpack_from(order + "H", data, at + 6)[0], at + 8
        if not (vr.isalpha() and vr.isupper()):
            raise Unreadable
    else:
        vr, value = _vr(tag), at + 8
        length = struct.unpack_from(order + "L", data, at + 4)[0]
    if group == 0xFFFE:
        raise Unreadable
    if vr == b"SQ" or (length == 0xFFFFFFFF and tag != 0x7FE00010):
        nested, stop = _items(data, value, end, length, explicit and vr != b"UN", order, (*path, tag))
        return [(path, tag, vr, b""), *nested], stop
    if length == 0xFFFFFFFF:
        stop = value
        while True:
            item_group, item_number, size = struct.unpack_from(order + "HHL", data, stop)
            stop += 8 + size
            if stop > end or item_group != 0xFFFE:
                raise Unreadable
            if item_number == 0xE0DD:
                return [(path, tag, vr, b"")], stop
    stop = value + length
    if stop > end:
        raise Unreadable
    return [(path, tag, vr, b"" if tag == 0x7FE00010 else data[value:stop])], stop


def _items(
    data: bytes, at: int, end: int, length: int, explicit: bool, order: str, path: tuple[int, ...]
) -> tuple[list[Element], int]:
    elements: list[Element] = []
    stop = end if length == 0xFFFFFFFF else at + length
    if stop > end:
        raise Unreadable
    number = 0
    while at < stop:
        group, kind, size = struct.unpack_from(order + "HHL", data, at)
        at += 8
        if group != 0xFFFE:
            raise Unreadable
        if kind == 0xE0DD:
            return elements, at
        if kind != 0xE000:
            raise Unreadable
        item_end = stop if size == 0xFFFFFFFF else at + size
        if item_end > stop:
            raise Unreadable
        while at < item_end:
            if data[at : at + 4] in (b"\xfe\xff\x0d\xe0", b"\xff\xfe\xe0\x0d"):
                at += 8
                break
            one, at = _one(data, at, item_end, explicit, order, (*path, number))
            elements += one
        number += 1
    if length == 0xFFFFFFFF:
        raise Unreadable
    return elements, at


@lru_cache(maxsize=8192)
def _vr(tag: int) -> bytes:
    from pydicom.datadict import DicomDictionary, RepeatersDictionary

    if tag & 0x10000:
        return b"UN"
    entry = DicomDictionary.get(tag)
    if entry is None:
        masked = f"{tag:08x}"[:2] + "xx" + f"{tag:08x}"[4:]
        entry = RepeatersDictionary.get(masked)
    return entry[0][:2].encode() if entry else b"LO" if tag & 0xFFFF else b"UL"


def _by_pydicom(source: bytes) -> list[Element]:
    """The elements of a source that does not follow the rules, as pydicom reads it."""
    import io
    import warnings

    import pydicom

    found: list[Element] = []

    def visit(dataset: pydicom.Dataset, path: tuple[int, ...]) -> None:
        for tag in dataset.keys():  # noqa: SIM118 - a Dataset iterates over elements, which decodes them
            raw = dataset.get_item(tag)
            if raw is None:
                continue
            vr = (raw.VR or _vr(int(tag)).decode()).encode()
            if vr == b"SQ" or (vr == b"UN" and not isinstance(raw.value, bytes)):
                found.append((path, int(tag), vr, b""))
                for number, item in enumerate(dataset[tag].value or []):
                    visit(item, (*path, int(tag), number))
            else:
                value = raw.value if isinstance(raw.value, bytes) else str(raw.value or "").encode("utf-8", "replace")
                found.append((path, int(tag), vr, value))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        visit(pydicom.dcmread(io.BytesIO(source), stop_before_pixels=True), ())
    return found


def _tag(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
