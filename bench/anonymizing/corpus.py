"""MR files of invented people for timing: 256 x 256 x 16 bit, explicit VR little endian, written byte by byte.

Studies alternate between two makers: one with 150 private elements a file (GE's blocks), one with two private blobs of
38 kB (Siemens' CSA headers). A study is one patient and has two series of 25 slices. From slice to slice vary, as on
the scanners: instance UID and number, position, location, times, window, extreme pixel values, a dozen of the GE
elements, both blobs, and the pixels. With `alone` every file is of its own patient, study and series: nothing that was
learned from the file before helps with the next.
"""

from __future__ import annotations

import random
import struct
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SLICES, SERIES = 25, 2
Row = tuple[int, str, str | bytes]
_LONG = frozenset(b"OB OW SQ UN UT".split())
_ROOT = "1.2.826.0.1.3680043.10.99"
_MR = "1.2.840.10008.5.1.4.1.1.4"
_GE = ((0x0009, "GEMS_IDEN_01"), (0x0019, "GEMS_ACQU_01"), (0x0021, "GEMS_RELA_01"), (0x0025, "GEMS_SERS_01"))
_GE_REST = ((0x0027, "GEMS_IMAG_01"), (0x0043, "GEMS_PARM_01"))
_VRS = ("DS", "SL", "LO", "FL", "SS", "US", "SH", "IS")
_SURNAMES = ("Zwiebelhuber", "Oberdorfer", "Quellmann", "Abendroth", "Kranewitter", "Lindqvist")
_GIVEN = ("Kunigunde", "Balthasar", "Eulalia", "Ottokar", "Walburga", "Leopoldine")


def write(folder: Path, files: int = 2000, alone: bool = False, seed: int = 7) -> list[Path]:
    """Write `files` files below `folder`, one folder a study; returns their paths."""
    pick = random.Random(seed)
    paths = []
    each = 1 if alone else SLICES * SERIES
    for n in range(files):
        study, slot = divmod(n, each)
        series, instance = divmod(slot, SLICES)
        path = folder / f"{study:04d}" / f"{series}-{instance:03d}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file(study, series, instance, pick))
        paths.append(path)
    return paths


def file(
    study: int, series: int, instance: int, pick: random.Random, small: bool = False, implicit: bool = False
) -> bytes:
    """One file. Equal arguments give equal attributes; blobs, pixels and the noise in values come from `pick`.
    `small`: 16 x 16 pixels and blobs of 200 bytes."""
    ge = study % 2 == 0
    uid = f"{_ROOT}.{study + 1}"
    sop = f"{uid}.{series + 1}.{instance + 1}"
    rows = _public(study, series, instance, uid, sop, ge, pick)
    rows += _ge(study, series, instance, pick) if ge else _siemens(pick, 200 if small else 38000)
    side = 16 if small else 256
    rows.append((0x7FE00010, "OW", _pixels(instance, pick)[: side * side * 2]))
    if small:
        sizes = (0x00280010, 0x00280011)
        rows = [(tag, vr, struct.pack("<H", side) if tag in sizes else value) for tag, vr, value in rows]
    syntax = "1.2.840.10008.1.2" if implicit else "1.2.840.10008.1.2.1"
    meta: list[Row] = [(0x00020001, "OB", b"\0\1"), (0x00020002, "UI", _MR), (0x00020003, "UI", sop)]
    meta += [(0x00020010, "UI", syntax), (0x00020012, "UI", f"{_ROOT}.9"), (0x00020013, "SH", "SCANNER")]
    after = _written(meta)
    length = _written([(0x00020000, "UL", struct.pack("<L", len(after)))])
    return b"\0" * 128 + b"DICM" + length + after + _written(rows, implicit)


