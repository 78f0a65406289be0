"""The patient way: a file that does not follow the encoding rules to the letter is put in order by pydicom first.

What comes out is explicit VR, elements ascending, lengths given, public elements with the VR of the data dictionary;
encapsulated and big-endian pixel data stay as they are. The rewriter then treats it like any other file.
"""

from __future__ import annotations

import io
import logging
import warnings

import pydicom
from pydicom import config

from tasks.domain.errors import BadInput
from tasks.store import dicom
from tasks.store.parsed import UNREADABLE

# pydicom's warnings and log lines quote values.
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)


FAILS = (*UNREADABLE, AssertionError, OSError)
"""What pydicom was seen to raise on mutated bytes in memory."""


def in_order(data: bytes) -> bytes:
    """`data` as a well-made file, or BadInput. Pixels are not decoded; nothing in the file stops the process."""
    if dicom.read_meta(data)[0].get(0x00020010, b"").strip(b" \0").decode("ascii", "replace") == dicom.DEFLATED_LITTLE:
        raise BadInput("malformed", "a deflated dataset that does not follow the encoding rules")
    previous = config.settings.reading_validation_mode, config.settings.writing_validation_mode
    try:
        config.settings.reading_validation_mode = config.settings.writing_validation_mode = config.IGNORE
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(io.BytesIO(data), force=False)
            syntax = dataset.file_meta.TransferSyntaxUID
            # Decoding each element once gives UN and implicit ones the VR of the dictionary.
            dataset.walk(lambda level, element: None)
            out = io.BytesIO()
            implicit = syntax == dicom.IMPLICIT_LITTLE
            dataset.preamble = b"\0" * 128
            pydicom.dcmwrite(
                out,
                dataset,
                implicit_vr=implicit,
                little_endian=syntax != dicom.EXPLICIT_BIG,
                enforce_file_format=False,
            )
        return out.getvalue()
    except (RecursionError, MemoryError):
        raise BadInput("too_deep", "nested deeper than can be read") from None
    except FAILS:
        raise BadInput("malformed", "pydicom cannot put the file in order") from None
    finally:
        config.settings.reading_validation_mode, config.settings.writing_validation_mode = previous
