"""How elements are written in one encoding: explicit or implicit VR, little or big endian."""

from __future__ import annotations

import struct
from functools import cache

from tasks.store import dicom

LONG = frozenset(vr.decode() for vr in dicom.LONG_VRS)
"""VRs with a length of four bytes in explicit VR."""


class Encoding:
    """Reads the heads of elements and items, and writes whole ones."""

    def __init__(self, explicit: bool, big: bool) -> None:
        self.explicit, self.big = explicit, big
        order = ">" if big else "<"
        self.head = struct.Struct(order + ("HH2sH" if explicit else "HHL")).unpack_from
        self.item_head = struct.Struct(order + "HHL").unpack_from
        self.u16 = struct.Struct(order + "H").unpack_from
        self.u32 = struct.Struct(order + "L").unpack_from
        self._plain = struct.Struct(order + "HHL").pack
        self._short = struct.Struct(order + "HH2sH").pack
        self._long = struct.Struct(order + "HH2sHL").pack

    def element(self, tag: int, vr: str, value: bytes) -> bytes:
        group, number = tag >> 16, tag & 0xFFFF
        if not self.explicit:
            return self._plain(group, number, len(value)) + value
        if vr in LONG:
            return self._long(group, number, vr.encode(), 0, len(value)) + value
        return self._short(group, number, vr.encode(), len(value)) + value

    def item(self, content: bytes) -> bytes:
        return self._plain(0xFFFE, 0xE000, len(content)) + content

    def four(self, vr: bytes) -> bool:
        """Is the length of an element of this VR written in four bytes?"""
        return not self.explicit or vr in dicom.LONG_VRS


@cache
def encoding(explicit: bool, big: bool) -> Encoding:
    return Encoding(explicit, big)


def encoding_of(header: dicom.Header) -> Encoding:
    return encoding(header.transfer_syntax != dicom.IMPLICIT_LITTLE, header.big_endian)