def _public(study: int, series: int, instance: int, uid: str, sop: str, ge: bool, pick: random.Random) -> list[Row]:
    clock = f"{9 + series:02d}{instance % 60:02d}{10 + study % 40:02d}"
    z = f"{-80 + 3.3 * instance:.5f}"
    reference = _item([(0x00081150, "UI", _MR), (0x00081155, "UI", f"{uid}.99.1")])
    low, high = struct.pack("<H", pick.randrange(20)), struct.pack("<H", 3000 + pick.randrange(900))
    return [
        (0x00080005, "CS", "ISO_IR 100"), (0x00080008, "CS", "ORIGINAL\\PRIMARY\\M\\ND\\NORM"),
        (0x00080012, "DA", "20210315"), (0x00080013, "TM", clock), (0x00080016, "UI", _MR), (0x00080018, "UI", sop),
        (0x00080020, "DA", "20210315"), (0x00080021, "DA", "20210315"), (0x00080022, "DA", "20210315"),
        (0x00080023, "DA", "20210315"), (0x00080030, "TM", "084501.123000"), (0x00080031, "TM", "090001.500000"),
        (0x00080032, "TM", clock + ".2500"), (0x00080033, "TM", clock + ".7500"),
        (0x00080050, "SH", f"ACC{88123 + study}"), (0x00080060, "CS", "MR"),
        (0x00080070, "LO", "GE MEDICAL SYSTEMS" if ge else "SIEMENS"), (0x00080080, "LO", "Klinikum Quellental"),
        (0x00080081, "ST", "Rosengasse 17, Quellental"), (0x00080090, "PN", "Oberdorfer^Balthasar"),
        (0x00081010, "SH", f"MRC2564{study % 3}"), (0x00081030, "LO", "MR Hip both"), (0x0008103E, "LO", "COR PD FS"),
        (0x00081040, "LO", "Radiologie"), (0x00081050, "PN", "Meier^Otto"), (0x00081070, "PN", "Braun^Heike"),
        (0x00081090, "LO", "SIGNA Premier" if ge else "Prisma_fit"), (0x00081140, "SQ", reference),
        (0x00100010, "PN", f"{_SURNAMES[study % 6]}^{_GIVEN[study // 6 % 6]}"), 
        (0x00100020, "LO", f"MRN{471100 + study}"),
        (0x00100030, "DA", f"19{48 + study % 40}0612"), (0x00100040, "CS", "FM"[study % 2]), (0x00101010, "AS", "072Y"),
        (0x00101020, "DS", "1.64"), (0x00101030, "DS", "71"), (0x00101040, "LO", "Lindenweg 4"),
        (0x00180015, "CS", "HIP"), (0x00180020, "CS", "SE"), (0x00180021, "CS", "SK\\SP"), (0x00180022, "CS", "FS"),
        (0x00180023, "CS", "2D"), (0x00180024, "SH", "*tse2d1_11"), (0x00180050, "DS", "3"), (0x00180080, "DS", "3000"),
        (0x00180081, "DS", "28.5"), (0x00180083, "DS", "2"), (0x00180084, "DS", "123.249"), (0x00180085, "SH", "1H"),
        (0x00180086, "IS", "1"), (0x00180087, "DS", "3"), (0x00180088, "DS", "3.3"), (0x00180089, "IS", "256"),
        (0x00180091, "IS", "7"), (0x00180093, "DS", "100"), (0x00180094, "DS", "80"), (0x00180095, "DS", "130"),
        (0x00181000, "LO", "25641"), (0x00181020, "LO", "syngo MR E11"), (0x00181030, "LO", "pd_tse_fs_cor"),
        (0x00181250, "SH", "Body"), (0x00181310, "US", struct.pack("<4H", 0, 256, 256, 0)), (0x00181312, "CS", "ROW"),
        (0x00181314, "DS", "150"), (0x00181315, "CS", "N"), (0x00181316, "DS", "0.5"), (0x00185100, "CS", "HFS"),
        (0x0020000D, "UI", uid), (0x0020000E, "UI", f"{uid}.{series + 1}"), (0x00200010, "SH", f"ST{study}"),
        (0x00200011, "IS", str(series + 1)), (0x00200012, "IS", "1"), (0x00200013, "IS", str(instance + 1)),
        (0x00200032, "DS", f"-180.5\\20.25\\{z}"), (0x00200037, "DS", "1\\0\\0\\0\\0\\-1"), 
        (0x00200052, "UI", f"{uid}.77"),
        (0x00201040, "LO", ""), (0x00201041, "DS", z), (0x00280002, "US", b"\1\0"), (0x00280004, "CS", "MONOCHROME2"),
        (0x00280010, "US", b"\0\1"), (0x00280011, "US", b"\0\1"), (0x00280030, "DS", "0.4\\0.4"),
        (0x00280100, "US", b"\x10\0"), (0x00280101, "US", b"\x0c\0"), (0x00280102, "US", b"\x0b\0"),
        (0x00280103, "US", b"\0\0"), (0x00280106, "US", low), (0x00280107, "US", high),
        (0x00281050, "DS", str(900 + pick.randrange(200))), (0x00281051, "DS", str(1900 + pick.randrange(400))),
        (0x00281055, "LO", "Algo1"), (0x00400244, "DA", "20210315"), (0x00400245, "TM", "084501.123000"),
        (0x00400253, "SH", f"PPS{study}"), (0x00400254, "LO", "MR Hip both"),
    ]  # fmt: skip


