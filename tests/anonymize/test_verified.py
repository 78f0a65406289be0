"""The verifier's memory: what passes by what passed before would pass in full, and every planted leak is caught."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

import pytest
from pydicom.dataset import Dataset, FileDataset

from bench.anonymizing import corpus
from tasks.anonymize import Params, release, verified, verify
from tasks.anonymize.verify import leaks
from tasks.keys import Keys

Make = Callable[..., FileDataset]
Bytes = Callable[[Dataset], bytes]
Who = tuple[Params, str, int]


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verified, "_pairs", ())
    monkeypatch.setattr(verified, "_differed", {})


@pytest.fixture
def who(keys: Keys, params: Params) -> Who:
    return params, keys.subject("local", "MRN0047110"), keys.shift_days("local", "MRN0047110")


def in_full(source: bytes, released: bytes, who: Who, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    with monkeypatch.context() as patched:
        patched.setattr("tasks.anonymize.verify.remember", lambda *_: None)
        return verify.in_full(source, released, *who)


def series_of(mr: Make, as_bytes: Bytes, implicit: bool, n: int = 8) -> list[bytes]:
    made = []
    for instance in range(1, n + 1):
        ds = mr(instance=instance, implicit=implicit)
        ds.SliceLocation, ds.AcquisitionTime = str(instance * 3.3)[:16], f"1015{instance:02d}"
        ds.AcquisitionDateTime = f"20210315{101500 + instance}"
        ds.ImageComments = ["left hip", "", "HIP of Oberdorfer", "COR"][instance % 4]
        ds.ReferencedImageSequence[0].ReferencedSOPInstanceUID += f".{instance}"
        ds.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0C, "IS", str(instance * 100))
        ds.private_block(0x0029, "ACME", create=True).add_new(0x10, "LO", f"acquired {470000 + instance}")
        made.append(as_bytes(ds))
    return made


@pytest.mark.parametrize("implicit", [False, True])
def test_a_series_is_recognized(
    mr: Make, as_bytes: Bytes, keys: Keys, params: Params, who: Who, implicit: bool
) -> None:
    files = series_of(mr, as_bytes, implicit)
    out = [release(data, "local", keys, params).data for data in files]
    passed = [verified.find(data, released, who) for data, released in zip(files, out, strict=True)]
    assert sum(passed) >= len(files) - 1
    assert not verified.find(files[3], out[3], (params, who[1], who[2] + 1))


@pytest.mark.parametrize("implicit", [False, True])
def test_what_passes_would_pass_in_full(
    mr: Make, as_bytes: Bytes, keys: Keys, params: Params, who: Who, implicit: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of bytes changed at random in the original or in what came out of it."""
    pick = random.Random(17)
    files = series_of(mr, as_bytes, implicit)
    out = [release(data, "local", keys, params).data for data in files]
    names = [b"Zwiebelhuber", b"ZWIEBELHUBER", b"MRN0047110", b"20210315", b"47000", b"COR ", b"1.5 ", b"\xff\xff"]
    passed = 0
    for _ in range(1500):
        n = pick.randrange(len(files))
        pair = [bytearray(files[n]), bytearray(out[n])]
        data = pair[pick.random() < 0.8]
        at = pick.randrange(0, len(data) - 512)
        new = pick.choice([*names, bytes([pick.randrange(256)]), struct.pack("<H", pick.randrange(9))])
        data[at : at + (len(new) if pick.random() < 0.9 else 0)] = new
        source, released = bytes(pair[0]), bytes(pair[1])
        if verified.find(source, released, who):
            passed += 1
            assert in_full(source, released, who, monkeypatch) == []
    assert passed > 20


def test_every_planted_leak_is_caught_in_a_known_series(
    mr: Make, as_bytes: Bytes, read: Callable[[bytes], FileDataset], keys: Keys, params: Params, who: Who
) -> None:
    """The leaks of test_verifier, planted in files of a series that the verifier knows by heart."""
    from tests.anonymize.test_verifier import MUTATIONS

    for kind, mutate in MUTATIONS.items():
        files = []
        for instance in range(1, 4):
            source = mr(instance=instance)
            source.OperatorsName, source.StationName, source.DeviceSerialNumber = "Meier^O", "MRC25641", "SN443322118"
            source.PatientAddress, source.PatientTelephoneNumbers = "Rosengasse 17", "+49 89 1234567"
            source.OtherPatientIDs, source.AcquisitionDateTime = "ALT998877", f"2021031510150{instance}"
            files.append((source, as_bytes(source)))
        known = [release(data, "local", keys, params).data for _, data in files]
        assert verified.find(files[2][1], known[2], who)
        out = read(known[2])
        mutate(out, files[2][0])
        if "meta" not in kind:
            out.file_meta.ImplementationVersionName = "OSTEOFLOW_1"
        planted = as_bytes(out)
        if "meta" not in kind and "preamble" not in kind:
            # The dataset that pydicom wrote behind the file meta that was released.
            planted = known[2][: known[2].index(b"\x08\0\x05\0")] + planted[planted.index(b"\x08\0\x05\0") :]
        assert leaks(files[2][1], planted, *who), kind


def test_the_corpus_of_the_bench_is_recognized(keys: Keys, params: Params) -> None:
    pick = random.Random(5)
    found = []
    for study in (0, 1, 2, 3):
        for n in range(12):
            data = corpus.file(study, 0, n, pick)
            one = release(data, "local", keys, params)
            shift = keys.shift_days("local", f"MRN{471100 + study}")
            found.append(verified.find(data, one.data, (params, one.subject, shift)))
    assert sum(found) >= len(found) - 6
    assert len(verified._pairs) <= verified.MOST_PAIRS
