"""What the files of a series have in common is rewritten once.

A `Likeness` belongs to one patient under one key and one set of parameters. It holds, in file order, the bytes that
several files shared and what became of them, and between them the places where their values differ. A file is
recognized when every shared byte stands in its place from the file meta to the pixel data: the header's reader would
then go the same way through it, element by element, so only the differing values are looked at. A file that does not
fit goes the long way (rewrite.py), which also says what is wrong with it, and what it has in common is learned anew.

Never among the values that differ, so always equal byte for byte: the people and places that a header names (they make
the patient), character set, SOP class, transfer syntax, and private creators (they say what their block means).
Explicit and implicit VR, little endian; the pixel data may be native or encapsulated. What is kept is bounded.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from tasks.anonymize import policy, safe_private
from tasks.anonymize.encoding import Encoding
from tasks.anonymize.marks import Mark
from tasks.anonymize.policy import Policy
from tasks.anonymize.rewrite import STAYS, Chunk, Rewriter, Unusual, due
from tasks.anonymize.values import OWN_NAMES, Patient
from tasks.domain.errors import BadInput
from tasks.store import dicom
from tasks.store.dicom import Header

LONGEST_HEADER = 1 << 18
"""Shared bytes that are worth remembering, for one likeness."""
LONGEST_SHARED = 4096
"""Longer values count as differing (vendors' blobs do), and are only ever walked over."""
MOST = 12
"""Likenesses kept for one key and one set of parameters: the last patients, and their kinds of series."""
MOST_TRIED = 6
MOST_NEW = 16
"""A file in which more elements differ than this from those before is of another series: it gets a likeness of its
own."""
MOST_SHAPES = 64

_ALWAYS_EQUAL = frozenset({*OWN_NAMES, 0x00080005, 0x00080016, 0x00020002, 0x00020010})
_OFTEN_DIFFER = frozenset(
    {0x00020000, 0x00020003, 0x00080013, 0x00080018, 0x00080032, 0x00080033, 0x00200013, 0x00200032, 0x00201041}
    | {0x00280106, 0x00280107, 0x00281050, 0x00281051}
)
"""What differs between the slices of nearly every series: taken for differing after the first file already."""

# What becomes of a value that differs.
_META, _GOES, _STAYS, _BY_VALUE, _SAFE, _ANY = range(6)

Step = tuple[bytes, int, bytes, int, int, int, str, Any]
"""Shared bytes up to the length of a differing value, how many they are, what is written for them, how many bytes
before the length its element starts, what becomes of the value, its tag, its VR, and what that needs (most bytes, an
operation, a safe element)."""


@dataclass
class Likeness:
    """What files of one patient have in common."""

    patient: Patient
    decisions: Policy
    marks: tuple[Mark, ...]
    shape: tuple[object, ...]
    """Transfer syntax, and the tags, VRs and private creators in order."""
    elements: list[bytes | None]
    """The bytes of each element, file meta included; None for those that differ."""
    code: Encoding
    header: Header
    """Of the file last learned from."""
    steps: list[Step]
    boundary: int
    """Bytes between the last value of the file meta that differs (or byte 128) and the dataset."""
    tail: tuple[bytes, bytes, int, int]
    """Shared bytes after the last differing value up to the length of the pixel data (or to the end), what is written
    for them, how many bytes before the length the pixel data starts, its tag (0: there is none)."""
    common: dicom.Common

    def rewritten(self, data: bytes) -> tuple[Header, list[Chunk]] | None:
        """The header and the new dataset of `data`, or None when it is not like the others."""
        try:
            return self._walk(data)
        except (struct.error, BadInput, Unusual):
            return None  # the long way says what is wrong

    def _walk(self, data: bytes) -> tuple[Header, list[Chunk]] | None:
        u16, u32, value_of, explicit = self.code.u16, self.code.u32, self.patient.value, self.code.explicit
        meta, values = dict(self.header.meta), dict(self.header.values)
        rewriter = Rewriter(self.decisions, self.patient, data, self.code)
        view, size, at, meta_end = rewriter.view, len(data), 128, 128
        out: list[Chunk] = []
        for shared, many, written, back, kind, tag, vr, needs in self.steps:
            if not data.startswith(shared, at):
                return None
            at += many
            start = at - back
            if written:
                out.append(written)
            if kind == _ANY:
                element = next(dicom.elements(data, start, size, explicit))
                _, _, _, value, stop, undefined = element
                if tag & 0x10000 and not undefined:
                    return None
                at = stop + 8 if undefined else stop
                if undefined or stop - value > dicom.KEPT_VALUE:
                    values.pop(tag, None)
                elif not tag & 0x10000:
                    values[tag] = data[value:stop]
                new = rewriter.rewritten(element, self.header)
                if new is STAYS:
                    out.append(view[start:at])
                elif new is not None:
                    out.append(new)
                continue
            if back == 6:
                length, value = u16(data, at)[0], at + 2
            else:
                length, value = u32(data, at)[0], at + 4
            at = value + length
            if at > size:
                return None
            if kind == _GOES and tag & 0x10000:
                continue
            if length > LONGEST_SHARED:
                return None
            raw = data[value:at]
            if kind == _META:
                meta[tag], meta_end = raw, at
                continue
            if not tag & 0x10000:
                values[tag] = raw
            if kind == _BY_VALUE:
                new = value_of(needs, tag, vr, raw)
                if new is raw:
                    out.append(view[start:at])
                    continue
                if new is None:
                    gone = self.decisions.when_gone(tag, False)
                    new = None if gone is policy.DROP else value_of(gone, tag, vr, raw)
                if new is not None:
                    out.append(self.code.element(tag, vr, new))
            elif kind == _STAYS:
                if length > needs:
                    return None
                out.append(view[start:at])
            elif kind == _SAFE and safe_private.stays(needs, vr.encode(), raw, self.patient):
                out.append(view[start:at])
        shared, written, back, tag = self.tail
        if not data.startswith(shared, at):
            return None
        at += len(shared)
        out.append(written)
        dataset = meta_end + self.boundary
        if not tag:
            header = Header(self.header.transfer_syntax, dataset, size, meta, values, False, common=self.common)
            return (header, out) if at == size else None
        _, _, start, value, stop, undefined = next(dicom.elements(data, at - back, size, explicit))
        header = Header(
            self.header.transfer_syntax, dataset, size, meta, values, False, (tag, value, stop, undefined),
            common=self.common,
        )  # fmt: skip
        out.append(rewriter.pixels(start, value, -1 if undefined else stop, header))
        return header, out


class Memory:
    """The likenesses of the files that came last, under one key and one set of parameters."""

    def __init__(self) -> None:
        self.kept: tuple[Likeness, ...] = ()
        self.differed: dict[tuple[object, ...], frozenset[int]] = {}
        """shape -> which elements (by number) differed within a series, whoever's it was."""

    def find(self, data: bytes) -> tuple[Likeness, Header, list[Chunk]] | None:
        kept = self.kept
        for number, likeness in enumerate(kept[:MOST_TRIED]):
            found = likeness.rewritten(data)
            if found is not None:
                if number:
                    self.kept = (likeness, *kept[:number], *kept[number + 1 :])
                return likeness, *found
        return None

    def learn(self, header: Header, rewriter: Rewriter, marks: tuple[Mark, ...]) -> None:
        """Remember what a file, which went the long way and out, has in common with the files before it."""
        data, patient = rewriter.data, rewriter.patient
        if header.big_endian or header.transfer_syntax == dicom.DEFLATED_LITTLE or not header.layout:
            return
        layout = [*dicom.elements(data, 132, header.dataset, True), *header.layout]
        shape = _shape(data, header, layout)
        if (here := _contents(data, layout)) is None:
            return
        differ = self.differed.get(shape) or frozenset(n for n, one in enumerate(layout) if one[0] in _OFTEN_DIFFER)
        before = None
        for one in self.kept:
            if one.patient is patient and one.shape == shape and one.marks is marks:
                more = {n for n, was in enumerate(one.elements) if was is not None and was != here[n]}
                if len(more) <= MOST_NEW:
                    before, differ = one, differ | more | {n for n, was in enumerate(one.elements) if was is None}
                    break
        if any(layout[n][0] in _ALWAYS_EQUAL or _is_creator(layout[n][0]) for n in differ):
            return
        elements = [None if n in differ else content for n, content in enumerate(here)]
        new = _learned(header, rewriter, marks, shape, layout, elements)
        if new is not None:
            self.kept = (new, *[one for one in self.kept if one is not before][: MOST - 1])
            if len(self.differed) >= MOST_SHAPES:
                self.differed.clear()
            self.differed[shape] = differ


def _shape(data: bytes, header: Header, layout: list[dicom.Element]) -> tuple[object, ...]:
    said: list[object] = [header.transfer_syntax, len(header.layout)]
    for tag, vr, at, _, stop, _ in layout:
        said += (tag, vr)
        if _is_creator(tag):
            said.append(data[at:stop])
    return tuple(said)


def _contents(data: bytes, layout: list[dicom.Element]) -> list[bytes | None] | None:
    """The bytes of each element, None for the long ones and the pixel data; None when a long one may not differ."""
    contents: list[bytes | None] = []
    for tag, _, at, value, stop, undefined in layout:
        long = stop - value > LONGEST_SHARED or tag in dicom.PIXEL_DATA
        if long and (tag in _ALWAYS_EQUAL or _is_creator(tag) or tag < 0x00080000):
            return None
        contents.append(None if long else data[at : stop + 8 if undefined else stop])
    return contents


def _is_creator(tag: int) -> bool:
    return bool(tag & 0x10000) and 0x10 <= tag & 0xFFFF <= 0xFF


def _learned(
    header: Header, rewriter: Rewriter, marks: tuple[Mark, ...], shape: tuple[object, ...],
    layout: list[dicom.Element], elements: list[bytes | None],
) -> Likeness | None:  # fmt: skip
    """The likeness of this file and those before it, or None when it is not worth remembering."""
    data, code = rewriter.data, rewriter.code
    pending = due(marks, header)
    steps: list[Step] = []
    written: list[Chunk] = []
    begin, boundary, tail = 128, header.dataset - 128, None
    metas = len(layout) - len(header.layout)
    for number, element in enumerate(layout):
        tag, vr, at, _, stop, undefined = element
        end = stop + 8 if undefined else stop
        in_meta = number < metas
        back = (8 if vr in dicom.LONG_VRS else 6) if in_meta or code.explicit else 4
        if in_meta:
            if elements[number] is None:
                steps.append((data[begin : at + back], at + back - begin, b"", back, _META, tag, "", None))
                begin, boundary = end, header.dataset - end
            continue
        while pending and pending[0].tag <= tag:
            written.append(rewriter.marked(pending.pop(0)))
        if tag in dicom.PIXEL_DATA:
            tail = (data[begin : at + back], b"".join(written), back, tag)
            break
        new = rewriter.became[number - metas]
        if elements[number] is not None:
            if new is not None:
                written.append(data[at:end] if new is STAYS else new)
            continue
        kind, name, needs = _kind(element, rewriter)
        steps.append((data[begin : at + back], at + back - begin, b"".join(written), back, kind, tag, name, needs))
        begin, written = end, []
    if tail is None:
        tail = (data[begin:], b"".join([*written, *(rewriter.marked(mark) for mark in pending)]), 0, 0)
    elif pending:
        return None
    if sum(step[1] + len(step[2]) for step in steps) + len(tail[0]) + len(tail[1]) > LONGEST_HEADER:
        return None
    bare = Header(header.transfer_syntax, header.dataset, header.size, header.meta, header.values, False)
    common = dicom.Common(frozenset(step[5] for step in steps))
    return Likeness(
        rewriter.patient, rewriter.policy, marks, shape, elements, code, bare, steps, boundary, tail, common
    )


def _kind(element: dicom.Element, rewriter: Rewriter) -> tuple[int, str, Any]:
    """What becomes of a differing value of this element: (kind, VR, what it needs)."""
    tag, vr, _, value, stop, undefined = element
    if tag & 0x10000:
        if undefined:
            return _ANY, "", None
        safe = rewriter.blocks.get(tag >> 8, {}).get(tag & 0xFF)
        return (_GOES, "", None) if safe is None else (_SAFE, vr.decode("latin-1"), safe)
    known = rewriter.known(tag, vr)
    if undefined or stop - value > LONGEST_SHARED or known.vr == "SQ" or vr == b"UN":
        return _ANY, known.vr, None
    if known.keep >= 0:
        return _STAYS, known.vr, known.keep
    return (_BY_VALUE, known.vr, known.operation) if known.by_value else (_GOES, known.vr, None)