def _ge(study: int, series: int, instance: int, pick: random.Random) -> list[Row]:
    """150 private elements over six blocks, of which every twelfth differs from slice to slice."""
    rows: list[Row] = []
    fixed = random.Random(study * 10 + series)
    number = 0
    for group, creator in (*_GE, *_GE_REST):
        rows.append((group << 16 | 0x10, "LO", creator))
        for element in range(0x02, 0x02 + 25):
            vr = _VRS[number % len(_VRS)]
            source = pick if number % 12 == 5 else fixed
            values: dict[str, str | bytes] = {
                "DS": f"{source.uniform(-99, 99):.6f}", "IS": str(source.randrange(9999)), "LO": "GE value",
                "SH": "FSE-XL", "SL": struct.pack("<l", source.randrange(1 << 20)),
                "FL": struct.pack("<f", source.uniform(0, 9)), "SS": struct.pack("<h", source.randrange(999)),
                "US": struct.pack("<H", source.randrange(999)),
            }  # fmt: skip
            rows.append((group << 16 | 0x1000 + element, vr, values[vr]))
            number += 1
    return rows


def _siemens(pick: random.Random, size: int) -> list[Row]:
    return [
        (0x00190010, "LO", "SIEMENS MR HEADER"), (0x0019100C, "IS", "0"), (0x00191028, "FD", struct.pack("<d", 30.2)),
        (0x00290010, "LO", "SIEMENS CSA HEADER"), (0x00291008, "CS", "IMAGE NUM 4"), (0x00291009, "LO", "20210315"),
        (0x00291010, "OB", pick.randbytes(size)), (0x00291018, "CS", "MR"), (0x00291020, "OB", pick.randbytes(size)),
    ]  # fmt: skip


def _pixels(instance: int, pick: random.Random) -> bytes:
    """Two femoral heads in soft tissue, no two pictures alike: 12 bits, noise as a receiver has it."""
    noise = np.random.default_rng(pick.randrange(1 << 32)).normal(0, 25, (256, 256)).astype(np.float32)
    return np.clip(_anatomy(instance) + noise, 0, 4095).astype("<u2").tobytes()


@cache
def _anatomy(instance: int) -> NDArray[np.float32]:
    y, x = np.mgrid[0:256, 0:256].astype(np.float32)
    body = 600 / (1 + np.exp((np.hypot((x - 128) / 1.5, y - 128) - 75).clip(-80, 80) / 3))
    heads = sum(1500 / (1 + np.exp((np.hypot(x - at, y - 120) - 8 - instance).clip(-80, 80) / 2)) for at in (80, 176))
    return (body + heads + 40 * np.sin(x / 19 + instance) * np.cos(y / 23)).astype(np.float32)


def _item(rows: list[Row], implicit: bool = False) -> bytes:
    content = _written(rows, implicit)
    return struct.pack("<HHL", 0xFFFE, 0xE000, len(content)) + content


def _written(rows: list[Row], implicit: bool = False) -> bytes:
    pieces = []
    for tag, vr, value in sorted(rows, key=lambda row: row[0]):
        raw = value.encode() if isinstance(value, str) else value
        raw += (b"\0" if vr in ("UI", "OB") else b" ") * (len(raw) % 2)
        if implicit:
            raw = _item([(0x00081150, "UI", _MR)], True) if vr == "SQ" else raw
            pieces.append(struct.pack("<HHL", tag >> 16, tag & 0xFFFF, len(raw)) + raw)
        elif vr.encode() in _LONG:
            pieces.append(struct.pack("<HH2sHL", tag >> 16, tag & 0xFFFF, vr.encode(), 0, len(raw)) + raw)
        else:
            pieces.append(struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr.encode(), len(raw)) + raw)
    return b"".join(pieces)
