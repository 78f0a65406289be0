"""Compressed pixel streams without what may be written beside the image: comments, EXIF and other application segments.

JPEG, lossless JPEG and JPEG-LS: COM and APPn before the scan go (APP0 and APP14 say how to read the colours and
stay). JPEG 2000: COM in the main header goes. The coded image is not touched. A stream that does not parse stays.
"""

from __future__ import annotations

import struct

from tasks.domain.errors import BadInput

_STANDALONE = frozenset({0x01, *range(0xD0, 0xDA)})
_GOING = frozenset({0xFE, *range(0xE1, 0xEE), 0xEF})
_STAYING_APP = {0xE0: b"JFIF\0", 0xEE: b"Adobe"}


def stripped(encapsulated: bytes) -> bytes:
    """Fragments of encapsulated pixel data (from the offset table's item, without the delimiter), cleaned.

    The same bytes when nothing had to go; otherwise with an empty offset table, which no longer would be right.
    """
    fragments: list[bytes] = []
    at = 0
    while at + 8 <= len(encapsulated):
        group, number, length = struct.unpack_from("<HHL", encapsulated, at)
        if (group, number) != (0xFFFE, 0xE000) or at + 8 + length > len(encapsulated):
            raise BadInput("malformed", "encapsulated pixel data that is not in fragments")
        fragments.append(encapsulated[at + 8 : at + 8 + length])
        at += 8 + length
    cleaned = [_stream(fragment) for fragment in fragments[1:]]
    if cleaned == fragments[1:]:
        return encapsulated
    return b"".join(_item(fragment) for fragment in [b"", *cleaned])


def _item(data: bytes) -> bytes:
    data += b"\0" * (len(data) % 2)
    return struct.pack("<HHL", 0xFFFE, 0xE000, len(data)) + data


def _stream(data: bytes) -> bytes:
    if data[:2] == b"\xff\xd8":
        return _without(data, 0xDA)
    return _without(data, 0x90) if data[:2] == b"\xff\x4f" else data


def _without(data: bytes, last: int) -> bytes:
    """`data` without its comment and application segments before the marker `last` (start of scan, of tile part)."""
    kept = [data[:2]]
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == last:
            break
        if marker in _STANDALONE or marker == 0xFF:
            kept.append(data[at : at + (1 if marker == 0xFF else 2)])
            at += 1 if marker == 0xFF else 2
            continue
        end = at + 2 + struct.unpack_from(">H", data, at + 2)[0]
        if end > len(data):
            return data
        goes = marker == 0x64 if last == 0x90 else marker in _GOING
        if last == 0xDA and marker in _STAYING_APP:
            # Their known forms are short and say nothing; anything longer could.
            goes = not data[at + 4 : end].startswith(_STAYING_APP[marker]) or end - at > 18
        if not goes:
            kept.append(data[at:end])
        at = end
    if sum(map(len, kept)) == at:
        return data
    return b"".join([*kept, data[at:]])
