from __future__ import annotations

import os
import re
import stat
from datetime import date, timedelta
from pathlib import Path

import pytest
from hospital import CE, T1, Hospital, head, vessel
from mask_files import nifti, rtstruct, seg

from tasks.annotate import imports
from tasks.domain.errors import WrongUse

LABELS = "site,patient_id,study_instance_uid,visit_date,side,reader,arco\n"


def fill(hospital: Hospital) -> list[bytes]:
    """A bit of everything in SRC; what must not be found in the import."""
    visit = hospital.visits[0]
    labels = f",P-0007,{visit.study},2021-03-04,L,Dr Müller-Lüdenscheidt,2\nsouth,0815,,2021-03-04,R,Reader B,3A\n"
    hospital.csv("labels", LABELS + labels)
    hospital.csv("treatments", "patient_id,side,date,treatment\nP-0007,L,2021-04-05,core_decompression\n")
    hospital.csv("outcomes", "patient_id,side,date,event\nP-0007,L,2022-04-05,collapse\n")
    hospital.csv("consent", "patient_id,status,date\n0815,withdrawn,2022-01-01\n")
    hospital.csv("merges", "site,patient_id,same_site,same_as\nlocal,P-0007,south,X-4711\n")
    seg(hospital.src / "Smith^John.dcm", visit.images(T1, "t1"), T1, [("head L", head(T1, "L"))])
    nifti(hospital.src / "Smith_John_vessels.nii.gz", CE, vessel(CE))
    header = "file,study_instance_uid,series_instance_uid,reader,label\n"
    hospital.csv("masks", f"{header}Smith_John_vessels.nii.gz,{visit.study},{visit.ce},Reader B,vessel\n")
    words = ["P-0007", "0815", "X-4711", "üller", "Reader", "Anna", "Smith", "Doe", "2021-", "2022-", "south"]
    return [word.encode() for word in (*words, visit.study, visit.ce, visit.frame, visit.sops["t1"][5])]


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Names and contents; Parquet pages are stored as written, so that words would be seen."""
    import pandas as pd

    found = {}
    for path in sorted(folder.rglob("*")):
        found[str(path.relative_to(folder))] = path.read_bytes() if path.is_file() else b""
        if path.suffix == ".parquet":
            found[f"{path.relative_to(folder)} as text"] = pd.read_parquet(path).to_csv().encode()
    return found


def stands(word: bytes, data: bytes) -> bool:
    """An id of digits alone has to stand by itself: a digest or a pseudonym may hold any four digits."""
    if not word.isdigit():
        return word in data
    return re.search(rb"(?<![0-9a-f.])" + word + rb"(?![0-9a-f])", data) is not None


def test_no_name_date_uid_or_reader_is_in_it(hospital: Hospital) -> None:
    words = fill(hospital)
    summary = hospital.annotate()
    assert summary.ok, summary
    everything = bytes_of(hospital.folder / "data") | {"summary": str(summary.as_dict()).encode()}
    found = [(name, word) for name, data in everything.items() for word in words if stands(word, name.encode() + data)]
    assert not found
    # Negative control: the same search finds them in the identified copy.
    kept = b"".join(bytes_of(hospital.folder / "home/identified").values())
    assert all(stands(word, kept) or word in (b"Smith", b"Doe") for word in words[:4])


def test_dates_ids_and_readers_are_keyed_like_the_images(hospital: Hospital) -> None:
    fill(hospital)
    path = hospital.annotate().path
    assert path is not None
    keys = hospital.keys
    rows = {row["reader"]: row for row in imports.rows(path, "labels")}
    south = rows[keys.reader("Reader B")]
    assert south["subject"] == keys.subject("south", "0815") != keys.subject("local", "0815")
    assert south["date"] == (date(2021, 3, 4) + timedelta(days=keys.shift_days("south", "0815"))).isoformat()
    assert rows[keys.reader("Dr Müller-Lüdenscheidt")]["study"] == keys.uid(hospital.visits[0].study)
    (merge,) = imports.rows(path, "merges")
    assert merge["same_as"] == keys.subject("south", "X-4711")
    assert merge["shift_days"] == keys.shift_days("local", "P-0007") - keys.shift_days("south", "X-4711")
    masks = {row["kind"]: row for row in imports.rows(path, "masks")}
    assert masks["seg"]["frame"] == keys.uid(hospital.visits[0].frame)
    assert masks["nifti"]["series"] == keys.uid(hospital.visits[0].ce)


def test_the_same_again_changes_nothing(hospital: Hospital) -> None:
    fill(hospital)
    first = hospital.annotate()
    before = bytes_of(hospital.folder)
    second = hospital.annotate()
    assert (second.path, second.existing, first.existing) == (first.path, True, False)
    assert bytes_of(hospital.folder) == before
    hospital.csv("outcomes", "patient_id,side,date,event\nP-0007,L,2022-04-06,collapse\n")
    third = hospital.annotate()
    assert not third.existing and third.path is not None
    assert [path.name[:4] for path in imports.listed(hospital.folder / "data/imports")] == ["0001", "0002"]


def test_two_homes_with_one_key_make_the_same_bytes(hospital: Hospital) -> None:
    fill(hospital)
    first = hospital.annotate().path
    assert first is not None
    made = bytes_of(first)
    os.rename(hospital.folder / "data", hospital.folder / "elsewhere")
    os.rename(hospital.folder / "home", hospital.folder / "other_home")
    second = hospital.annotate().path
    assert second is not None and second.name == first.name
    assert bytes_of(second) == made


def test_originals_are_kept_byte_for_byte_where_only_the_owner_reads(hospital: Hospital) -> None:
    fill(hospital)
    (hospital.src / "notes.txt").write_text("not an annotation")
    hospital.annotate()
    kept = hospital.folder / "home/identified/annotations/0001"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o700
    for path in hospital.src.iterdir():
        assert (kept / path.name).exists() == (path.name != "notes.txt")
        if path.name != "notes.txt":
            assert (kept / path.name).read_bytes() == path.read_bytes()
            assert stat.S_IMODE((kept / path.name).stat().st_mode) == 0o600
    for path in (hospital.folder / "data/imports").rglob("*"):
        assert path.stat().st_mtime < 315532800 + 10**8  # a real time would tell when an annotation came


def test_a_file_outside_src_is_not_read(hospital: Hospital) -> None:
    visit = hospital.visits[0]
    nifti(hospital.folder / "outside.nii", T1, head(T1))
    header = "file,study_instance_uid,series_instance_uid,reader,label\n"
    hospital.csv("masks", f"{header}../outside.nii,{visit.study},{visit.t1},A,head\n")
    summary = hospital.annotate()
    assert summary.path is None
    assert "masks.csv row 2, column file: outside" in str(summary.refused[0])


def test_one_file_is_enough_and_nothing_is_wrong_use(hospital: Hospital) -> None:
    from tasks.annotate.incoming import intake

    path = hospital.src / "treatments.csv"
    path.write_text("patient_id,side,date,treatment\n1,L,2021-01-01,observation\n")
    common = {"keys": hospital.keys, "site": "local", "identified": hospital.folder / "id", "origin": "hospital"}
    assert intake(path, **common).counts["treatments"] == 1
    with pytest.raises(WrongUse):
        intake(hospital.src / "nowhere", **common)


def test_images_beside_annotations_are_left_where_they_are(hospital: Hospital) -> None:
    import pydicom

    image = hospital.visits[0].images(T1, "t1")[0]
    pydicom.dcmwrite(hospital.src / "image.dcm", image)
    rtstruct(hospital.src / "rt.dcm", image, [("kidney", [])])
    hospital.csv("others", "a,b\n1,2\n")
    summary = hospital.annotate()
    assert summary.path is None and "1 DICOM images were left out" in summary.notes
    assert sorted(str(refusal) for refusal in summary.refused) == [
        "file 2: is not named as one of labels.csv, treatments.csv, outcomes.csv, merges.csv, consent.csv, masks.csv",
        "file 3: no_known_structure: names no closed structure as femoral head, lesion or vessel",
    ]
    assert not list((hospital.folder / "home/identified/annotations").glob("0*"))
