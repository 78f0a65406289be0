"""Predicted masks leave as DICOM SEG: in their place, the same bytes again, accepted by a validator and by a PACS."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import highdicom
import numpy as np
import pandas as pd
import pytest
import scans
from pydicom import dcmread

from tasks.domain.errors import WrongUse
from tasks.domain.volume import Grid, Volume
from tasks.publish import dicom_seg
from tasks.store import archives, hips, tables

STUDY, SUBJECT = "2.25.7", "OFAAAA"
VISIT, FINE = Grid((6, 20, 20), (4.0, 1.5, 1.5)), Grid((10, 16, 16), (0.8, 0.8, 0.8))
CENTRES = {"L": np.array([90.0, 5.0, -3.0]), "R": np.array([-92.0, 4.0, -2.0])}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two series and the masks of both its hips."""
    root = tmp_path_factory.mktemp("seg")
    affine = np.array([[0, 0, 4.0, -150], [6.0, 0, 0, -20], [0, -4.0, 0, 60], [0, 0, 0, 1]])
    scan = Volume(np.ones((8, 30, 75), np.float32), affine)
    about = {"StudyDate": "20010203", "StudyTime": "040506", "PatientID": SUBJECT}
    entries = {role: scans.classic(scan, role, STUDY, **about) for role in ("t1", "contrast")}
    archives.write(root / "data/studies/b/s.zip", entries["t1"] + entries["contrast"])
    series = {role: found[0][0].split("/")[0] for role, found in entries.items()}
    study = {"subject": SUBJECT, "study": STUDY, "version": 1, "batch": "b", "archive": "b/s.zip", "days": 0.0}
    tables.write("studies", root / "data/studies.parquet", pd.DataFrame([study | {"files": 16, "status": "ok"}]))
    rows, rng = [], np.random.default_rng(0)
    for side, centre in CENTRES.items():
        key = f"{STUDY}-{side}"
        head = rng.random(VISIT.shape) > 0.5
        masks = {"head": head, "lesion": head & (rng.random(VISIT.shape) > 0.5), "vessel": rng.random(FINE.shape) > 0.9}
        grids = {"head": VISIT, "lesion": VISIT, "vessel": FINE}
        meta = {
            "side": side, "made_from": "abc", "patient_affine":
            {name: grid.patient_affine(centre, side).tolist() for name, grid in grids.items()},
        }  # fmt: skip
        written = hips.HipFile({name: mask.astype(np.uint8) for name, mask in masks.items()}, meta)
        hips.write(root / f"data/segments/{key}.safetensors", written)
        sources = {"t1": series["t1"], "contrast": series["contrast"], "contrast_fine": series["contrast"]}
        hips.write(root / f"data/hips/{key}.safetensors", hips.HipFile({}, {"sources": sources}))
        rows.append({"hip_visit": key, "subject": SUBJECT, "study": STUDY, "side": side, "days": 0.0, "status": "ok",
                     "file": f"{key}.safetensors"})  # fmt: skip
    tables.write("hips", root / "data/hips.parquet", pd.DataFrame(rows))
    return root


@pytest.fixture(scope="module")
def files(workspace: Path) -> list[Path]:
    return dicom_seg.export(workspace, workspace / "out")


def test_each_mask_lies_where_it_was_predicted_on_both_sides(workspace: Path, files: list[Path]) -> None:
    assert len(files) == 4
    for path in files:
        made = highdicom.seg.segread(path)
        side = "L" if "-L-" in path.name else "R"
        kept = hips.read(workspace / f"data/segments/{STUDY}-{side}.safetensors")
        assert made.FrameOfReferenceUID and made.PatientID and made.StudyInstanceUID == STUDY
        for number in made.segment_numbers:
            label = made.get_segment_description(number).segment_label.split()[0]
            found = made.get_volume(segment_numbers=[number], combine_segments=True)
            points = np.argwhere(found.array > 0) @ found.affine[:3, :3].T + found.affine[:3, 3]
            affine = np.array(kept.meta["patient_affine"][label])
            wanted = np.argwhere(kept.tensors[label]) @ affine[:3, :3].T + affine[:3, 3]
            assert {tuple(p) for p in points.round(2).tolist()} == {tuple(p) for p in wanted.round(2).tolist()}


def test_nothing_in_it_tells_the_day_on_which_it_was_made(workspace: Path, files: list[Path]) -> None:
    again = dicom_seg.export(workspace, workspace / "again", [STUDY])
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in files]
    made = dcmread(files[0])
    assert made.ContentDate == made.StudyDate == "20010203" and time.strftime("%Y%m%d") not in str(made)
    described = made.SegmentSequence[0]
    assert described.SegmentAlgorithmType == "AUTOMATIC" and "research use only" in made.SeriesDescription.lower()
    codes = [code.CodeValue for code in described.SegmentedPropertyTypeCodeSequence]
    assert codes == ["2812003"] and made.SegmentSequence[1].SegmentedPropertyTypeCodeSequence[0].CodeValue == "6574001"


def test_a_study_that_is_not_here_is_refused(workspace: Path, tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match="1 of the named studies"):
        dicom_seg.export(workspace, tmp_path, ["2.25.1234"])


@pytest.mark.needs("dciodvfy")
def test_dciodvfy_finds_no_error(files: list[Path]) -> None:
    for path in files:
        said = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
        assert said.returncode == 0 and "Error" not in said.stderr + said.stdout, said.stderr
        assert "Segmentation" in said.stderr + said.stdout


@pytest.mark.needs("Orthanc")
def test_orthanc_stores_them(files: list[Path], tmp_path: Path) -> None:
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        http, dicom = one.getsockname()[1], two.getsockname()[1]
    settings = {"HttpPort": http, "DicomPort": dicom, "RemoteAccessAllowed": False, "AuthenticationEnabled": False}
    settings |= {"StorageDirectory": str(tmp_path / "db"), "IndexDirectory": str(tmp_path / "db"), "Plugins": []}
    (tmp_path / "orthanc.json").write_text(json.dumps(settings))
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(["Orthanc", str(tmp_path / "orthanc.json")], stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{http}"
        _until_up(url)
        for path in files:
            with urllib.request.urlopen(f"{url}/instances", data=path.read_bytes(), timeout=10) as answer:
                assert json.loads(answer.read())["Status"] == "Success"
        with urllib.request.urlopen(f"{url}/series", timeout=10) as answer:
            assert len(json.loads(answer.read())) == 4
    finally:
        process.terminate()
        process.wait(20)


def _until_up(url: str) -> None:
    for _ in range(100):
        try:
            urllib.request.urlopen(f"{url}/system", timeout=2).close()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("Orthanc did not come up")
