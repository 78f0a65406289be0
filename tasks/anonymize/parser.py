"""The verifier's own parser: strict, of all elements at any depth. It shares nothing with the reader in tasks.store."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from functools import lru_cache

LONG = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))

Element = tuple[tuple[int, ...], int, bytes, bytes]
"""path of the sequences and items above, tag, VR, value."""


_HEADS = {
    order: tuple(struct.Struct(order + form).unpack_from for form in ("HH2sH", "L", "HHL")) for order in ("<", ">")
}


class Unreadable(Exception):
    """This parser cannot follow the file."""


@dataclass(frozen=True)
class Parsed:
    syntax: bytes
    meta: list[Element]
    elements: list[Element]
    spans: list[tuple[int, int, int]]
    """Of each element of the file meta and of the top level: its start, its end, and its place in meta + elements."""
    end: int
    size: int
    preamble: bytes


def parse(data: bytes) -> Parsed:
    if data[128:132] != b"DICM":
        raise Unreadable
    meta: list[Element] = []
    spans: list[tuple[int, int, int]] = []
    at = 132
    while data[at : at + 2] == b"\x02\0":
        start = at
        found, at = one(data, at, len(data), True, "<", ())
        spans.append((start, at, len(meta)))
        meta += found
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
    many = len(meta)
    while end < size:
        start, first = end, many + len(elements)
        if plain:
            # The common case, written out: a short element of the top level.
            group, number, vr, length = head(data, end)
            value = end + 8
            if vr in BULK:
                length, value = long(data, value)[0], end + 12
            if vr in _PLAIN and value + length <= size and length != 0xFFFFFFFF and group != 0xFFFE:
                tag = group << 16 | number
                if tag <= last:
                    raise Unreadable
                last, end = tag, value + length
                elements.append(((), tag, vr, data[value:end] if vr not in BULK or length <= 1024 else MUCH))
                spans.append((start, end, first))
                continue
        found, end = one(data, end, size, explicit, order, ())
        if found[0][1] <= last:
            raise Unreadable
        last = found[0][1]
        elements += found
        spans.append((start, end, first))
    return Parsed(syntax, meta, elements, spans, end, size, data[:128])


MUCH = b"more than this parser hands out"
BULK = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW"))
_PLAIN = BULK | frozenset(
    b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split()  # those of 16-bit length
)


def one(data: bytes, at: int, end: int, explicit: bool, order: str, path: tuple[int, ...]) -> tuple[list[Element], int]:
    """The element at `at` and all that are nested in it, and where the next one starts."""
    if len(path) > 64:
        raise Unreadable
    head, long, plain = _HEADS[order]
    if explicit:
        group, number, vr, length = head(data, at)
        value = at + 8
        if vr in LONG:
            length, value = long(data, value)[0], at + 12
        if not (vr.isalpha() and vr.isupper()):
            raise Unreadable
        tag = group << 16 | number
    else:
        group, number, length = plain(data, at)
        tag = group << 16 | number
        vr, value = _vr(tag), at + 8
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
            found, at = one(data, at, item_end, explicit, order, (*path, number))
            elements += found
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


def by_pydicom(source: bytes) -> list[Element]:
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
