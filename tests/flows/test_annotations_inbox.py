"""What other systems send beside images: masks and measurements, from the receiver's door to an import."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from hospital import T1, Hospital, Visit, head
from mask_files import seg

from flows.annotations import REFUSED, take_inbox
from tasks.annotate import imports
from tasks.keys import Keys
from tasks.ledger import Ledger
from tasks.receive import accept


@pytest.fixture
def hospital(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hospital:
    (tmp_path / "workspace").mkdir()
    monkeypatch.chdir(tmp_path / "workspace")
    monkeypatch.setenv("OSTEOFLOW_HOME", str(tmp_path / "workspace" / "home"))
    monkeypatch.delenv("OSTEOFLOW_LEDGER_URL", raising=False)
    return Hospital(tmp_path / "workspace", Keys.open(), [Visit("P-0007", 0)])


def inbox() -> list[str]:
    return sorted(p.relative_to("home/identified/inbox/annotations").as_posix()
                  for p in Path("home/identified/inbox/annotations").rglob("*") if p.is_file())  # fmt: skip


def test_what_came_by_c_store_is_imported_under_the_site_of_its_door(hospital: Hospital) -> None:
    visit, ledger = hospital.visits[0], Ledger.open()
    path = seg(hospital.src / "a.dcm", visit.images(T1, "t1"), T1, [("head", head(T1, "L"))], kind="LABELMAP")
    assert accept(path.read_bytes(), ledger, "south", "hospital").outcome == "annotation"
    other = seg(hospital.src / "b.dcm", visit.images(T1, "t1"), T1, [("kidney", head(T1, "L"))])
    assert accept(other.read_bytes(), ledger, "south", "hospital").outcome == "annotation"
    table = Path("home/identified/inbox/annotations/treatments.csv")
    table.write_text("patient_id,side,date,treatment\nP-0007,L,2021-04-05,osteotomy\n")
    assert take_inbox(ledger, 60.0) == 0 and len(inbox()) == 3  # somebody may still be sending
    assert take_inbox(ledger, 0.0) == 2 and inbox() == []
    first, second = imports.listed()
    assert [row["subject"] for row in imports.rows(first, "treatments")] == [hospital.keys.subject("local", "P-0007")]
    (mask,) = imports.rows(second, "masks")
    assert mask["subject"] == hospital.keys.subject("south", "P-0007") and imports.about(second)["origin"] == "hospital"
    (entry,) = ledger.quarantine_entries()
    assert entry.reason == REFUSED and "no_known_segment" in entry.detail and "P-0007" not in entry.detail
    assert entry.path is not None and entry.path.read_bytes() == other.read_bytes()
    assert take_inbox(ledger, 0.0) == 0  # and nothing is read twice


def test_nothing_is_lost_with_a_refused_table(hospital: Hospital) -> None:
    ledger = Ledger.open()
    folder = Path("home/identified/inbox/annotations")
    folder.mkdir(parents=True)
    header = "file,study_instance_uid,series_instance_uid,reader,label\n"
    (folder / "masks.csv").write_text(f"{header}a.nii,1.2,1.3,A,head\nb.nii,1.2,,A,head\n")
    for name in ("a.nii", "b.nii", "letter.txt"):
        (folder / name).write_bytes(name.encode())
    assert take_inbox(ledger, 0.0) == 0 and inbox() == []
    held = {entry.path.read_bytes()[:5]: entry.detail for entry in ledger.quarantine_entries() if entry.path}
    assert set(held) == {b"file,", b"a.nii", b"b.nii", b"lette"} and "row 3" in held[b"file,"]


def test_a_phantoms_mask_never_becomes_a_hospitals(hospital: Hospital) -> None:
    path = seg(hospital.src / "a.dcm", hospital.visits[0].images(T1, "t1"), T1, [("head", head(T1, "L"))])
    ledger = Ledger.open()
    accept(path.read_bytes(), ledger, "local", "phantom")
    assert take_inbox(ledger, 0.0) == 1
    assert [imports.about(folder)["origin"] for folder in imports.listed()] == ["phantom"]


def by_hand(name: str, text: str, age: float = 100.0) -> Path:
    """A file that somebody put into the inbox so many seconds ago."""
    path = Path("home/identified/inbox/annotations") / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (time.time() - age, time.time() - age))
    return path


TREATED = "patient_id,side,date,treatment\nP-0007,L,2021-04-05,osteotomy\n"


def test_what_was_sent_is_taken_at_once_and_what_is_being_copied_is_not(hospital: Hospital) -> None:
    ledger = Ledger.open()
    path = seg(hospital.src / "a.dcm", hospital.visits[0].images(T1, "t1"), T1, [("head", head(T1, "L"))])
    accept(path.read_bytes(), ledger, "south", "hospital")
    table = by_hand("treatments.csv", TREATED[:40], age=0.0)
    assert take_inbox(ledger, 60.0, sent_seconds=0.0) == 1 and inbox() == ["treatments.csv"]
    with open(table, "a") as copying:  # a slow copy that keeps the old time
        copying.write(TREATED[40:])
        copying.flush()
        os.utime(table, (1e9, 1e9))
        assert take_inbox(ledger, 60.0, sent_seconds=0.0) == 0
    assert take_inbox(ledger, 60.0, sent_seconds=0.0) == 1 and inbox() == []
    assert ledger.quarantine_entries() == []


def test_a_part_that_is_coming_is_waited_for_and_a_hidden_file_is_not(hospital: Hospital) -> None:
    ledger = Ledger.open()
    by_hand("treatments.csv", TREATED)
    part = by_hand("masks.csv.part", "file,", age=0.0)
    assert take_inbox(ledger, 60.0) == 0
    part.unlink()
    by_hand(".DS_Store", "x")
    assert take_inbox(ledger, 60.0) == 1 and inbox() == [".DS_Store"]


def test_a_time_in_the_future_holds_nothing_back(hospital: Hospital) -> None:
    by_hand("treatments.csv", TREATED, age=-1e6)
    assert take_inbox(Ledger.open(), 60.0) == 1


def test_by_hand_it_is_of_the_origin_that_is_set(hospital: Hospital, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OSTEOFLOW_ORIGIN", "phantom")
    by_hand("labels@2024/treatments.csv", TREATED)
    assert take_inbox(Ledger.open(), 60.0) == 1
    (found,) = imports.listed()
    assert imports.about(found)["origin"] == "phantom"
    assert [row["subject"] for row in imports.rows(found, "treatments")] == [hospital.keys.subject("local", "P-0007")]


def test_a_file_that_goes_away_is_no_error(hospital: Hospital, monkeypatch: pytest.MonkeyPatch) -> None:
    path, copy = by_hand("treatments.csv", TREATED), shutil.copyfile

    def taken_away(source: Path, target: Path) -> Any:
        path.unlink()
        return copy(source, target)

    ledger = Ledger.open()
    monkeypatch.setattr(shutil, "copyfile", taken_away)
    assert take_inbox(ledger, 60.0) == 0
