"""What the verifier has found good in one file need not be looked at again in the next of the series.

A `Pair` stands for files of one subject, original and released, that have passed: the bytes which they shared, and the
places where they differed. The next file is held against it, original against original and released against released.
Where every shared byte stands in its place, the strict parser would read the same elements there, and they were judged;
the differing ones are judged here with what the differing ones of its original tell. Only "nothing is wrong" is ever
said here: whatever does not fit or looks suspicious is verified in full (verify.leaks).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache

from tasks.anonymize.forbidden import STATED, Found, judge
from tasks.anonymize.identifiers import DATES, Facts, Search
from tasks.anonymize.params import Params
from tasks.anonymize.parser import BULK, LONG, MUCH, Element, Parsed, Unreadable, one

MOST_PAIRS = 12
MOST_TRIED = 6
MOST_NEW = 16
MOST_BYTES = 1 << 18
_LONG_VALUE = 4096
MOST_KINDS = 64
_IMPLICIT = b"1.2.840.10008.1.2"
_OTHERS = (b"1.2.840.10008.1.2.2", b"1.2.840.10008.1.2.1.99")
"""Big endian, deflated: always verified in full."""
_PIXELS = frozenset({0x7FE00010, 0x7FE00008, 0x7FE00009})
_NEVER_DIFFERS = frozenset({0x00080005, 0x00100010, 0x00100020, 0x00080016, 0x00020010})
_OFTEN_DIFFERS = frozenset(
    {0x00020000, 0x00020003, 0x00080018, 0x00080032, 0x00080033, 0x00200013, 0x00200032, 0x00201041}
    | {0x00280106, 0x00280107, 0x00281050, 0x00281051}
)

Who = tuple[Params, str, int]
"""Parameters, subject and shift: what a verdict depends on besides the bytes."""
Span = tuple[int, bytes, int, int, list[Element]]
"""tag, VR, start and end of an element of the top level or of the file meta, and what the parser reads there."""
Step = tuple[bytes, int, int, int, bytes]
"""Shared bytes up to the length of a differing value, how many, how many before the length its element starts (4 in
implicit VR, 6 with a length of two bytes, 8 of four), its tag and VR."""


_short = struct.Struct("<H").unpack_from


@dataclass(frozen=True)
class _Shape:
    """Files that say the same, but for some values of the top level."""

    kinds: tuple[object, ...]
    contents: tuple[bytes | None, ...]
    """The bytes of each element; None where they differ."""
    constant: tuple[Element, ...]
    """What the parser reads in the shared bytes, nested elements included, file meta first."""
    metas: int
    """So many of `constant` are of the file meta."""
    steps: tuple[Step, ...]
    tail: tuple[bytes, int, int]
    """Shared bytes after the last differing value up to the length of the pixel data (or to the end), where it starts
    before that, its tag (0: none)."""

    def differing(self, data: bytes) -> tuple[list[Element], int] | None:
        """The elements of `data` that differ and where the pixel data starts; None when `data` is of another shape."""
        at, size = 128, len(data)
        found: list[Element] = []
        for shared, many, back, tag, vr in self.steps:
            if not data.startswith(shared, at):
                return None
            at += many
            if back == 6:
                value = at + 2
                at = value + _short(data, at)[0]
                if at > size:
                    return None
                found.append(((), tag, vr, data[value:at]))
            elif vr in BULK and (end := _end_of_bulk(data, at)) > 0:
                found.append(((), tag, vr, data[at + 4 : end] if end - at <= 1028 else MUCH))
                at = end
            else:
                more, at = one(data, at - back, size, back != 4, "<", ())
                found += more
        shared, back, tag = self.tail
        if not data.startswith(shared, at):
            return None
        at += len(shared)
        start = at - back
        if tag:
            end = _end_of_bulk(data, at)
            at = end if end > 0 else one(data, start, size, back != 4, "<", ())[1]
        return (found, start) if at == size else None


def _end_of_bulk(data: bytes, at: int) -> int:
    """Where a value with a length of four bytes ends; 0 when its length is undefined or more than there is."""
    length = int.from_bytes(data[at : at + 4], "little")
    end = at + 4 + length
    return end if length != 0xFFFFFFFF and end <= len(data) else 0


class Pair:
    """Originals and released files of one subject that have passed."""

    def __init__(self, source: _Shape, released: _Shape, who: Who) -> None:
        self.source, self.released, self.who = source, released, who
        self.facts = Facts(source.constant[source.metas :])
        self.meta, elements = released.constant[: released.metas], released.constant[released.metas :]
        self.stated = [one for one in elements if one[1] in STATED or one[1] & 0x10000]
        """With these the differing elements are judged; the others are good, whatever else the file holds."""
        self.uids = {part.strip(b" \0") for one in elements if one[2] == b"UI" for part in one[3].split(b"\\")}
        self.dated = {(one[0], one[1]) for one in elements if one[2] in DATES}

    def passes(self, source: bytes, released: bytes) -> bool:
        """Is nothing wrong with `released`? False also when this cannot be said here."""
        try:
            there, here = self.source.differing(source), self.released.differing(released)
        except (Unreadable, struct.error):
            return False
        if there is None or here is None:
            return False
        params, subject, shift = self.who
        new = Facts(element for element in there[0] if element[1] >> 16 != 2)
        if words := new.words - self.facts.words:
            # Identifiers that the shared elements were not searched for: they may stand nowhere, in any form.
            text = released[128 : here[1]].lower()
            if any(word.lstrip(b"\0\1").lower() in text for word in words):
                return False
        if not params.retain_uids and not self.uids.isdisjoint(new.uids):
            return False
        if not self.dated.isdisjoint(new.dates):
            return False
        new.uids |= self.facts.uids
        new.words |= self.facts.words
        new.dates = {**self.facts.dates, **new.dates}
        differ = [element for element in here[0] if element[1] >> 16 != 2]
        if Search(new, params, shift).through(differ):
            return False
        metas = [element for element in here[0] if element[1] >> 16 == 2]
        meta = sorted([*self.meta, *metas], key=lambda element: element[1])
        found = Found(meta, [*self.stated, *differ], released[:128], 0)
        return next(iter(judge(found, params, subject, good_of(params, subject))), None) is None


@lru_cache(maxsize=16)
def good_of(params: Params, subject: str) -> set[Element]:
    """Elements in which `forbidden.judge` has found nothing, under these parameters and for this subject."""
    return set()


_pairs: tuple[Pair, ...] = ()
_differed: dict[tuple[object, ...], frozenset[int]] = {}
"""kinds of elements -> which of them (by number) differed within a series, whoever's it was."""


