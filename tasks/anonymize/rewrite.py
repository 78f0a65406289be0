"""Rewrite one file by walking the bytes of its header: untouched runs are copied, the pixel bytes are never touched.

Handles explicit and implicit VR, little and big endian; deflated files come out as explicit VR little endian. What a
well-made file does not contain (elements out of order, public sequences in UN, an unknown VR) raises Unusual, and the
caller takes the way over pydicom (lenient.py), which puts the file in order first.
"""

from __future__ import annotations

import struct

from tasks.anonymize import policy, safe_private, streams, structured
from tasks.anonymize.encoding import LONG, Encoding
from tasks.anonymize.marks import Mark
from tasks.anonymize.policy import Policy
from tasks.anonymize.values import BY_VALUE, Patient
from tasks.domain.errors import BadInput
from tasks.store import checks, dicom
from tasks.store.dicom import Header

Chunk = bytes | memoryview

_VRS = {vr.decode() for vr in dicom.VRS}
_END = "end"
_WITH_SEGMENTS = "1.2.840.10008.1.2.4."
"""The JPEG family: streams that can hold comments."""


STAYS = b"stays"
"""The answer (the object itself) for an element whose bytes are copied."""


class Unusual(Exception):
    """These bytes need pydicom's patience."""


class Learned:
    """What is known of one (tag, VR) in one place. `keep`: up to so many bytes are copied unseen; -1: never."""

    __slots__ = ("by_value", "keep", "long", "operation", "tag", "vr", "written")

    def __init__(self, keep: int, operation: str, tag: int, vr: str, written: bytes, long: bool) -> None:
        self.keep, self.operation, self.tag, self.vr, self.written, self.long = keep, operation, tag, vr, written, long
        self.by_value = operation in BY_VALUE


