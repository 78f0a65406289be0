from __future__ import annotations

import json
from pathlib import Path

import pydicom
import pytest
from hospital import T1, Hospital, head
from mask_files import seg

from tasks.annotate import masks_in
from tasks.annotate.forget import forget


@pytest.mark.parametrize("encoding", ["utf-8-sig", "latin-1", "utf-16"])
def test_rows_of_tables_as_hospitals_write_them(tmp_path: Path, encoding: str) -> None:
    rows = [
        "sep=;", "Patient ID;site;side;date;treatment;note", '="0815";;L;2021-03-04;osteotomy;"Frau\nMüller"',
        "7;;L;2021-03-04;osteotomy;0815 was here", "0815;south;R;2021-03-04;osteotomy;", "0815;local;R;2021-03-04;x;",
    ]  # fmt: skip
    path = tmp_path / "0001" / "treatments.csv"
    path.parent.mkdir()
    path.write_bytes("\r\n".join(rows).encode(encoding))
    assert forget(tmp_path, "local", ["0815"], []) == 2
    text = path.read_bytes().decode()
    assert "Müller" not in text and "0815 was here" in text and "south" in text and text.startswith("sep=;")
    assert forget(tmp_path, "local", ["0815"], []) == 0 and forget(tmp_path, "south", ["0815"], []) == 1


def test_an_id_that_is_a_stage_too_takes_only_its_own_rows(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("patient_id,side,arco\n2,L,1\n1,L,2\n")
    assert forget(tmp_path, "local", ["2"], []) == 1 and path.read_text() == "patient_id,side,arco\n1,L,2\n"


@pytest.mark.parametrize("end", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
def test_what_only_unicode_calls_a_line_end_is_part_of_a_cell(tmp_path: Path, end: str) -> None:
    """As Excel leaves a soft line break: the row of somebody else must not go instead."""
    path, header, hers = tmp_path / "treatments.csv", "patient_id,note\n", "7,also hers\n"
    path.write_bytes(f"{header}7,a{end}b\n0815,his\r\n{hers}".encode())
    assert forget(tmp_path, "local", ["0815"], []) == 1
    assert path.read_bytes().decode() == f"{header}7,a{end}b\n{hers}"


def test_dicom_without_a_preamble(hospital: Hospital) -> None:
    """It is imported, so it is erased."""
    visit, path = hospital.visits[0], hospital.src / "his.dcm"
    seg(path, visit.images(T1, "t1"), T1, [("head", head(T1, "L"))])
    path.write_bytes(path.read_bytes()[132:])
    assert masks_in.sop_class(path) and forget(hospital.src, "local", ["P-0007"], []) == 1
    (hospital.src / "notes.txt").write_text("P-0007 was here")
    assert forget(hospital.src, "local", ["P-0007"], [visit.study]) == 0


def test_a_study_whose_uid_begins_or_ends_as_another_does(tmp_path: Path) -> None:
    his, others = ("1.2.34.1", "x.1.2.34.1.png", "1.2.34.1.7"), ("1.2.34.12", "11.2.34.1", "9.1.2.34.1")
    tasks = [{"data": {"image": f"/images/{name}"}} for name in (*his, *others)]
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    assert forget(tmp_path, "local", [], [""]) == 0
    assert forget(tmp_path, "local", [], ["1.2.34.1", ""]) == 3
    assert json.loads((tmp_path / "export.json").read_text()) == tasks[3:]


def test_masks_exports_and_objects(hospital: Hospital) -> None:
    visit, other, folder = hospital.visits[0], hospital.visits[2], hospital.src
    seg(folder / "his.dcm", visit.images(T1, "t1"), T1, [("head", head(T1, "L"))])
    seg(folder / "hers.dcm", other.images(T1, "t1"), T1, [("head", head(T1, "L"))])
    (folder / "his.nii").write_bytes(b"1")
    (folder / "hers.nii").write_bytes(b"2")
    lines = [f"his.nii,{visit.study},1.2,A,head", f"hers.nii,{other.study},1.2,A,head"]
    hospital.csv("masks", "\n".join(["file,study_instance_uid,series_instance_uid,reader,label", *lines]))
    tasks = [{"data": {"study_instance_uid": study}, "annotations": []} for study in (visit.study, other.study)]
    (folder / "export.json").write_text(json.dumps(tasks))
    assert forget(folder, "local", ["P-0007"], [visit.study]) == 4
    assert sorted(path.name for path in folder.iterdir()) == ["export.json", "hers.dcm", "hers.nii", "masks.csv"]
    assert pydicom.dcmread(folder / "hers.dcm").PatientID == "0815"
    everything = b"".join(path.read_bytes() for path in folder.iterdir())
    assert visit.study.encode() not in everything and other.study.encode() in everything
