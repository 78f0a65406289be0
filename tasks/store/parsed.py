"""The attributes of one DICOM file that are asked for, as pydicom would read them. Needs pydicom.

A study is hundreds of files that say the same in nearly every attribute. Files in the two plain little endian syntaxes,
with every byte in its place, go by the quick reader of `tasks.store.dicom`, and equal values are converted once for all
of them; any other file goes to pydicom, which reads leniently. Datasets are read, never changed: they share elements.
"""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache
from typing import Any

import pydicom
from pydicom.charset import convert_encodings, default_encoding
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement, convert_raw_data_element, empty_value_for_VR
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.tag import BaseTag
from pydicom.uid import UID

from tasks.domain.errors import BadInput
from tasks.store.dicom import EXPLICIT_LITTLE, IMPLICIT_LITTLE, Header, read_header

CHARACTER_SET = BaseTag(0x00080005)
SHORT = 128
"""Bytes of a value that is looked up among those converted before."""
REMEMBERED = 4096

UNREADABLE = (
    *(InvalidDicomError, BytesLengthException, ValueError, TypeError, LookupError, AttributeError),
    *(NotImplementedError, EOFError, OverflowError, zlib.error, struct.error),
)
"""What pydicom was seen to raise on files that are not what they say, those of the machine (OSError) apart."""

VALUES = frozenset(b"AS CS DA DS DT FL FD IS LO LT SH SL SS ST TM UC UI UL UR US UT".split())
_converted: dict[tuple[int, bytes, bytes, bytes], DataElement] = {}


def parsed(data: bytes, tags: frozenset[int]) -> Dataset:
    """The top-level attributes `tags` of a file, and its meta information. Raises what pydicom raises."""
    try:
        header = read_header(data)
        if header.transfer_syntax in (EXPLICIT_LITTLE, IMPLICIT_LITTLE):
            found = _quick(data, header, tags)
            if found is not None:
                return found
    except (BadInput, *UNREADABLE):
        pass  # pydicom may make something of it, or says what is wrong
    return pydicom.dcmread(io.BytesIO(data), specific_tags=sorted(tags))


def _quick(data: bytes, header: Header, tags: frozenset[int]) -> Dataset | None:
    """None for what only pydicom may judge: group 0000, VRs that contradict the syntax, undefined lengths."""
    implicit = header.transfer_syntax == IMPLICIT_LITTLE
    explicit = all(0x40 < byte < 0x5B for byte in data[header.dataset + 4 : header.dataset + 6])
    if not header.layout or header.layout[0][0] < 0x00080000 or explicit == implicit:
        return None
    charset = header.values.get(int(CHARACTER_SET), b"")
    elements: dict[BaseTag, Any] = {}
    for tag, vr, _, start, end, undefined in header.layout:
        if tag not in tags and tag != CHARACTER_SET:
            continue
        if undefined:
            return None
        elements[BaseTag(tag)] = _element(tag, vr, data[start:end], start, implicit, charset)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = UID(header.transfer_syntax)
    dataset = FileDataset(io.BytesIO(), elements, bytes(128), meta, implicit, True)
    dataset.set_original_encoding(implicit, True, _encoding(charset))
    return dataset


def _element(
    tag: int, vr: bytes, value: bytes, at: int, implicit: bool, charset: bytes
) -> DataElement | RawDataElement:
    """Converted where it is a short value of a VR that nothing else in the file decides; else as it is stored."""
    known = vr.decode() if vr else None
    stored: Any = value or empty_value_for_VR(known, raw=True)
    raw = RawDataElement(BaseTag(tag), known, len(value), stored, at, implicit, True)
    if len(value) > SHORT or (vr or _vr(tag)) not in VALUES:
        return raw
    key = (tag, vr, value, charset)
    element = _converted.get(key)
    if element is None:
        try:
            element = convert_raw_data_element(raw, encoding=_encoding(charset))
        except UNREADABLE:
            return raw  # whoever asks for it is told
        if len(_converted) >= REMEMBERED:
            _converted.clear()
        _converted[key] = element
    return element


@cache
def _vr(tag: int) -> bytes:
    """VR of an element that does not say it, by the dictionary."""
    return dictionary_VR(tag).encode() if dictionary_has_tag(tag) else b""


@cache
def _encoding(charset: bytes) -> Any:
    """What pydicom makes of a SpecificCharacterSet."""
    if not charset:
        return default_encoding
    raw = RawDataElement(CHARACTER_SET, "CS", len(charset), charset, 0, False, True)
    return convert_encodings(convert_raw_data_element(raw).value)
