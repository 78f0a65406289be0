"""The header of one DICOM Part 10 file, read in bounded time and memory.

Nothing is decoded that is not asked for, no pixel is touched, and a hostile length, depth or deflated stream ends in
BadInput, never in a crash. Offsets are bytes from the start of the file (of the inflated file, for the deflated
transfer syntax). What else may be wrong with a header, tasks.store.checks says.

Reasons (slugs of BadInput, counted by `osteoflow status`):
empty_file · not_dicom · no_file_meta · truncated · malformed · too_deep · deflate_bomb · unsupported_transfer_syntax ·
and, seen only over several files: two_patients_in_study · duplicate_sop_uid.
"""

from __future__ import annotations

import mmap
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast

from tasks.domain.errors import BadInput

Buffer = bytes | mmap.mmap

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
DEFLATED_LITTLE = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"

SPECIFIC_CHARACTER_SET = 0x00080005
SOP_CLASS_UID = 0x00080016
SOP_INSTANCE_UID = 0x00080018
PATIENT_ID = 0x00100020
STUDY_INSTANCE_UID = 0x0020000D
SERIES_INSTANCE_UID = 0x0020000E
NUMBER_OF_FRAMES = 0x00280008
SAMPLES_PER_PIXEL = 0x00280002
PHOTOMETRIC = 0x00280004
ROWS = 0x00280010
COLUMNS = 0x00280011
BITS_ALLOCATED = 0x00280100
PIXEL_DATA = (0x7FE00010, 0x7FE00008, 0x7FE00009)

MAX_DEPTH = 32
"""Sequences nested deeper are refused: no IOD of DICOM comes near (structured reports stay under 20)."""
MAX_INFLATED = 1 << 30
MAX_ELEMENTS = 1 << 18
"""Elements of one dataset; real headers have hundreds, those with many private ones a few thousand."""
KEPT_VALUE = 4096
"""Longer top-level values are not kept in Header.values; their place in the file is."""

VRS = frozenset(
    b"AE AS AT CS DA DS DT FL FD IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV".split()
)
LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD

_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_TRANSFER_SYNTAX = re.compile(r"1\.2\.840\.10008\.1\.2(\.[0-9]+)*")

Element = tuple[int, bytes, int, int, int, bool]
"""tag, VR (b'' in implicit), start of the element, start of its value, end of its value, undefined length?
For undefined length the end is that of the content; the element itself ends 8 bytes later, after its delimiter."""


