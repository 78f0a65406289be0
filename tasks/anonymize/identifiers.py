"""What identifies the patient of a source, and the search for it in what is to be released. The verifier's own."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date, timedelta
from functools import lru_cache

from tasks.anonymize.params import Params
from tasks.anonymize.parser import Element

_IDS = frozenset(
    {0x00100020, 0x00101000, 0x00101001, 0x00101090, 0x00080050, 0x00200010, 0x00380010, 0x00380060, 0x00401001}
    | {0x00402016, 0x00402017, 0x00400253, 0x00400009, 0x00120040, 0x00120042, 0x00102154, 0x00101040, 0x00321034}
    | {0x00181000, 0x00081010, 0x00081080, 0x00080094, 0x00080092, 0x00402010, 0x00402009, 0x00402008, 0x00101080}
    | {0x00100050, 0x00100021, 0x00180012 + 0x2, 0x00400241, 0x00400242, 0x00400243, 0x00380300, 0x00380400}
)
"""Ids, numbers, addresses, phones: whole values and their parts are needles."""
_PLACES = frozenset({0x00080080, 0x00080081, 0x00081040, 0x00102299, 0x00102152, 0x00102150})
DATES = (b"DA", b"DT")
_TEXT = frozenset((b"LO", b"SH", b"ST", b"LT", b"UT", b"UC", b"PN", b"AE", b"CS", b"UR", b"AS", b"OB", b"UN"))
_NUMBERS = frozenset((b"DS", b"IS"))
_TECHNICAL = frozenset({0x00080070, 0x00081090, 0x00181020, 0x00180024, 0x00189005, 0x00181250, 0x00181251})

MOST_REMEMBERED = 4096
"""Elements, in each of the caches below."""
Needles = frozenset[bytes]
_NOTHING: Needles = frozenset()
_HARVESTED: dict[Element, tuple[str, Needles]] = {}
"""What each element of a source gives, kept because the files of a study say mostly the same. A bounded cache."""


def _harvest(element: Element) -> tuple[str, Needles]:
    """(kind, identifiers) of one element of a source: uid, name, id, place, date, or '' for none."""
    _, tag, vr, raw = element
    result: tuple[str, Needles] = ("", _NOTHING)
    if raw and vr == b"UI":
        result = "uid", frozenset(part for part in _uids_of(raw) if part and not part.startswith(b"1.2.840.10008."))
    elif raw and vr == b"PN":
        result = "name", frozenset(part for part in re.split(rb"[\^=\\ ,.\0]+", raw) if len(part) >= 3)
    elif raw and vr in DATES:
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
    if len(_HARVESTED) > 4 * MOST_REMEMBERED:
        _HARVESTED.clear()
    if len(raw) <= 1024:
        _HARVESTED[element] = result
    return result


def _is_ordinary(part: bytes, ordinary: frozenset[bytes]) -> bool:
    """Made of words of imaging alone ("MR HIP" as the name of a station)?"""
    words = re.findall(rb"[0-9A-Za-z]+", part)
    return bool(words) and part.isascii() and all(word.lower() in ordinary for word in words)


class Facts:
    """What the elements of a source tell: UIDs, dates by place, and groups of identifiers."""

    def __init__(self, elements: Iterable[Element]) -> None:
        self.uids: set[bytes] = set()
        self.dates: dict[tuple[tuple[int, ...], int], bytes] = {}
        self.needles: dict[Needles, None] = {}
        for element in elements:
            kind, found = _HARVESTED.get(element) or _harvest(element)
            if kind == "":
                continue
            if kind == "uid":
                self.uids |= found
            else:
                self.needles[found] = None
                if kind == "date":
                    self.dates[element[0], element[1]] = element[3]

    def words(self) -> frozenset[bytes]:
        """The identifiers without their marks."""
        return frozenset(part.lstrip(b"\0\1") for group in self.needles for part in group)


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
        self.retain_uids = params.retain_uids
        self.clean: set[Element] = set()
        self.good: set[Element] = set()
        """Elements in which `forbidden.judge` has found nothing; kept here because it depends on the subject."""

    def wrong(self, element: Element, facts: Facts, shift: int) -> str | None:
        """What this element of a released file gives away, or None. `facts`: UIDs and dates of its source."""
        vr = element[2]
        if vr == b"UI":
            same = not self.retain_uids and not facts.uids.isdisjoint(_uids_of(element[3]))
            return f"uid {name_of(element[1])}" if same else None
        if element not in self.clean and (complaint := self.identifies(element)) is not None:
            return complaint
        if vr in DATES:
            return _unmoved(facts.dates.get((element[0], element[1])), element, shift)
        return None

    def identifies(self, element: Element) -> str | None:
        _, tag, vr, raw = element
        pattern = None
        if vr in _TEXT and tag not in self.allowed:
            pattern = self.strict if tag in _TECHNICAL or self.only_strict else self.loose
        elif vr in _NUMBERS:
            pattern = self.long_ids
        if raw and pattern is not None and pattern.search(raw[:65536]):
            return f"identifier {name_of(tag)}"
        if len(self.clean) < MOST_REMEMBERED and len(raw) <= 1024:
            self.clean.add(element)
        return None


@lru_cache(maxsize=16)
def search_for(needles: tuple[Needles, ...], params: Params, subject: str) -> Search:
    return Search(needles, params)


def _uids_of(raw: bytes) -> list[bytes]:
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
            return f"date {name_of(element[1])}"
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


def name_of(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