def find(source: bytes, released: bytes, who: Who) -> bool:
    """Do these pass as those before them did?"""
    global _pairs
    pairs = _pairs
    for number, pair in enumerate([pair for pair in pairs if pair.who == who][:MOST_TRIED]):
        if pair.passes(source, released):
            if number:
                _pairs = (pair, *[other for other in pairs if other is not pair])
            return True
    return False


def remember(source: bytes, released: bytes, there: Parsed, here: Parsed, who: Who) -> None:
    """Both have passed in full: keep what they have in common with those before them."""
    global _pairs
    if not (_plain(there) and _plain(here)):
        return
    spans = _spans(there), _spans(here)
    kinds = _kinds(source, spans[0]), _kinds(released, spans[1])
    like = [pair for pair in _pairs if pair.who == who and (pair.source.kinds, pair.released.kinds) == kinds]
    for pair in (*like, None):
        before = (pair.source, pair.released) if pair else (None, None)
        shapes = (
            _shape(source, spans[0], kinds[0], there.syntax, before[0]),
            _shape(released, spans[1], kinds[1], here.syntax, before[1]),
        )
        if shapes[0] is not None and shapes[1] is not None:
            others = [other for other in _pairs if other is not pair]
            _pairs = (Pair(shapes[0], shapes[1], who), *others[: MOST_PAIRS - 1])
            return


def _plain(parsed: Parsed) -> bool:
    """Little endian, and with nothing behind the pixel data?"""
    tops = [element[1] for element in parsed.elements if not element[0]]
    return parsed.syntax not in _OTHERS and parsed.end == parsed.size and not _PIXELS.intersection(tops[:-1])


def _spans(parsed: Parsed) -> list[Span]:
    every = [*parsed.meta, *parsed.elements]
    ends = [*(first for _, _, first in parsed.spans[1:]), len(every)]
    return [
        (every[first][1], every[first][2], start, end, every[first:until])
        for (start, end, first), until in zip(parsed.spans, ends, strict=True)
    ]


def _kinds(data: bytes, spans: list[Span]) -> tuple[object, ...]:
    kinds: list[object] = []
    for tag, vr, start, end, _ in spans:
        kinds += (tag, vr, data[start:end]) if _is_creator(tag) or tag == 0x00020010 else (tag, vr)
    return tuple(kinds)


def _is_creator(tag: int) -> bool:
    return bool(tag & 0x10000) and 0x10 <= tag & 0xFFFF <= 0xFF


def _shape(
    data: bytes, spans: list[Span], kinds: tuple[object, ...], syntax: bytes, before: _Shape | None
) -> _Shape | None:
    """What `data` and those before it share; None when that is too little, or too much to keep."""
    explicit = syntax != _IMPLICIT
    contents = [data[start:end] if end - start <= _LONG_VALUE else None for _, _, start, end, _ in spans]
    differ = {n for n, (tag, *_) in enumerate(spans) if contents[n] is None or tag in _PIXELS}
    if before is None:
        differ |= _differed.get(kinds) or {n for n, (tag, *_) in enumerate(spans) if tag in _OFTEN_DIFFERS}
    else:
        new = {n for n, was in enumerate(before.contents) if was is not None and was != contents[n]} - differ
        if len(new) > MOST_NEW:
            return None
        differ |= new | {n for n, was in enumerate(before.contents) if was is None}
    if any(spans[n][0] in _NEVER_DIFFERS or _is_creator(spans[n][0]) for n in differ):
        return None
    steps: list[Step] = []
    constant: list[Element] = []
    begin, metas, tail = 128, 0, None
    for n, (tag, vr, start, end, found) in enumerate(spans):
        in_meta = tag >> 16 == 2
        back = 4 if not explicit and not in_meta else 8 if vr in LONG else 6
        if tag in _PIXELS:
            if back == 6:
                return None
            tail = (data[begin : start + back], back, tag)
        elif n in differ:
            steps.append((data[begin : start + back], start + back - begin, back, tag, vr))
            begin = end
        else:
            constant += found
            metas = len(constant) if in_meta else metas
    tail = tail or (data[begin:], 4, 0)
    if sum(step[1] for step in steps) + len(tail[0]) > MOST_BYTES:
        return None
    if len(_differed) >= MOST_KINDS:
        _differed.clear()
    _differed[kinds] = frozenset(differ)
    kept = tuple(None if n in differ else content for n, content in enumerate(contents))
    return _Shape(kinds, kept, tuple(constant), metas, tuple(steps), tail)
