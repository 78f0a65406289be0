"""A tree of anything: each file ends as exactly one of released, quarantined, refused, and the batch goes on."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset

from tasks.anonymize import Params, anonymize_tree, list_files, tree
from tasks.domain.errors import WrongUse
from tasks.keys import Crosswalk, Keys

Make = Callable[..., FileDataset]
Bytes = Callable[[Dataset], bytes]

PYDICOM = Path(pydicom.__file__).parent / "data"


def rows_of(src: Path, dst: Path, keys: Keys, params: Params) -> dict[str, dict[str, object]]:
    rows = anonymize_tree(src, dst, keys, params, "local")
    names = [path.relative_to(src).as_posix() for path in list_files(src)]
    assert [row["source"] for row in rows] == list(range(len(names)))
    return dict(zip(names, rows, strict=True))


def test_a_process_gets_whole_folders_and_never_too_many_files(tmp_path: Path) -> None:
    paths = [tmp_path / folder / f"{n}" for folder, many in (("a", 20), ("b", 40), ("c", 600)) for n in range(many)]
    chunks = [[Path(path) for _, path in chunk] for chunk in tree._chunks(list(range(len(paths))), paths)]
    assert [path for chunk in chunks for path in chunk] == paths
    assert [len(chunk) for chunk in chunks] == [60, 256, 256, 88]


def test_links_and_what_is_no_file_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    for name in ("a/b/1", "a/2", "a!"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "a/link").symlink_to(tmp_path / "a/2")
    os.mkfifo(tmp_path / "a/pipe")
    found = [path.relative_to(tmp_path).as_posix() for path in list_files(tmp_path, tmp_path / "out")]
    assert found == sorted(found) == ["a!", "a/2", "a/b/1"]
    assert list_files(tmp_path, tmp_path / "a") == [tmp_path / "a!"]


def test_everything_that_pydicom_ships(tmp_path: Path, keys: Keys, options: dict[str, Any]) -> None:
    params = Params(**(options | {"clean_pixel_data": False}))
    rows = anonymize_tree(PYDICOM / "test_files", tmp_path / "out", keys, params, "local")
    outcomes = Counter(str(row["outcome"]) for row in rows)
    assert set(outcomes) == {"released", "quarantined", "refused"} and outcomes["released"] >= 70
    assert all(row["reason"] for row in rows if row["outcome"] != "released")
    assert not [row for row in rows if row["reason"] == "verification_failed"]
    released = [row for row in rows if row["outcome"] == "released"]
    written = {path.relative_to(tmp_path / "out").as_posix(): path for path in (tmp_path / "out").rglob("*.dcm")}
    assert set(written) == {row["target"] for row in released}
    for row in released:
        data = written[str(row["target"])].read_bytes()
        assert hashlib.sha256(data).hexdigest() == row["sha256_target"]
        with pydicom.dcmread(written[str(row["target"])]) as ds:
            assert ds.PatientIdentityRemoved == "YES"
            ds.walk(lambda level, element: None)


def test_bad_files_end_with_their_reason(tmp_path: Path, mr: Make, as_bytes: Bytes, keys: Keys, params: Params) -> None:
    src = tmp_path / "src"
    (src / "deep" / "er").mkdir(parents=True)
    good = as_bytes(mr(study="1"))
    files: dict[str, tuple[bytes, str]] = {
        "deep/er/good.dcm": (good, ""),
        "empty.dcm": (b"", "empty_file"),
        "note.txt": (b"Kunigunde Zwiebelhuber was here", "not_dicom"),
        "cut.dcm": (as_bytes(mr(study="2"))[:-40], "truncated"),
        "cut_header.dcm": (as_bytes(mr(study="2", instance=2))[:400], "truncated"),
        "prefix_only.dcm": (b"\0" * 128 + b"DICM", "unsupported_transfer_syntax"),
    }

    def variant(name: str, reason: str, study: str, **changed: object) -> None:
        ds = mr(study=study)
        for keyword, value in changed.items():
            if value is None:
                delattr(ds, keyword)
            else:
                setattr(ds, keyword, value)
        files[name] = (as_bytes(ds), reason)

    variant("no_study.dcm", "missing_study_uid", "3", StudyInstanceUID=None)
    variant("no_series.dcm", "missing_series_uid", "3", SeriesInstanceUID=None)
    variant("no_patient.dcm", "missing_patient_id", "4", PatientID="")
    variant("no_sop.dcm", "missing_sop_uid", "4", SOPInstanceUID=None)
    variant("huge.dcm", "absurd_size", "5", Rows=60000, Columns=60000)
    variant("long.dcm", "truncated", "6", Rows=600)
    variant("capture.dcm", "secondary_capture", "7", SOPClassUID="1.2.840.10008.5.1.4.1.1.7")
    variant("report.dcm", "structured_report", "8", SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11")
    variant("document.dcm", "encapsulated_document", "9", SOPClassUID="1.2.840.10008.5.1.4.1.1.104.1")
    variant("state.dcm", "presentation_state", "10", SOPClassUID="1.2.840.10008.5.1.4.1.1.11.1")
    variant("private_class.dcm", "unknown_sop_class", "11", SOPClassUID="1.3.12.2.1107.5.9.1")
    variant("screen.dcm", "screenshot", "12", ImageType=["DERIVED", "SECONDARY", "SCREEN SAVE"])
    path_trick = as_bytes(mr(study="13")).replace(
        b"1.2.826.0.1.3680043.10.99.13.1.1", b"../../../../../../etc/passwd.133"
    )
    files["trick.dcm"] = (path_trick, "bad_uid")
    files["one_patient.dcm"] = (as_bytes(mr(study="20", instance=1)), "two_patients_in_study")
    files["other_patient.dcm"] = (as_bytes(mr(study="20", instance=2, patient="OTHER")), "two_patients_in_study")
    files["zz_copy.dcm"] = (good, "duplicate")
    files["twin_a.dcm"] = (as_bytes(mr(study="21")), "duplicate_sop_uid")
    twin = mr(study="21")
    twin.EchoTime = "99"
    files["twin_b.dcm"] = (as_bytes(twin), "duplicate_sop_uid")
    for name, (data, _) in files.items():
        (src / name).write_bytes(data)
    rows = rows_of(src, tmp_path / "out", keys, params)
    assert {name: row["reason"] for name, row in rows.items()} == {name: reason for name, (_, reason) in files.items()}
    refused = {name for name, row in rows.items() if row["outcome"] == "refused"}
    assert refused == {"capture.dcm", "report.dcm", "document.dcm", "state.dcm", "private_class.dcm", "screen.dcm",
                       "zz_copy.dcm"}  # fmt: skip
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(written) == 1 and written[0].stat().st_mtime == 315532800
    assert not any("Kunigunde" in str(row) or "MRN" in str(row) for row in rows.values())


def test_uids_and_shifts_hold_over_files_and_runs(
    tmp_path: Path, mr: Make, as_bytes: Bytes, keys: Keys, params: Params
) -> None:
    for run, (study, day) in enumerate([("1", "20200101"), ("2", "20200411")]):
        src = tmp_path / f"src{run}"
        src.mkdir()
        for instance in (1, 2):
            (src / f"{instance}.dcm").write_bytes(as_bytes(mr(study=study, day=day, instance=instance)))
        anonymize_tree(src, tmp_path / f"out{run}", keys, params, "local")
    first, second = (
        [pydicom.dcmread(path) for path in sorted((tmp_path / f"out{run}").rglob("*.dcm"))] for run in (0, 1)
    )
    assert len({ds.FrameOfReferenceUID for ds in first}) == 1 and first[0].PatientID == second[0].PatientID
    sops = {ds.SOPInstanceUID: ds for ds in first}
    one = next(ds for ds in first if ds.InstanceNumber == 1)
    assert one.ReferencedImageSequence[0].ReferencedSOPInstanceUID in sops
    from datetime import datetime

    days = [datetime.strptime(ds.StudyDate, "%Y%m%d") for ds in (first[0], second[0])]
    assert (days[1] - days[0]).days == 101
    person = Crosswalk(keys).find(first[0].PatientID)
    assert person is not None and person.patient_id == "MRN0047110" and len(person.studies) == 2


def test_named_sources_and_a_folder_inside_itself(
    tmp_path: Path, mr: Make, as_bytes: Bytes, keys: Keys, params: Params
) -> None:
    src = tmp_path / "src"
    src.mkdir()
    (src / "a.dcm").write_bytes(as_bytes(mr()))
    (src / "link.dcm").symlink_to(src / "a.dcm")
    seen: list[tuple[int, int]] = []
    rows = anonymize_tree(
        src, src / "out", keys, params, "local", name_sources=True, progress=lambda n, of: seen.append((n, of))
    )
    assert [row["source"] for row in rows] == ["a.dcm"] and seen[-1] == (1, 1)
    again = anonymize_tree(src, src / "out", keys, params, "local")
    assert [row["source"] for row in again] == [0] and again[0]["sha256_target"] == rows[0]["sha256_target"]
    with pytest.raises(WrongUse):
        anonymize_tree(tmp_path / "nowhere", tmp_path / "out", keys, params, "local")
    shutil.rmtree(src)


def test_a_pool_of_processes_gives_the_same(
    tmp_path: Path, mr: Make, as_bytes: Bytes, keys: Keys, params: Params
) -> None:
    from tasks.store.mapping import local

    src = tmp_path / "src"
    src.mkdir()
    for n in range(40):
        (src / f"{n:02d}.dcm").write_bytes(as_bytes(mr(instance=n + 1)))
    alone = anonymize_tree(src, tmp_path / "a", keys, params, "local")
    with local(2, preload=("tasks.anonymize",)) as mapper:
        pooled = anonymize_tree(src, tmp_path / "b", keys, params, "local", mapper=mapper)
    assert alone == pooled and all(row["outcome"] == "released" for row in alone)
