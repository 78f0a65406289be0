"""Files of a series by what they have in common: the bytes that the long way gives, and nothing is mistaken."""

from __future__ import annotations

import random
import struct
import sys
from collections.abc import Callable, Iterator

import pytest
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless

from bench.anonymizing import corpus
from tasks.anonymize import Params, release
from tasks.anonymize.series import MOST, Memory
from tasks.domain.errors import BadInput
from tasks.keys import Keys

Make = Callable[..., FileDataset]
Bytes = Callable[[Dataset], bytes]
way = sys.modules["tasks.anonymize.release"]


@pytest.fixture
def recognized(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """For each file that was released since: was it recognized by the files before it?"""
    seen: list[bool] = []
    find = Memory.find

    def watched(self: Memory, data: bytes) -> object:
        found = find(self, data)
        seen.append(found is not None)
        return found

    way._memory.cache_clear()
    with monkeypatch.context() as patched:
        patched.setattr(Memory, "find", watched)
        yield seen
    way._memory.cache_clear()


def released(data: bytes, keys: Keys, params: Params) -> bytes | str:
    """What comes out: the bytes, or the reason why nothing does."""
    try:
        return release(data, "local", keys, params).data
    except BadInput as bad:
        return bad.reason


def the_long_way(data: bytes, keys: Keys, params: Params) -> bytes | str:
    memory = way._memory("local", keys, params)
    kept, memory.kept = memory.kept, ()
    try:
        return released(data, keys, params)
    finally:
        memory.kept = kept


def series_of(mr: Make, as_bytes: Bytes, kind: str, n: int) -> list[bytes]:
    """Files of one series in which much differs: values of all kinds, sequences, private elements, lengths."""
    made = []
    for instance in range(1, n + 1):
        ds = mr(instance=instance, implicit=kind == "implicit")
        ds.InstanceNumber, ds.SliceLocation = str(instance), str(instance * 3.3)[:16]
        ds.AcquisitionTime = f"1015{instance:02d}"
        ds.ImageComments = ["left hip", "", "HIP of Oberdorfer", "COR"][instance % 4]
        ds.LargestImagePixelValue = 1000 + instance
        ds.BodyPartExamined = "HIP" if instance % 5 else "Zwiebelhuber"
        if instance % 2:
            ds["ImageComments"].VR = "LT"
        ds.ReferencedImageSequence[0].ReferencedSOPInstanceUID += f".{instance}"
        siemens = ds.private_block(0x0019, "SIEMENS MR HEADER", create=True)
        siemens.add_new(0x0C, "IS", str(instance * 100))
        siemens.add_new(0x0E, "FD", [0.1 * instance, 0.2, 0.97])
        siemens.add_new(0x20, "LO", f"noise {instance}" * (instance % 3))
        ds.private_block(0x0029, "ACME", create=True).add_new(0x10, "OB", bytes([instance]) * (5000 + 2 * instance))
        if kind == "open":
            ds["ReferencedImageSequence"].is_undefined_length = True
            ds.ReferencedImageSequence[0].is_undefined_length_sequence_item = True
        if kind == "encapsulated":
            stream = b"\xff\x4f\xff\x51\0\4ab\xff\x64\0\x0bZwiebelhu\xff\x90" + bytes([instance]) * 9
            ds.PixelData = encapsulate([stream + b"\0" * (len(stream) % 2)])
            ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
            ds.file_meta.TransferSyntaxUID = JPEG2000Lossless
        if kind == "no pixels":
            del ds.PixelData, ds.Rows
        made.append(as_bytes(ds))
    return made


@pytest.mark.parametrize("kind", ["explicit", "implicit", "open", "encapsulated", "no pixels"])
def test_the_same_bytes_as_by_the_long_way(
    mr: Make, as_bytes: Bytes, keys: Keys, params: Params, recognized: list[bool], kind: str
) -> None:
    files = series_of(mr, as_bytes, kind, 12)
    short = [released(data, keys, params) for data in files]
    assert sum(recognized) >= 8 and all(isinstance(one, bytes) for one in short)
    assert short == [the_long_way(data, keys, params) for data in files]


def test_the_corpus_of_the_bench(keys: Keys, params: Params, recognized: list[bool]) -> None:
    pick = random.Random(5)
    files = [corpus.file(study, series, n, pick) for study in (0, 1, 2) for series in (0, 1) for n in range(9)]
    short = [released(data, keys, params) for data in files]
    assert sum(recognized) >= len(files) - 12
    assert short == [the_long_way(data, keys, params) for data in files]


def test_a_picture_of_a_screen_in_a_known_series_is_refused(
    mr: Make, as_bytes: Bytes, keys: Keys, params: Params, recognized: list[bool]
) -> None:
    """What a header says of its series is remembered for the series, but for what differs in it."""
    kinds = ["MPR", "ND", "NORM", "DIS2D", "SCREEN SAVE", "MPR"]
    outcomes = []
    for instance, kind in enumerate(kinds, start=1):
        ds = mr(instance=instance)
        ds.ImageType = ["DERIVED", "PRIMARY", kind]
        outcomes.append(released(as_bytes(ds), keys, params))
    assert recognized[2:5] == [True] * 3
    assert outcomes[4] == "screenshot" and all(isinstance(one, bytes) for one in [*outcomes[:4], outcomes[5]])


def test_interleaved_patients_are_not_mixed_up(
    mr: Make, as_bytes: Bytes, keys: Keys, params: Params, recognized: list[bool]
) -> None:
    files = [
        as_bytes(mr(patient=f"MRN004711{who}", name=f"Zwiebel{'abc'[who]}^K", study=str(who), instance=n))
        for n in range(1, 8)
        for who in range(3)
    ]
    short = [released(data, keys, params) for data in files]
    assert sum(recognized) >= 15
    assert short == [the_long_way(data, keys, params) for data in files]


def test_a_changed_person_or_place_is_another_patient(
    mr: Make, as_bytes: Bytes, keys: Keys, params: Params, recognized: list[bool]
) -> None:
    for n in range(1, 6):
        released(as_bytes(mr(instance=n)), keys, params)
    assert recognized[-1]
    for keyword, value in {
        "PatientName": "Abendroth^Eulalia", "PatientID": "OTHER", "ReferringPhysicianName": "Pd^Cor",
        "SpecificCharacterSet": "ISO_IR 100", "InstitutionName": "Cor", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
    }.items():  # fmt: skip
        ds = mr(instance=9)
        setattr(ds, keyword, value)
        data = as_bytes(ds)
        short = released(data, keys, params)
        assert recognized.pop() is False, keyword
        assert short == the_long_way(data, keys, params), keyword


def test_another_creator_is_not_taken_for_a_safe_one(
    mr: Make, as_bytes: Bytes, keys: Keys, params: Params, recognized: list[bool]
) -> None:
    files = series_of(mr, as_bytes, "explicit", 8)
    for data in files:
        released(data, keys, params)
    assert recognized[-1]
    foreign = files[-1].replace(b"SIEMENS MR HEADER", b"SIEMENS XX HEADER")
    out = released(foreign, keys, params)
    assert recognized.pop() is False and isinstance(out, bytes) and b"HEADER" not in out


def test_mutated_files_of_a_known_series(mr: Make, as_bytes: Bytes, keys: Keys, params: Params) -> None:
    """Whatever happens to the bytes of a file, it comes out as it would without memory, or for the same reason."""
    pick = random.Random(3)
    way._memory.cache_clear()
    files = series_of(mr, as_bytes, "explicit", 6) + series_of(mr, as_bytes, "implicit", 6)
    good = [released(data, keys, params) for data in files]
    assert all(isinstance(one, bytes) for one in good)
    for _ in range(2000):
        data = bytearray(pick.choice(files))
        at = pick.randrange(128, len(data) - 512)
        data[at : at + pick.randrange(3)] = pick.choice([b"", b"\0", b"\xff\xff", b"LO", b"Z", struct.pack("<H", at)])
        assert released(bytes(data), keys, params) == the_long_way(bytes(data), keys, params)
    way._memory.cache_clear()


def test_what_is_kept_is_bounded(mr: Make, as_bytes: Bytes, keys: Keys, params: Params) -> None:
    for n in range(3 * MOST):
        released(as_bytes(mr(patient=f"P{n}", study=str(n))), keys, params)
    memory = way._memory("local", keys, params)
    assert len(memory.kept) == MOST
    huge = mr()
    for number in range(100):
        huge.add_new(0x00090000 + 0x1000 + number, "LO", "x" * 4000)
    assert isinstance(released(as_bytes(huge), keys, params), bytes)
    assert sum(len(step[0]) for one in memory.kept for step in one.steps) < 1 << 20
    way._memory.cache_clear()
