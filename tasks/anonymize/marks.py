"""What every released file says about itself: that it is de-identified, by which profile and options, and by whom."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache

from tasks.anonymize.params import Params, options
from tasks.anonymize.policy import EDITION

METHOD = f"osteoflow: {EDITION} Table E.1-1, allow-list by IOD"
CLEANED, CLEAR, NO_ENGINE, NOT_LOOKED = "cleaned", "clear", "no_engine", "not_looked"
"""What became of a file's pixels: text was blanked; none was found; searched, but without OCR; not searched."""
PIXELS = {
    CLEANED: "text in pixels blanked",
    CLEAR: "no text found in pixels",
    NO_ENGINE: "pixels searched without OCR",
    NOT_LOOKED: "pixels not searched",
}
IMPLEMENTATION_UID = "2.25.258206126541254307420463137106432571731"
IMPLEMENTATION_VERSION = "OSTEOFLOW_1"

OPTION_CODES = {
    "clean_pixel_data": ("113101", "Clean Pixel Data Option"),
    "clean_recognizable_visual_features": ("113102", "Clean Recognizable Visual Features Option"),
    "clean_graphics": ("113103", "Clean Graphics Option"),
    "clean_structured_content": ("113104", "Clean Structured Content Option"),
    "clean_descriptors": ("113105", "Clean Descriptors Option"),
    "retain_longitudinal_full_dates": ("113106", "Retain Longitudinal Temporal Information Full Dates Option"),
    "retain_longitudinal_modified_dates": ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    "retain_patient_characteristics": ("113108", "Retain Patient Characteristics Option"),
    "retain_device_identity": ("113109", "Retain Device Identity Option"),
    "retain_uids": ("113110", "Retain UIDs Option"),
    "retain_safe_private": ("113111", "Retain Safe Private Option"),
    "retain_institution_identity": ("113112", "Retain Institution Identity Option"),
}
"""CID 7050 De-identification Method, beside 113100 of the Basic Profile."""

Value = tuple[int, str, bytes]


@dataclass(frozen=True)
class Mark:
    """One element that is written. `always`: whatever the source had; otherwise only where the source lacks it."""

    tag: int
    vr: str
    value: bytes = b""
    items: tuple[tuple[Value, ...], ...] = ()
    always: bool = True


def codes(params: Params, searched: str = NOT_LOOKED) -> list[tuple[str, str]]:
    """What is claimed: Clean Pixel Data of no file whose pixels were not searched, with OCR."""
    done = options(params) + (("clean_pixel_data",) if searched in (CLEANED, CLEAR) else ())
    chosen = [OPTION_CODES[name] for name in OPTION_CODES if name in done]
    return [("113100", "Basic Application Confidentiality Profile"), *chosen]


@cache
def common(params: Params, searched: str) -> tuple[Mark, ...]:
    items = tuple(
        ((0x00080100, "SH", _even(code)), (0x00080102, "SH", b"DCM "), (0x00080104, "LO", _even(meaning)))
        for code, meaning in codes(params, searched)
    )
    temporal = {"modified": b"MODIFIED", "full": b"UNMODIFIED", "removed": b"REMOVED "}[params.longitudinal]
    return (
        Mark(0x00120062, "CS", b"YES "),
        Mark(0x00120063, "LO", _even(f"{METHOD}\\{PIXELS[searched]}")),
        Mark(0x00120064, "SQ", items=items),
        *((Mark(0x00280301, "CS", b"NO", always=False),) if searched in (CLEANED, CLEAR) else ()),
        Mark(0x00280303, "CS", _even(temporal.decode())),
    )


@lru_cache(maxsize=64)
def marks(params: Params, subject: str, searched: str = NOT_LOOKED) -> tuple[Mark, ...]:
    """In order of tag. PatientName and PatientID are rewritten where they stand, and added where they are missing."""
    return (
        Mark(0x00100010, "PN", _even(subject), always=False),
        Mark(0x00100020, "LO", _even(subject), always=False),
        *common(params, searched),
    )


def file_meta(sop_class: str, sop_uid: str, transfer_syntax: str) -> bytes:
    """128 zero bytes, DICM, and a group 0002 of our own: nothing of the sender's stays."""
    before, after = _around(sop_class, transfer_syntax)
    instance = _meta_element(0x03, b"UI", sop_uid)
    length = len(before) + len(instance) + len(after)
    return b"\0" * 128 + b"DICM\x02\0\0\0UL\x04\0" + length.to_bytes(4, "little") + before + instance + after


@lru_cache(maxsize=64)
def _around(sop_class: str, transfer_syntax: str) -> tuple[bytes, bytes]:
    """What stands before and after the instance's UID."""
    before = b"\x02\x00\x01\x00OB\x00\x00\x02\x00\x00\x00\x00\x01" + _meta_element(0x02, b"UI", sop_class)
    syntax, uid = _meta_element(0x10, b"UI", transfer_syntax), _meta_element(0x12, b"UI", IMPLEMENTATION_UID)
    return before, syntax + uid + _meta_element(0x13, b"SH", IMPLEMENTATION_VERSION)


def _meta_element(number: int, vr: bytes, text: str) -> bytes:
    value = text.encode()
    value += (b"\0" if vr == b"UI" else b" ") * (len(value) % 2)
    return b"\x02\x00" + number.to_bytes(2, "little") + vr + len(value).to_bytes(2, "little") + value


def _even(text: str) -> bytes:
    return text.encode() + b" " * (len(text) % 2)