class Rewriter:
    """Rewrites one file of one IOD for one patient. `data` is the whole file, inflated."""

    def __init__(self, decisions: Policy, patient: Patient, data: bytes, code: Encoding) -> None:
        self.policy, self.patient, self.code = decisions, patient, code
        self.data, self.view = data, memoryview(data)
        self.explicit, self.big = code.explicit, code.big
        self.learned = decisions.learned.setdefault((False, "e" if code.explicit else "i"), {})
        self.blocks: safe_private.Blocks = {}
        self.became: list[Chunk | None] = []
        """What `dataset` has made of each element: its new bytes, STAYS, or None."""

    def dataset(self, header: Header, marks: tuple[Mark, ...]) -> list[Chunk]:
        """The new dataset (what follows group 0002) in pieces, over the layout that the header's reader has found."""
        view, rewritten = self.view, self.rewritten
        pending = due(marks, header)
        following = pending[0].tag if pending else 1 << 32
        out: list[Chunk] = []
        run, last, end = header.dataset, -1, header.dataset
        try:
            for element in header.layout:
                tag, _, at, _, end, undefined = element
                if tag <= last:
                    raise Unusual("elements out of order")
                last = tag
                if undefined:
                    end += 8
                if tag >= following:
                    if run < at:
                        out.append(view[run:at])
                        run = at
                    while pending and pending[0].tag <= tag:
                        out.append(self.marked(pending.pop(0)))
                    following = pending[0].tag if pending else 1 << 32
                new = rewritten(element, header)
                self.became.append(new)
                if new is STAYS:
                    continue
                if run < at:
                    out.append(view[run:at])
                run = end
                if new is not None:
                    out.append(new)
        except struct.error:
            raise BadInput("truncated", "an element's header is cut") from None
        if run < end:
            out.append(view[run:end])
        out.extend(self.marked(mark) for mark in pending)
        return out

    def rewritten(self, element: dicom.Element, header: Header) -> Chunk | None:
        """What becomes of one element of the top level: its new bytes, STAYS, or None when it goes."""
        tag, vr, at, value, stop, undefined = element
        if tag & 0x10000:
            known_block = self.blocks.get(tag >> 8) if tag & 0xFF00 else self.blocks
            stays = known_block is not None and not undefined and self._stays(tag, vr, value, stop, self.blocks)
            return STAYS if stays else None
        known = self.known(tag, vr)
        if stop - value <= known.keep and not undefined:
            return STAYS
        if known.by_value and not undefined:
            raw = self.data[value:stop]
            new = self.patient.value(known.operation, tag, known.vr, raw)
            if new is raw:
                return STAYS
            if new is None:
                new = self._gone(known, raw, False)
            return None if new is None else self.code.element(tag, known.vr, new)
        if known.operation is policy.PIXELS:
            return self.pixels(at, value, -1 if undefined else stop, header)
        if known.operation is policy.SEQUENCE:
            content, _ = self._sequence(value, stop + 8 if undefined else stop, 1, undefined)
            if tag in structured.CONTENT:
                content = structured.cleaned(content, self.patient.params, self.explicit, self.big)
            if content or self.policy.when_gone(tag, False) is not policy.DROP:
                return self.code.element(tag, "SQ", content)
        return None

    def known(self, tag: int, vr: bytes) -> Learned:
        """What becomes of (tag, VR) at the top level."""
        known = self.learned.get(tag)
        if known is None or known.written != vr:
            known = self.learned[tag] = self._learn(tag, vr, 0)
        return known

    def _gone(self, known: Learned, raw: bytes, nested: bool) -> bytes | None:
        """What stands in for a value of which nothing may stay; None drops the element."""
        operation = self.policy.when_gone(known.tag, nested)
        if operation is policy.DROP:
            return None
        return self.patient.value(operation, known.tag, known.vr, raw)

    def _stays(self, tag: int, vr: bytes, value: int, stop: int, blocks: safe_private.Blocks) -> bool:
        """Does this private element stay? `blocks` remembers the creators seen, for the elements of their block."""
        group, number = tag >> 16, tag & 0xFFFF
        if number > 0xFF:
            known = blocks.get(tag >> 8, {}).get(number & 0xFF)
            return known is not None and safe_private.stays(known, vr, self.data[value:stop], self.patient)
        if number < 0x10 or not self.patient.params.retain_safe_private or group <= 8:
            return False
        creator = self.data[value:stop].strip(b" \0").decode("ascii", "replace")
        elements = safe_private.elements_of(group, creator)
        if elements is None:
            return False
        blocks[group << 8 | number] = elements
        return True

    def _elements(self, at: int, end: int, depth: int, to_delimiter: bool) -> tuple[list[Chunk], int]:
        """Rewrite the elements of one item, to `end` or to its delimiter; returns the pieces and where it stopped."""
        data, view, head, u32, explicit = self.data, self.view, self.code.head, self.code.u32, self.explicit
        learned = self.policy.learned.setdefault((True, "e" if explicit else "i"), {})
        blocks: safe_private.Blocks = {}
        out: list[Chunk] = []
        run, last = at, -1
        while at < end:
            if explicit:
                group, number, vr, length = head(data, at)
            else:
                group, number, length = head(data, at)
                vr = b""
            tag = group << 16 | number
            known = learned.get(tag)
            if known is None or known.written != vr:
                known = learned[tag] = self._learn(tag, vr, depth)
            if tag <= last:
                raise Unusual("elements out of order")
            last = tag
            value = at + 8
            if known.long:
                length = u32(data, value)[0]
                value = at + 12
            operation = known.operation
            if operation is _END:
                if not to_delimiter:
                    raise BadInput("malformed", "an item or delimiter out of place")
                if run < at:
                    out.append(view[run:at])
                return out, at + 8
            undefined = length == dicom.UNDEFINED
            stop = value if undefined else value + length
            if stop > end:
                raise BadInput("truncated", f"({group:04X},{number:04X}) claims more bytes than there are")
            new: bytes | None = None
            if not undefined:
                if length <= known.keep:
                    at = stop
                    continue
                if known.by_value:
                    raw = data[value:stop]
                    new = self.patient.value(operation, tag, known.vr, raw)
                    if new is raw:
                        at = stop
                        continue
                    if new is None:
                        new = self._gone(known, raw, True)
                elif tag & 0x10000 and self._stays(tag, vr, value, stop, blocks):
                    at = stop
                    continue
            if run < at:
                out.append(view[run:at])
            if operation is policy.SEQUENCE:
                content, stop = self._sequence(value, end if undefined else stop, depth + 1, undefined)
                if tag in structured.CONTENT:
                    content = structured.cleaned(content, self.patient.params, self.explicit, self.big)
                if content or self.policy.when_gone(tag, True) is not policy.DROP:
                    out.append(self.code.element(tag, "SQ", content))
            elif undefined:
                stop = self._after(known, value, end, depth)
            elif new is not None:
                out.append(self.code.element(tag, known.vr, new))
            at = run = stop
        if to_delimiter:
            raise BadInput("truncated", "an item without its end")
        if at > end:
            raise BadInput("truncated", "the last element claims more bytes than there are")
        if run < at:
            out.append(view[run:at])
        return out, at

    def _after(self, known: Learned, value: int, end: int, depth: int) -> int:
        """Where the element after one of undefined length starts, when that one goes."""
        if known.vr in ("OB", "OW") and self.explicit:
            return dicom.fragments_end(self.data, value, end, self.big) + 8
        explicit = self.explicit and known.vr != "UN"
        return dicom.items_end(self.data, value, end, explicit, self.big and explicit, depth + 1) + 8

    def _learn(self, tag: int, written: bytes, depth: int) -> Learned:
        if tag == dicom.ITEM_END:
            return Learned(-1, _END, tag, "", written, False)
        if tag >> 16 == 0xFFFE:
            raise BadInput("malformed", "an item or delimiter out of place")
        vr = written.decode("latin-1")
        if self.explicit and vr not in _VRS:
            raise Unusual("an element without a value representation")
        operation = self.policy.operation(tag, vr, depth > 0)
        long = self.explicit and vr in LONG
        if vr == "UN" and operation not in (policy.DROP, policy.CREATOR) and policy.vr_of(tag) != "UN":
            raise Unusual("a public element in UN")
        vr = vr or policy.vr_of(tag)
        if operation == policy.SEQUENCE and vr != "SQ":
            operation = policy.DROP
        keep = self.policy.longest(tag, vr) if operation == policy.KEEP else -1
        if operation == policy.KEEP and vr not in policy.NUMERIC_VRS and tag not in policy.TABLES_OF_NUMBERS:
            keep = 1 << 20
        return Learned(keep, operation, tag, vr, written, long)

    def pixels(self, at: int, value: int, stop: int, header: Header) -> Chunk:
        """The pixel data as it is, without what was hidden behind its last pixel. `stop` is -1 for fragments."""
        if stop < 0:
            after = dicom.fragments_end(self.data, value, len(self.data), self.big) + 8
            if not header.transfer_syntax.startswith(_WITH_SEGMENTS):
                return self.view[at:after]
            cleaned = streams.stripped(self.data[value : after - 8])
            return b"".join([self.view[at:value], cleaned, self.view[after - 8 : after]])
        expected = checks.pixel_bytes(header)
        if expected is None or stop - value <= expected + (expected & 1):
            return self.view[at:stop]
        new = self.data[value : value + expected] + b"\0" * (expected & 1)
        tag, vr = header.pixel[0] if header.pixel else 0, self.data[at + 4 : at + 6].decode("latin-1")
        return self.code.element(tag, vr, new)

    def _sequence(self, at: int, end: int, depth: int, undefined: bool) -> tuple[bytes, int]:
        """The items of a sequence rewritten, with lengths given, and where the next element starts."""
        if depth > dicom.MAX_DEPTH:
            raise BadInput("too_deep", f"sequences nested more than {dicom.MAX_DEPTH} levels")
        pieces: list[Chunk] = []
        item_head = self.code.item_head
        while at < end:
            group, number, length = item_head(self.data, at)
            tag = group << 16 | number
            at += 8
            if tag == dicom.SEQUENCE_END and undefined:
                return b"".join(pieces), at
            if tag != dicom.ITEM:
                raise BadInput("malformed", "a sequence holds something that is no item")
            if length != dicom.UNDEFINED and at + length > end:
                raise BadInput("truncated", "an item claims more bytes than there are")
            open_ended = length == dicom.UNDEFINED
            item, at = self._elements(at, end if open_ended else at + length, depth, open_ended)
            content = b"".join(item)
            if not (foreign_code(content, self.explicit, self.big)):
                pieces.append(self.code.item(content))
        if undefined:
            raise BadInput("truncated", "a sequence without its end")
        return b"".join(pieces), at

    def marked(self, mark: Mark) -> bytes:
        value = mark.value
        if mark.items:
            pieces = []
            for item in mark.items:
                content = b"".join(self.code.element(tag, vr, data) for tag, vr, data in item)
                pieces.append(self.code.item(content))
            value = b"".join(pieces)
        return self.code.element(mark.tag, mark.vr, value)


def due(marks: tuple[Mark, ...], header: Header) -> list[Mark]:
    """The marks that are written into this file, in order of tag."""
    return [mark for mark in marks if mark.always or mark.tag not in header.values]


def foreign_code(content: bytes, explicit: bool, big: bool) -> bool:
    """A code item that has lost its scheme: the scheme was a site's own, so its code may be anything."""
    if big:
        value, scheme = b"\x00\x08\x01\x00", b"\x00\x08\x01\x02"
    else:
        value, scheme = b"\x08\x00\x00\x01", b"\x08\x00\x02\x01"
    return content.startswith(value) and scheme not in content[:64]
