"""Hostile bytes: mutated headers, bombs, lies about lengths. No crash, no hang, nothing out without verification."""

from __future__ import annotations

import random
import struct
import time
import zlib
from collections import Counter
from collections.abc import Callable

import pytest
from pydicom.dataset import Dataset, FileDataset

from tasks.anonymize import Params, release
from tasks.anonymize.verify import leaks
from tasks.domain.errors import BadInput
from tasks.keys import Keys

Make = Callable[..., FileDataset]
Bytes = Callable[[Dataset], bytes]


def test_mutated_headers(mr: Make, as_bytes: Bytes, keys: Keys, params: Params) -> None:
    pick = random.Random(11)
    seeds = [as_bytes(mr()), as_bytes(mr(implicit=True))]
    outcomes: Counter[str] = Counter()
    subject, shift = keys.subject("local", "MRN0047110"), keys.shift_days("local", "MRN0047110")
    until = time.monotonic() + 8
    for _ in range(6000):
        data = bytearray(pick.choice(seeds))
        end = len(data) - 520
        for _ in range(pick.randrange(1, 4)):
            at = pick.randrange(132, end)
            action = pick.randrange(5)
            if action == 0:
                data[at] = pick.randrange(256)
            elif action == 1:
                data[at : at + 4] = pick.choice(
                    [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"]
                )
            elif action == 2:
                del data[at : at + pick.randrange(1, 9)]
            elif action == 3:
                data[at:at] = bytes(pick.randrange(256) for _ in range(pick.randrange(1, 9)))
            else:
                data[at : at + 2] = pick.choice([b"SQ", b"UN", b"OB", b"UT", b"PN", b"??"])
        try:
            released = release(bytes(data), "local", keys, params)
        except BadInput as bad:
            outcomes[bad.reason] += 1
            continue
        outcomes["released"] += 1
        if released.subject == subject:
            assert leaks(bytes(data), released.data, params, subject, shift) == []
        if time.monotonic() > until:
            break
    assert outcomes["released"] > 50 and outcomes["truncated"] + outcomes["malformed"] > 50, outcomes


def element(tag: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sHL", tag >> 16, tag & 0xFFFF, vr, 0, len(value)) + value


@pytest.mark.parametrize("defined", [True, False])
def test_a_thousand_levels(mr: Make, as_bytes: Bytes, keys: Keys, params: Params, defined: bool) -> None:
    nested = b""
    for _ in range(1000):
        if defined:
            item = struct.pack("<HHL", 0xFFFE, 0xE000, len(nested)) + nested
            nested = element(0x00081140, b"SQ", item)
        else:
            head = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
            nested = head + nested + b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
    source = mr()
    del source.ReferencedImageSequence
    data = as_bytes(source)
    at = data.index(b"\x10\x00\x10\x00PN")
    started = time.monotonic()
    with pytest.raises(BadInput) as caught:
        release(data[:at] + nested + data[at:], "local", keys, params)
    assert caught.value.reason == "too_deep" and time.monotonic() - started < 5


def test_lengths_of_four_gigabytes(mr: Make, as_bytes: Bytes, keys: Keys, params: Params) -> None:
    data = as_bytes(mr())
    at = data.index(b"\x10\x00\x10\x00PN")
    for vr in (b"OB", b"UN", b"UT", b"SQ"):
        head = b"\x08\x00\x40\x21" + vr + b"\0\0" + struct.pack("<L", 0xFFFFFFFE)
        with pytest.raises(BadInput) as caught:
            release(data[:at] + head + data[at:], "local", keys, params)
        assert caught.value.reason in ("truncated", "malformed")


def test_a_deflated_bomb(
    mr: Make, as_bytes: Bytes, keys: Keys, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.store import dicom

    monkeypatch.setattr(dicom, "MAX_INFLATED", 1 << 20)
    data = as_bytes(mr())
    at = data.index(b"\x08\x00\x05\x00CS")
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = squeeze.compress(data[at:] + b"\0" * (4 << 20)) + squeeze.flush()
    head = data[:at].replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99")
    head = head.replace(b"\x10\0UI\x14\0", b"\x10\0UI\x16\0")
    with pytest.raises(BadInput) as caught:
        release(head + bomb, "local", keys, params)
    assert caught.value.reason == "deflate_bomb"


def test_a_million_elements(mr: Make, as_bytes: Bytes, keys: Keys, params: Params) -> None:
    data = as_bytes(mr())
    at = data.index(b"\x10\x00\x10\x00PN")
    flood = b"\x09\x00\x00\x01SS\x00\x00" * 400_000
    started = time.monotonic()
    with pytest.raises(BadInput) as caught:
        release(data[:at] + flood + data[at:], "local", keys, params)
    assert caught.value.reason == "malformed" and time.monotonic() - started < 5


def test_elements_out_of_order_are_put_in_order(
    mr: Make, as_bytes: Bytes, read: Callable[[bytes], FileDataset], keys: Keys, params: Params
) -> None:
    data = as_bytes(mr())
    name = data[data.index(b"\x10\x00\x10\x00PN") :][: 8 + 22]
    moved = data.replace(name, b"")
    at = moved.index(b"\x08\x00\x20\x00DA")
    out = read(release(moved[:at] + name + moved[at:], "local", keys, params).data)
    assert str(out.PatientName) == out.PatientID
    assert [int(tag) for tag in out.keys()] == sorted(int(tag) for tag in out.keys())  # noqa: SIM118


@pytest.mark.parametrize("kind", ["deflated", "levels", "four gigabytes", "claimed pixels", "claimed item"])
def test_bombs_cost_little_memory(
    mr: Make, as_bytes: Bytes, keys: Keys, params: Params, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused, within a second or two and within a few times the size of what may be inflated."""
    import tracemalloc

    from tasks.store import dicom

    monkeypatch.setattr(dicom, "MAX_INFLATED", 4 << 20)
    ds = mr()
    if kind == "claimed pixels":
        ds.Rows = ds.Columns = 65535
        ds.NumberOfFrames = 1_000_000
    data = as_bytes(ds)
    at = data.index(b"\x10\x00\x10\x00PN")
    bomb = {
        "levels": b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * 1000,
        "four gigabytes": b"\x08\x00\x40\x21UT\0\0\xfe\xff\xff\xff",
        "claimed item": b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xf0\xff\xff\xff",
    }
    if kind in bomb:
        data = data[:at] + bomb[kind] + data[at:]
    elif kind == "deflated":
        start = data.index(b"\x08\x00\x05\x00CS")
        squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
        packed = squeeze.compress(data[start:] + b"\0" * (64 << 20)) + squeeze.flush()
        head = data[:start].replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99")
        data = head.replace(b"\x10\0UI\x14\0", b"\x10\0UI\x16\0") + packed
    tracemalloc.start()
    started = time.process_time()
    try:
        with pytest.raises(BadInput):
            release(data, "local", keys, params)
        assert tracemalloc.get_traced_memory()[1] < 24 << 20 and time.process_time() - started < 5
    finally:
        tracemalloc.stop()
