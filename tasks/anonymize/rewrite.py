"""Rewrite one file by walking the bytes of its header: untouched runs are copied, the pixel bytes are never touched.

Handles explicit and implicit VR, little and big endian; deflated files come out as explicit VR little endian. What a
well-made file does not contain (elements out of order, public sequences in UN, an unknown VR) raises Unusual, and the
caller takes the way over pydicom (lenient.py), which puts the file in order first.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from tasks.anonymize import policy, safe_private
from tasks.anonymize.marks import Mark
from tasks.anonymize.policy import Policy
from tasks.anonymize.values import BY_VALUE, Patient
from tasks.domain.errors import BadInput
from tasks.store import dicom
from tasks.store.dicom import Header

Chunk = bytes | memoryview

_LONG = {vr.decode() for vr in dicom.LONG_VRS}
_VRS = {vr.decode() for vr in dicom.VRS}
_END = "end"


class Unusual(Exception):
    """These bytes need pydicom's patience."""


@dataclass(frozen=True)
class _Learned:
    """What is known of one (tag, VR) in one place. `keep`: up to so many bytes are copied unseen; -1: never."""

    keep: int
    operation: str
    tag: int
    vr: str
    long: bool


class Rewriter:
    """Rewrites files of one IOD for one patient."""

    def __init__(self, decisions: Policy, patient: Patient, marks: list[Mark]) -> None:
        self.policy = decisions
        self.patient = patient
        self.marks = marks

    def dataset(self, data: bytes, header: Header) -> list[Chunk]:
        """The new dataset (what follows group 0002) in pieces. `data` is the whole file, inflated."""
        self.data, self.view, self.header = data, memoryview(data), header
        self.explicit = header.transfer_syntax != dicom.IMPLICIT_LITTLE
        self.big = header.big_endian
        order = ">" if self.big else "<"
        self.head = struct.Struct(order + ("HH2sH" if self.explicit else "HHL")).unpack_from
        self.u32 = struct.Struct(order + "L").unpack_from
        pack = struct.Struct(order + "HHL")
        self.pack_item = pack.pack
        self.pack_short = struct.Struct(order + "HH2sH").pack
        self.pack_long = struct.Struct(order + "HH2sHL").pack
        self.creators: dict[int, str] = {}
        pending = [mark for mark in self.marks if mark.always or mark.tag not in header.values]
        try:
            out, _ = self._elements(header.dataset, len(data), 0, False, pending)
        except struct.error:
            raise BadInput("truncated", "an element's header is cut") from None
        return out

    def _elements(
        self, at: int, end: int, depth: int, to_delimiter: bool, pending: list[Mark]
    ) -> tuple[list[Chunk], int]:
        """Rewrite elements from `at` to `end`, or to the item's delimiter; returns the pieces and where it stopped."""
        data, view, head, u32, explicit = self.data, self.view, self.head, self.u32, self.explicit
        learned = self.policy.learned.setdefault((depth > 0, "e" if explicit else "i"), {})
        following = pending[0].tag if pending else 1 << 32
        out: list[Chunk] = []
        run, last = at, -1
        while at < end:
            if explicit:
                group, number, vr, length = head(data, at)
                key: Any = (group << 16 | number, vr)
            else:
                group, number, length = head(data, at)
                key = group << 16 | number
            known = learned.get(key)
            if known is None:
                known = learned[key] = self._learn(
                    group << 16 | number, vr.decode("latin-1") if explicit else "", depth
                )
            tag = known.tag
            if tag <= last:
                raise Unusual("elements out of order")
            last = tag
            if tag >= following:
                if run < at:
                    out.append(view[run:at])
                    run = at
                while pending and pending[0].tag <= tag:
                    out.append(self._marked(pending.pop(0)))
                following = pending[0].tag if pending else 1 << 32
            value = at + 8
            if known.long:
                length = u32(data, value)[0]
                value = at + 12
            if length <= known.keep:
                at = value + length
                continue
            operation = known.operation
            if operation is _END:
                if not to_delimiter:
                    raise BadInput("malformed", "an item or delimiter out of place")
                if run < at:
                    out.append(view[run:at])
                return out, at + 8
            if length == dicom.UNDEFINED:
                stop = after = -1
            else:
                stop = after = value + length
                if stop > end:
                    raise BadInput("truncated", f"({group:04X},{number:04X}) claims more bytes than there are")
            if operation in BY_VALUE and stop >= 0:
                raw = data[value:stop]
                new = self.patient.value(operation, tag, known.vr, raw)
                if new is None:
                    operation = self.policy.when_gone(tag, depth > 0)
                    if operation is not policy.DROP:
                        new = self.patient.value(operation, tag, known.vr, raw)
                if new is raw:
                    at = stop
                    continue
            else:
                new = None
            if run < at:
                out.append(view[run:at])
            if operation is policy.CREATOR and stop >= 0:
                if self._private(known, data[value:stop]):
                    out.append(view[at:stop])
            elif operation is policy.PIXELS:
                after = self._pixels(out, at, value, stop, end)
            elif operation is policy.SEQUENCE and (known.vr == "SQ" or not explicit):
                content, after = self._sequence(value, end if stop < 0 else stop, depth + 1, stop < 0)
                if content or self.policy.when_gone(tag, depth > 0) is not policy.DROP:
                    out.append(self._element(tag, "SQ", content))
            elif new is not None:
                out.append(self._element(tag, known.vr, new))
            if after < 0:
                after = self._after(known, value, end, depth)
            at = run = after
        if to_delimiter:
            raise BadInput("truncated", "an item without its end")
        if at > end:
            raise BadInput("truncated", "the last element claims more bytes than there are")
        if run < at:
            out.append(view[run:at])
        out.extend(self._marked(mark) for mark in pending)
        return out, at

    def _after(self, known: _Learned, value: int, end: int, depth: int) -> int:
        """Where the element after one of undefined length starts, when that one goes."""
        if known.vr in ("OB", "OW") and self.explicit:
            return dicom.fragments_end(self.data, value, end, self.big) + 8
        explicit = self.explicit and known.vr != "UN"
        return dicom.items_end(self.data, value, end, explicit, self.big and explicit, depth + 1) + 8

    def _learn(self, tag: int, vr: str, depth: int) -> _Learned:
        if tag == dicom.ITEM_END:
            return _Learned(-1, _END, tag, "", False)
        if tag >> 16 == 0xFFFE:
            raise BadInput("malformed", "an item or delimiter out of place")
        if self.explicit and vr not in _VRS:
            raise Unusual("an element without a value representation")
        operation = self.policy.operation(tag, vr, depth > 0)
        long = self.explicit and vr in _LONG
        if vr == "UN" and operation not in (policy.DROP, policy.CREATOR) and policy.vr_of(tag) != "UN":
            raise Unusual("a public element in UN")
        vr = vr or policy.vr_of(tag)
        if operation == policy.SEQUENCE and vr != "SQ":
            operation = policy.DROP
        keep = self.policy.longest(tag, vr) if operation == policy.KEEP else -1
        if operation == policy.KEEP and vr not in policy.NUMERIC_VRS and tag not in policy.TABLES_OF_NUMBERS:
            keep = 1 << 20
        return _Learned(keep, operation, tag, vr, long)

    def _private(self, known: _Learned, raw: bytes) -> bool:
        """Does this private element stay? Creators are remembered for the elements of their block."""
        group, number = known.tag >> 16, known.tag & 0xFFFF
        if 0x10 <= number <= 0xFF:
            creator = raw.strip(b" \0").decode("ascii", "replace")
            self.creators[group << 8 | number] = creator
            return safe_private.is_creator(group, creator)
        creator = self.creators.get(group << 8 | number >> 8, "")
        return safe_private.stays(group, number & 0xFF, creator, known.vr, raw, self.patient)

    def _pixels(self, out: list[Chunk], at: int, value: int, stop: int, end: int) -> int:
        """The pixel data as it is, without what was hidden behind its last pixel."""
        if stop < 0:
            after = dicom.fragments_end(self.data, value, end, self.big) + 8
            out.append(self.view[at:after])
            return after
        expected = dicom.pixel_bytes(self.header)
        if expected is not None and stop - value > expected + (expected & 1):
            new = self.data[value : value + expected] + b"\0" * (expected & 1)
            tag, vr = self.header.pixel[0] if self.header.pixel else 0, self.data[at + 4 : at + 6].decode("latin-1")
            out.append(self._element(tag, vr, new))
        else:
            out.append(self.view[at:stop])
        return stop

    def _sequence(self, at: int, end: int, depth: int, undefined: bool) -> tuple[bytes, int]:
        """The items of a sequence rewritten, with lengths given, and where the next element starts."""
        if depth > dicom.MAX_DEPTH:
            raise BadInput("too_deep", f"sequences nested more than {dicom.MAX_DEPTH} levels")
        pieces: list[Chunk] = []
        creators = self.creators
        item_head = struct.Struct(">HHL" if self.big else "<HHL").unpack_from
        while at < end:
            group, number, length = item_head(self.data, at)
            tag = group << 16 | number
            at += 8
            if tag == dicom.SEQUENCE_END and undefined:
                self.creators = creators
                return b"".join(pieces), at
            if tag != dicom.ITEM:
                raise BadInput("malformed", "a sequence holds something that is no item")
            if length != dicom.UNDEFINED and at + length > end:
                raise BadInput("truncated", "an item claims more bytes than there are")
            self.creators = {}
            open_ended = length == dicom.UNDEFINED
            item, at = self._elements(at, end if open_ended else at + length, depth, open_ended, [])
            content = b"".join(item)
            if not (foreign_code(content, self.explicit, self.big)):
                pieces += [self.pack_item(0xFFFE, 0xE000, len(content)), content]
        if undefined:
            raise BadInput("truncated", "a sequence without its end")
        self.creators = creators
        return b"".join(pieces), at

    def _element(self, tag: int, vr: str, value: bytes) -> bytes:
        group, number = tag >> 16, tag & 0xFFFF
        if not self.explicit:
            return self.pack_item(group, number, len(value)) + value
        if vr in _LONG:
            return self.pack_long(group, number, vr.encode(), 0, len(value)) + value
        return self.pack_short(group, number, vr.encode(), len(value)) + value

    def _marked(self, mark: Mark) -> bytes:
        value = mark.value
        if mark.items:
            pieces = []
            for item in mark.items:
                content = b"".join(self._element(tag, vr, data) for tag, vr, data in item)
                pieces.append(self.pack_item(0xFFFE, 0xE000, len(content)) + content)
            value = b"".join(pieces)
        return self._element(mark.tag, mark.vr, value)


def foreign_code(content: bytes, explicit: bool, big: bool) -> bool:
    """A code item that has lost its scheme: the scheme was a site's own, so its code may be anything."""
    if big:
        value, scheme = b"\x00\x08\x01\x00", b"\x00\x08\x01\x02"
    else:
        value, scheme = b"\x08\x00\x00\x01", b"\x08\x00\x02\x01"
    return content.startswith(value) and scheme not in content[:64]
