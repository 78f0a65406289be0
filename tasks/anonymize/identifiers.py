"""What identifies the patient of a source, and the search for it in what is to be released. The verifier's own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
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
_SEARCHED = _TEXT | _NUMBERS
_TELLING = frozenset((b"UI", b"PN", *DATES))
_PRIVATE = (b"LO", b"SH")
_FAR = 65536
"""Bytes of a value that are searched."""
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
    """What the elements of a source tell: UIDs, dates by place, and words that identify."""

    def __init__(self, elements: Iterable[Element]) -> None:
        self.uids: set[bytes] = set()
        self.dates: dict[tuple[tuple[int, ...], int], bytes] = {}
        self.words: set[bytes] = set()
        for element in elements:
            _, tag, vr, _ = element
            if vr not in _TELLING and tag not in _IDS and tag not in _PLACES and not (tag & 0x10000 and vr in _PRIVATE):
                continue
            kind, found = _HARVESTED.get(element) or _harvest(element)
            if kind == "uid":
                self.uids |= found
            else:
                self.words |= found
                if kind == "date":
                    self.dates[element[0], element[1]] = element[3]


class Search:
    """The search of released elements for what their source tells."""

    def __init__(self, facts: Facts, params: Params, shift: int) -> None:
        self.facts, self.params, self.shift = facts, params, shift
        self.allowed = {0x00181000, 0x00081010, 0x00081080} if params.retain_device_identity else set()

    def through(self, elements: Sequence[Element]) -> list[str]:
        """What is wrong, as 'kind (gggg,eeee)'."""
        complaints = []
        dates, uids = self.facts.dates, self.facts.uids if not self.params.retain_uids else set()
        for element in elements:
            _, tag, vr, raw = element
            if vr == b"UI" and not uids.isdisjoint(_uids_of(raw)):
                complaints.append(f"uid {name_of(tag)}")
            elif vr in DATES and (complaint := _unmoved(dates.get((element[0], tag)), element, self.shift)) is not None:
                complaints.append(complaint)
        # Most words stand nowhere at all; only those that do are looked for element by element, as whole words.
        text = b"\n".join([raw[:_FAR] for _, _, vr, raw in elements if vr in _SEARCHED]).lower()
        near = frozenset(word for word in self.facts.words if word.lstrip(b"\0\1").lower() in text)
        return [*complaints, *self._identified(near, elements)] if near else complaints

    def _identified(self, near: Needles, elements: Iterable[Element]) -> Iterator[str]:
        bare = {part.lstrip(b"\1") for part in near if not part.startswith(b"\0")}
        strict = _pattern(frozenset(bare))
        loose = (
            strict
            if self.params.retain_institution_identity
            else _pattern(frozenset(bare | {part[1:] for part in near if part.startswith(b"\0")}))
        )
        long_ids = _pattern(frozenset(part[1:] for part in near if part.startswith(b"\1")))
        for _, tag, vr, raw in elements:
            pattern = None
            if vr in _TEXT and tag not in self.allowed:
                pattern = strict if tag in _TECHNICAL else loose
            elif vr in _NUMBERS:
                pattern = long_ids
            if pattern is not None and pattern.search(raw[:_FAR]):
                yield f"identifier {name_of(tag)}"


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
def _pattern(needles: frozenset[bytes]) -> re.Pattern[bytes] | None:
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