@dataclass(frozen=True)
class Common:
    """What the headers of files that are alike but for a few top-level elements answer alike (see `by_values`)."""

    differing: frozenset[int]
    answers: dict[object, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Header:
    """What stands before the pixels: raw top-level values by tag (even groups, up to KEPT_VALUE bytes)."""

    transfer_syntax: str
    dataset: int
    """Where the dataset starts, after group 0002."""
    size: int
    meta: dict[int, bytes]
    values: dict[int, bytes]
    big_endian: bool
    pixel: tuple[int, int, int, bool] | None = None
    """tag, start, end and encapsulated? of the pixel data, or None."""
    layout: list[Element] = field(default_factory=list, repr=False)
    """The elements of the top level in file order, up to and with the pixel data: what follows that is no header."""
    common: Common | None = field(default=None, repr=False, compare=False)

    def text(self, tag: int) -> str:
        """The value as text without padding, '' when absent; decoded by SpecificCharacterSet."""
        raw = self.values.get(tag, b"").strip(b" \0")
        if not raw:
            return ""
        if raw.isascii() and b"\x1b" not in raw:
            return raw.decode("ascii")
        return decode(raw, self.values.get(SPECIFIC_CHARACTER_SET, b""))

    def floats(self, tag: int) -> list[float]:
        """The numbers of a DS or IS value, [] when absent or not numbers."""
        try:
            return [float(part) for part in self.text(tag).split("\\") if part.strip()]
        except ValueError:
            return []

    def integer(self, tag: int) -> int | None:
        """A US value, or None when absent."""
        raw = self.values.get(tag, b"")
        return struct.unpack(">H" if self.big_endian else "<H", raw[:2])[0] if len(raw) >= 2 else None

    @property
    def sop_class(self) -> str:
        return self.text(SOP_CLASS_UID)

    @property
    def sop_uid(self) -> str:
        return self.text(SOP_INSTANCE_UID)

    @property
    def study_uid(self) -> str:
        return self.text(STUDY_INSTANCE_UID)

    @property
    def series_uid(self) -> str:
        return self.text(SERIES_INSTANCE_UID)

    @property
    def patient_id(self) -> str:
        return self.text(PATIENT_ID)


Answer = TypeVar("Answer")


def by_values(*tags: int) -> Callable[[Callable[[Header], Answer]], Callable[[Header], Answer]]:
    """For a function of a header that reads only these values: its answer is remembered, because the files of a series
    have them in common. It is given a header that holds nothing else, so that it cannot read more than it names."""

    def remembered(function: Callable[[Header], Answer]) -> Callable[[Header], Answer]:
        @lru_cache(maxsize=256)
        def of(big_endian: bool, values: tuple[bytes | None, ...]) -> Answer:
            there = {tag: value for tag, value in zip(tags, values, strict=True) if value is not None}
            return function(Header("", 0, 0, {}, there, big_endian))

        def answered(header: Header) -> Answer:
            common = header.common
            if common is not None and of in common.answers:
                return cast(Answer, common.answers[of])
            answer = of(header.big_endian, tuple([header.values.get(tag) for tag in tags]))
            if common is not None and common.differing.isdisjoint(tags):
                common.answers[of] = answer
            return answer

        return answered

    return remembered


def decode(raw: bytes, character_set: bytes) -> str:
    """Text of `raw` by the value of SpecificCharacterSet; bytes that do not fit are kept as U+FFFD, never an error."""
    from pydicom.charset import convert_encodings, decode_bytes

    names = [name.decode("ascii", "replace").strip(" \0") for name in character_set.split(b"\\")]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they quote the value
            return decode_bytes(raw, convert_encodings(names), {0x5C}).strip(" \0")
    except (LookupError, UnicodeError, ValueError):
        return raw.decode("utf-8", "replace").strip(" \0")


def is_uid(value: str) -> bool:
    """1 to 64 characters, digits in groups joined by single dots: safe as a file name, whatever the sender wrote."""
    return len(value) <= 64 and _UID.fullmatch(value) is not None


def elements(
    data: Buffer,
    start: int,
    end: int,
    explicit: bool,
    big: bool = False,
    depth: int = 0,
) -> Iterator[Element]:
    """The elements of one dataset in file order, one level; raises BadInput where the bytes make no sense."""
    order = ">" if big else "<"
    head = struct.Struct(order + "HH2sH").unpack_from
    plain = struct.Struct(order + "HHL").unpack_from
    long = struct.Struct(order + "L").unpack_from
    at = start
    while at < end:
        if at + 8 > end:
            raise BadInput("truncated", "an element's header is cut")
        vr = b""
        if explicit:
            group, number, vr, length = head(data, at)
            value = at + 8
            if vr in LONG_VRS:
                if at + 12 > end:
                    raise BadInput("truncated", "an element's header is cut")
                length = long(data, value)[0]
                value = at + 12
            elif vr not in VRS:
                if group == 0xFFFE:
                    raise BadInput("malformed", "an item or delimiter out of place")
                raise BadInput("malformed", "an element without a value representation")
        else:
            group, number, length = plain(data, at)
            value = at + 8
            if group == 0xFFFE:
                raise BadInput("malformed", "an item or delimiter out of place")
        tag = group << 16 | number
        if length == UNDEFINED:
            if tag in PIXEL_DATA and vr != b"SQ":
                stop = fragments_end(data, value, end, big)
            else:
                stop = items_end(
                    data,
                    value,
                    end,
                    explicit and vr != b"UN",
                    big and vr != b"UN",
                    depth + 1,
                )
            yield tag, vr, at, value, stop, True
            at = stop + 8
            continue
        stop = value + length
        if stop > end:
            raise BadInput(
                "truncated",
                f"({group:04X},{number:04X}) claims {length} bytes, {end - value} are there",
            )
        yield tag, vr, at, value, stop, False
        at = stop


def items(
    data: Buffer,
    start: int,
    end: int,
    explicit: bool,
    big: bool,
    depth: int,
    undefined: bool,
) -> Iterator[tuple[int, int, int, bool]]:
    """The items of one sequence: start of the item, start and end of its content, undefined length?"""
    head = struct.Struct(">HHL" if big else "<HHL").unpack_from
    if depth > MAX_DEPTH:
        raise BadInput("too_deep", f"sequences nested more than {MAX_DEPTH} levels")
    at = start
    while at < end:
        if at + 8 > end:
            raise BadInput("truncated", "an item's header is cut")
        group, number, length = head(data, at)
        tag = group << 16 | number
        if tag == SEQUENCE_END and undefined:
            return
        if tag != ITEM:
            raise BadInput("malformed", "a sequence holds something that is no item")
        value = at + 8
        if length == UNDEFINED:
            stop = item_end(data, value, end, explicit, big, depth)
            yield at, value, stop, True
            at = stop + 8
            continue
        stop = value + length
        if stop > end:
            raise BadInput("truncated", f"an item claims {length} bytes, {end - value} are there")
        yield at, value, stop, False
        at = stop
    if undefined:
        raise BadInput("truncated", "a sequence without its end")


def items_end(data: Buffer, start: int, end: int, explicit: bool, big: bool, depth: int) -> int:
    """Where the content of a sequence of undefined length ends (its delimiter starts)."""
    at = start
    for _, _, stop, undefined in items(data, start, end, explicit, big, depth, undefined=True):
        at = stop + (8 if undefined else 0)
    return at


def item_end(data: Buffer, start: int, end: int, explicit: bool, big: bool, depth: int) -> int:
    """Where the content of an item of undefined length ends (its delimiter starts)."""
    at = start
    mark = b"\xff\xfe\xe0\x0d" if big else b"\xfe\xff\x0d\xe0"
    while at < end:
        if data[at : at + 4] == mark:
            return at
        for _, _, _, _, stop, undefined in elements(data, at, end, explicit, big, depth):
            at = stop + (8 if undefined else 0)
            break
    raise BadInput("truncated", "an item without its end")


def fragments_end(data: Buffer, start: int, end: int, big: bool = False) -> int:
    """Where the fragments of encapsulated pixel data end (the sequence delimiter starts)."""
    head = struct.Struct(">HHL" if big else "<HHL").unpack_from
    at = start
    while at + 8 <= end:
        group, number, length = head(data, at)
        tag = group << 16 | number
        if tag == SEQUENCE_END:
            return at
        if tag != ITEM:
            raise BadInput("malformed", "encapsulated pixel data that is not in fragments")
        at += 8 + length
    raise BadInput("truncated", "encapsulated pixel data without its end")


def open_buffer(path: Path) -> Buffer:
    """The bytes of a file, mapped: only what is looked at is read. Raises BadInput for an empty file."""
    with open(path, "rb") as handle:
        if handle.seek(0, 2) == 0:
            raise BadInput("empty_file", "0 bytes")
        return mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)


