"""Whatever is dropped into the folder ends somewhere with a reason, and the good files beside it go on."""

from __future__ import annotations

import struct
from pathlib import Path

import pydicom.data
import pytest
from dicom_files import dataset, dicom, encoded, stack, write_tree

from tasks.ledger import Ledger
from tasks.receive import Params, accept, ingest, settle

HUGE = struct.pack("<H", 60000)


def bad_files() -> dict[str, tuple[bytes, str]]:
    """name → (bytes, expected reason)"""
    whole = dicom(study="9.1")
    return {
        "empty": (b"", "empty_file"),
        "notes.txt": (b"the patient called\n", "not_dicom"),
        "cut.dcm": (whole[:-40], "truncated"),
        "cut_header.dcm": (whole[:400], "truncated"),
        "no_study.dcm": (dicom(study="9.2", StudyInstanceUID=None), "missing_study_uid"),
        "no_series.dcm": (dicom(study="9.3", SeriesInstanceUID=None), "missing_series_uid"),
        "no_patient.dcm": (dicom(study="9.4", PatientID=""), "missing_patient_id"),
        "climbing.dcm": (_climbing(), "bad_uid"),
        "huge.dcm": (_rows_claimed(60000), "truncated|absurd_size"),
    }


def _climbing() -> bytes:
    ds = dataset(study="9.5")
    data = encoded(ds)
    uid = b"9.5.1.1"
    evil = b"../../x"
    assert len(uid) == len(evil) and data.count(uid) == 2
    return data.replace(uid, evil)


def _rows_claimed(rows: int) -> bytes:
    return dicom(study="9.6", Rows=rows, Columns=rows)


@pytest.mark.parametrize("name", sorted(bad_files()))
def test_each_is_held_with_its_reason_byte_for_byte(name: str, ledger: Ledger, home: Path) -> None:
    data, reason = bad_files()[name]
    outcome = accept(data, ledger, "local", "hospital")
    assert outcome.outcome == "quarantined"
    assert outcome.reason in reason.split("|")
    [entry] = ledger.quarantine_entries()
    assert entry.path is not None
    assert entry.path.read_bytes() == data
    assert entry.path.is_relative_to((home / "identified" / "quarantine").resolve())
    assert entry.path.stat().st_mode & 0o777 == 0o600
    assert entry.path.parent.stat().st_mode & 0o777 == 0o700
    assert accept(data, ledger, "local", "hospital").outcome == "duplicate"
    assert ledger.quarantined() == {outcome.reason: 1}
    assert not list((home / "identified" / "incoming").rglob("*.dcm"))


def test_the_batch_goes_on(ledger: Ledger, params: Params, tmp_path: Path, home: Path) -> None:
    good = {f"good/{n}": data for n, data in enumerate(stack("1.1", 7))}
    bad = {f"{n % 3}/{name}": data for n, (name, (data, _)) in enumerate(sorted(bad_files().items()))}
    two = {"two/a": dicom("2.1", number=1, patient="A"), "two/b": dicom("2.1", number=2, patient="B")}
    two |= {"two/c": dicom("2.1", number=3, patient="A")}
    same = {"x/1": dicom("3.1", number=1), "x/2": dicom("3.1", number=2), "x/other": dicom("3.1", number=2, Rows=4)}
    tree = write_tree(tmp_path / "in", good | bad | two | same)
    before = {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()}
    said: list[tuple[int, int]] = []
    summary = ingest(tree, ledger, "local", "hospital", params, progress=lambda *at: said.append(at))
    assert summary.files == len(good) + len(bad) + len(two) + len(same)
    assert summary.accepted == 7 + 1 + 2
    assert sum(summary.quarantined.values()) == len(bad) + 2 + 1
    assert summary.quarantined["two_patients_in_study"] == 2
    assert summary.quarantined["duplicate_sop_other_bytes"] == 1
    assert said[-1] == (summary.files, summary.files)
    assert {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()} == before
    assert len(settle(ledger, params, force=True)) == 2
    assert ledger.counts() == {"receiving": 0, "complete": 2, "claimed": 0, "done": 0, "quarantined": 1}
    paths = [entry.path for entry in ledger.quarantine_entries() if entry.path]
    assert all(path.is_relative_to((home / "identified").resolve()) for path in paths)
    again = ingest(tree, ledger, "local", "hospital", params)
    assert (again.accepted, again.duplicates) == (0, again.files)


def test_a_file_for_a_study_under_suspicion_is_held_too(ledger: Ledger) -> None:
    accept(dicom("2.1", number=1, patient="A"), ledger, "local", "hospital")
    accept(dicom("2.1", number=2, patient="B"), ledger, "local", "hospital")
    assert accept(dicom("2.1", number=3, patient="A"), ledger, "local", "hospital").reason == "two_patients_in_study"
    assert ledger.quarantined() == {"two_patients_in_study": 3}


@pytest.mark.parametrize("seed", range(3))
def test_no_mutated_file_stops_the_intake(seed: int, ledger: Ledger, params: Params, tmp_path: Path) -> None:
    import random

    dice = random.Random(seed)
    original = Path(str(pydicom.data.get_testdata_file("MR_small.dcm"))).read_bytes()
    for number in range(60):
        data = bytearray(original[: dice.randrange(200, len(original))] if number % 2 else original)
        for _ in range(dice.randrange(1, 30)):
            data[dice.randrange(132, len(data))] = dice.randrange(256)
        write_tree(tmp_path / "in", {f"{number}": bytes(data)})
    summary = ingest(tmp_path / "in", ledger, "local", "hospital", params)
    assert summary.files == 60
    assert summary.accepted + summary.duplicates + sum(summary.quarantined.values()) == 60


def test_files_that_nobody_here_wrote(ledger: Ledger, params: Params) -> None:
    folder = Path(str(pydicom.data.get_testdata_file("MR_small.dcm"))).parent
    summary = ingest(folder, ledger, "local", "hospital", params)
    done = summary.accepted + summary.duplicates + summary.annotations
    held = sum(summary.quarantined.values())
    assert summary.files == done + held + sum(summary.skipped.values())
    assert summary.accepted > 80
    assert summary.skipped["dicomdir"] >= 1
