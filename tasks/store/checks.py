"""What is wrong with the header of one DICOM file: nobody's, nothing's, or more claimed than there is.

`receive` and `anonymize` judge files by these rules alike. Reasons, beside those of reading (tasks.store.dicom):
dicomdir · missing_sop_class · missing_sop_uid · missing_series_uid · missing_study_uid · missing_patient_id · bad_uid ·
absurd_size · truncated.
"""

from __future__ import annotations

from pathlib import Path

from tasks.domain.errors import BadInput
from tasks.store import dicom
from tasks.store.dicom import Header

DICOMDIR_CLASS = "1.2.840.10008.1.3.10"
MAX_PIXEL_BYTES = 1 << 32
"""A file that claims more pixels (rows x columns x samples x frames x bits) is refused."""


def check_header(header: Header) -> str | None:
    """The reason why this file cannot be used, or None. Missing things first, then impossible ones."""
    if header.meta.get(0x00020002, b"").strip(b" \0") == DICOMDIR_CLASS.encode():
        return "dicomdir"
    if fault := _fault_of_series(header):
        return fault
    sop_uid = header.sop_uid
    if not sop_uid:
        return "missing_sop_uid"
    return _fault_of_pixels(header) if dicom.is_uid(sop_uid) else "bad_uid"


@dicom.by_values(
    dicom.SPECIFIC_CHARACTER_SET,
    dicom.SOP_CLASS_UID,
    dicom.PATIENT_ID,
    dicom.STUDY_INSTANCE_UID,
    dicom.SERIES_INSTANCE_UID,
)
def _fault_of_series(header: Header) -> str | None:
    """What all files of a series have in common, the missing before the impossible."""
    if header.sop_class == DICOMDIR_CLASS:
        return "dicomdir"
    for value, reason in (
        (header.study_uid, "missing_study_uid"),
        (header.series_uid, "missing_series_uid"),
        (header.sop_class, "missing_sop_class"),
        (header.patient_id, "missing_patient_id"),
    ):
        if not value:
            return reason
    return None if all(map(dicom.is_uid, (header.study_uid, header.series_uid, header.sop_class))) else "bad_uid"


def pixel_bytes(header: Header) -> int | None:
    """Bytes of native pixel data that rows, columns, samples, frames and bits ask for; None when they do not say."""
    if header.pixel is None or (claimed := _claimed(header)) is None:
        return None
    samples, bits = claimed
    return (samples * ({0x7FE00008: 32, 0x7FE00009: 64}.get(header.pixel[0]) or bits) + 7) // 8


@dicom.by_values(
    dicom.SAMPLES_PER_PIXEL, dicom.PHOTOMETRIC, dicom.NUMBER_OF_FRAMES, dicom.ROWS, dicom.COLUMNS, dicom.BITS_ALLOCATED
)
def _claimed(header: Header) -> tuple[int, int] | None:
    """Samples in all frames, and bits for each."""
    rows, columns, frames = header.integer(dicom.ROWS), header.integer(dicom.COLUMNS), _frames(header)
    if not rows or not columns or not 0 <= frames <= 1 << 24:
        return None
    samples = rows * columns * (header.integer(dicom.SAMPLES_PER_PIXEL) or 1) * max(int(frames), 1)
    if header.text(dicom.PHOTOMETRIC).startswith("YBR_FULL_422"):
        samples = samples * 2 // 3
    return samples, header.integer(dicom.BITS_ALLOCATED) or 16


@dicom.by_values(dicom.NUMBER_OF_FRAMES)
def _frames(header: Header) -> float:
    return (header.floats(dicom.NUMBER_OF_FRAMES) or [1.0])[0]


def _fault_of_pixels(header: Header) -> str | None:
    """Claimed size against what is there."""
    if not 0 <= _frames(header) <= 1 << 24:
        return "absurd_size"
    expected = pixel_bytes(header)
    if header.pixel is None or expected is None:
        return None
    _, start, end, encapsulated = header.pixel
    if expected > MAX_PIXEL_BYTES:
        return "absurd_size"
    if encapsulated:
        return "truncated" if end - start < 16 else None
    return "truncated" if end - start < expected else None


def checked_header(source: Path | str | bytes) -> Header:
    """`dicom.read_header` and `check_header` in one: raises BadInput with the reason of either."""
    header = dicom.read_header(source)
    reason = check_header(header)
    if reason is not None:
        raise BadInput(reason)
    return header