def inflate(data: Buffer, dataset: int) -> bytes:
    """The file with its deflated dataset inflated, refusing more than MAX_INFLATED bytes."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        body = inflater.decompress(data[dataset:], MAX_INFLATED)
    except zlib.error:
        raise BadInput("malformed", "the deflated dataset does not inflate") from None
    if inflater.unconsumed_tail:
        raise BadInput("deflate_bomb", f"the dataset inflates to more than {MAX_INFLATED} bytes")
    if not inflater.eof:
        raise BadInput("truncated", "the deflated dataset is cut")
    return data[:dataset] + body


def read_meta(data: Buffer) -> tuple[dict[int, bytes], int]:
    """Group 0002 by tag, and where the dataset starts. Raises BadInput when this is no Part 10 file."""
    if len(data) == 0:
        raise BadInput("empty_file", "0 bytes")
    if len(data) < 132 or data[128:132] != b"DICM":
        looks = len(data) >= 8 and data[0:2] in (b"\x02\0", b"\x08\0", b"\0\x08")
        raise BadInput("no_file_meta" if looks else "not_dicom", "no DICM prefix at byte 128")
    meta: dict[int, bytes] = {}
    end = 132
    while end + 8 <= len(data) and data[end : end + 2] == b"\x02\0":
        for tag, _, _, value, stop, undefined in elements(data, end, len(data), explicit=True):
            meta[tag] = data[value:stop]
            end = stop + (8 if undefined else 0)
            break
    return meta, end


def read_header(source: Path | str | bytes) -> Header:
    """The header of a file or of the bytes of one. Raises BadInput when it cannot be read as DICOM Part 10."""
    data = source if isinstance(source, bytes) else open_buffer(Path(source))
    try:
        return _read(data)
    except (struct.error, IndexError, OverflowError):
        raise BadInput("malformed", "the bytes do not parse as DICOM") from None
    finally:
        if isinstance(data, mmap.mmap):
            data.close()


def _read(data: Buffer) -> Header:
    meta, dataset = read_meta(data)
    syntax = meta.get(0x00020010, b"").strip(b" \0").decode("ascii", "replace")
    if not _TRANSFER_SYNTAX.fullmatch(syntax):
        raise BadInput(
            "unsupported_transfer_syntax",
            "the transfer syntax is missing or not one of the standard's",
        )
    if syntax == DEFLATED_LITTLE:
        data = inflate(data, dataset)
    big = syntax == EXPLICIT_BIG
    layout = _layout(data, dataset, syntax != IMPLICIT_LITTLE, big)
    values = {
        tag: data[value:stop]
        for tag, _, _, value, stop, undefined in layout
        if not tag & 0x10000 and stop - value <= KEPT_VALUE and not undefined
    }
    pixel = None
    if layout and layout[-1][0] in PIXEL_DATA:
        tag, _, _, value, stop, undefined = layout[-1]
        pixel = (tag, value, stop, undefined)
    return Header(syntax, dataset, len(data), meta, values, big, pixel, layout)


def _layout(data: Buffer, at: int, explicit: bool, big: bool) -> list[Element]:
    """`elements` of the top level as a list, up to and with the pixel data. The loop is written out, because every
    file that arrives or is released goes through it."""
    end = len(data)
    if not explicit or big:
        found = []
        for element in elements(data, at, end, explicit, big):
            found.append(element)
            if element[0] in PIXEL_DATA:
                return found
            if len(found) > MAX_ELEMENTS:
                break
        else:
            return found
        raise BadInput("malformed", f"more than {MAX_ELEMENTS} elements")
    layout: list[Element] = []
    append = layout.append
    head = struct.Struct("<HH2sH").unpack_from
    long = struct.Struct("<L").unpack_from
    for _ in range(MAX_ELEMENTS):
        if at + 8 > end:
            if at == end:
                return layout
            raise BadInput("truncated", "an element's header is cut")
        group, number, vr, length = head(data, at)
        tag = group << 16 | number
        value = at + 8
        if vr in LONG_VRS:
            if at + 12 > end:
                raise BadInput("truncated", "an element's header is cut")
            length = long(data, value)[0]
            value = at + 12
            if length == UNDEFINED:
                if tag in PIXEL_DATA and vr != b"SQ":
                    stop = fragments_end(data, value, end)
                else:
                    stop = items_end(data, value, end, vr != b"UN", False, 1)
                append((tag, vr, at, value, stop, True))
                if tag in PIXEL_DATA:
                    return layout
                at = stop + 8
                continue
        elif vr not in VRS:
            raise BadInput("malformed", "an element without a value representation")
        stop = value + length
        if stop > end:
            raise BadInput("truncated", f"({group:04X},{number:04X}) claims {length} bytes, {end - value} are there")
        append((tag, vr, at, value, stop, False))
        if group == 0x7FE0 and tag in PIXEL_DATA:
            return layout
        at = stop
    raise BadInput("malformed", f"more than {MAX_ELEMENTS} elements")
