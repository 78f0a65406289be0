"""Comments inside compressed pixel streams go, and the decoded pixels stay."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate, generate_frames

from tasks.anonymize import Params, release
from tasks.keys import Keys

SECRET = b"Zwiebelhuber Kunigunde 12.06.1948"


@pytest.mark.parametrize(
    ("name", "marker"),
    [
        ("MR_small_jp2klossless.dcm", b"\xff\x64"),
        ("MR_small_jpeg_ls_lossless.dcm", b"\xff\xfe"),
        ("MR_small_jpeg_ls_lossless.dcm", b"\xff\xe1"),
        ("examples_ybr_color.dcm", b""),
    ],
)
def test_a_comment_in_the_stream_goes(name: str, marker: bytes, keys: Keys, options: dict[str, Any]) -> None:
    params = Params(**(options | {"clean_pixel_data": False}))
    path = Path(str(pydicom.data.get_testdata_file(name, download=False)))
    source = pydicom.dcmread(path)
    if marker:
        frames = []
        for frame in generate_frames(source.PixelData, number_of_frames=1):
            # JPEG 2000 wants its SIZ segment first.
            at = 4 + struct.unpack_from(">H", frame, 4)[0] if marker == b"\xff\x64" else 2
            comment = marker + struct.pack(">H", len(SECRET) + 4) + b"\0\1" + SECRET
            frames.append(frame[:at] + comment + frame[at:])
        source.PixelData = encapsulate(frames)
    data = io.BytesIO()
    source.save_as(data)
    released = release(data.getvalue(), "local", keys, params).data
    assert SECRET not in released and (not marker or SECRET in data.getvalue())
    assert np.array_equal(pydicom.dcmread(io.BytesIO(released)).pixel_array, pydicom.dcmread(path).pixel_array)
