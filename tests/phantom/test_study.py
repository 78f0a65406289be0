"""The files of a study: valid DICOM of three vendors, true geometry, and every identifying string on the list."""

import datetime as dt
from pathlib import Path

import numpy as np
import pydicom
import pytest
from highdicom._standard_utils import check_required_attributes, get_iod_module_map

from tasks.phantom import one_study
from tasks.phantom.dicomfiles import instance_numbers

VENDORS = ("siemens", "ge", "philips")
pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.xdist_group("phantom-study")]


@pytest.fixture(scope="module", params=VENDORS)
def made(request, tmp_path_factory):
    out = tmp_path_factory.mktemp(request.param)
    hips = {
        "L": {"affected": True, "half_angle_deg": 45.0, "lateral_tilt_deg": 5.0, "anterior_tilt_deg": 5.0,
              "interior": "sclerotic", "oedema": 0.2, "mimic": "", "implant": False, "collapse_mm": 0.0},
        "R": {"affected": False, "mimic": "", "implant": False, "oedema": 0.0, "collapse_mm": 0.0},
    }  # fmt: skip
    study = one_study(out, seed=11, vendor=request.param, matrix=1.5, hips=hips)
    files = [pydicom.dcmread(path) for path in sorted(study["folder"].rglob("*")) if path.is_file()]
    return study, files


def volume(files, uid):
    """(array, affine) of one series, sorted by position along its normal."""
    mine = [ds for ds in files if ds.SeriesInstanceUID == uid]
    row, column = (np.array(mine[0].ImageOrientationPatient[i : i + 3], float) for i in (0, 3))
    normal = np.cross(row, column)
    mine.sort(key=lambda ds: np.dot(normal, np.array(ds.ImagePositionPatient, float)))
    first, last = (np.array(mine[i].ImagePositionPatient, float) for i in (0, -1))
    affine = np.eye(4)
    affine[:3, 0] = (last - first) / (len(mine) - 1)
    affine[:3, 1] = column * float(mine[0].PixelSpacing[0])
    affine[:3, 2] = row * float(mine[0].PixelSpacing[1])
    affine[:3, 3] = first
    return np.stack([ds.pixel_array for ds in mine]).astype(float), affine


def test_every_required_attribute_of_mr_image_storage_is_there(made):
    for ds in made[1][::9]:
        for module in get_iod_module_map()["mr-image"]:
            if module["usage"] == "M":
                check_required_attributes(ds, module["key"], recursive=False)
        assert ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
        assert "Laterality" not in ds
        assert ds.BodyPartExamined == "HIP"


def test_values_fit_their_value_representations(made):
    for ds in made[1][::9]:
        for element in ds.iterall():
            if element.VR not in ("SQ", "OB", "OW", "UN"):
                pydicom.dataelem.DataElement(
                    element.tag, element.VR, element.value, validation_mode=pydicom.config.RAISE
                )


def test_a_study_has_three_series_in_one_frame_of_reference(made):
    study, files = made
    assert {ds.SeriesInstanceUID for ds in files} == set(study["series"].values())
    assert {ds.StudyInstanceUID for ds in files} == {study["study_instance_uid"]}
    assert len({ds.FrameOfReferenceUID for ds in files}) == 1
    assert len({ds.SOPInstanceUID for ds in files}) == len(files) == study["files"]
    assert {ds.PatientID for ds in files} == {study["patient_id"]}


def test_the_contrast_series_is_thin_enough_for_vessels_and_stir_has_its_inversion_time(made):
    study, files = made
    by_uid = {ds.SeriesInstanceUID: ds for ds in files}
    contrast, stir = by_uid[study["series"]["ce"]], by_uid[study["series"]["stir"]]
    assert contrast.MRAcquisitionType == "3D"
    assert contrast.ContrastBolusAgent
    assert 140 <= float(stir.InversionTime) <= 230
    assert 3000 <= float(stir.RepetitionTime) <= 5000


def test_heads_are_where_the_truth_says(made):
    """Marrow is bright within the head, and its dark shell lies at the radius, on both sides."""
    study, files = made
    array, affine = volume(files, study["series"]["t1"])
    array = array / np.percentile(array, 99)
    row = next(row for row in study["truth"] if row["side"] == "R")  # the healthy one
    center, radius = np.array(study["centers"]["R"]), row["head_radius_mm"]
    angles = np.deg2rad(np.arange(-60, 61, 20))
    profile = []
    for reach in (0.0, radius * 0.5, radius - 0.3, radius + 1.2):
        points = center + reach * np.stack([np.sin(angles) * 1.0, 0 * angles, np.cos(angles)], axis=1)
        index = np.round((points - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T).astype(int)
        profile.append(np.median(array[tuple(index.T)]))
    assert min(profile[:2]) > 0.45
    assert min(profile[2:]) < 0.8 * min(profile[:2])
    assert center[0] < 0 < study["centers"]["L"][0]  # +x is the patient's left


def test_the_lesion_is_dark_in_its_own_hip_only(made):
    study, files = made
    array, affine = volume(files, study["series"]["t1"])
    levels = {}
    for side, center in study["centers"].items():
        points = np.array(center) + np.array([[0, 0, 15.0], [2, 0, 14], [-2, 0, 14], [0, 0, 12]])
        index = np.round((points - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T).astype(int)
        levels[side] = np.mean(array[tuple(index.T)])
    assert levels["L"] < 0.6 * levels["R"]


def test_instance_numbers_are_not_positions_on_two_of_three_scanners():
    assert instance_numbers(5, "ascending") == [1, 2, 3, 4, 5]
    assert instance_numbers(5, "descending") == [5, 4, 3, 2, 1]
    assert instance_numbers(5, "interleaved") == [1, 4, 2, 5, 3]


def test_every_name_id_and_uid_in_the_headers_is_on_the_list(made):
    study, files = made
    listed = {value for part in study["phi"].values() for values in part.values() for value in values}
    for ds in files[::9]:
        for element in ds.iterall():
            if element.VR == "PN":
                for group in element.value.components:
                    for part in group.split("^"):
                        assert part in listed or part in ("", "Dr.")
        for keyword in ("PatientID", "AccessionNumber", "PatientAddress", "PatientBirthDate", "StudyInstanceUID",
                        "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID", "PatientTelephoneNumbers",
                        "InstitutionName", "StationName", "DeviceSerialNumber", "StudyDate"):  # fmt: skip
            assert str(ds[keyword].value) in listed, keyword
        assert ds.OtherPatientIDsSequence[0].PatientID in listed


def test_private_elements_hold_the_name_too(made):
    study, files = made
    names = study["phi"]["strings"]["names"]
    private = b"".join(
        element.value if isinstance(element.value, bytes) else str(element.value).encode("utf-8", "replace")
        for element in files[0].iterall()
        if element.tag.is_private
    )
    assert any(name.encode() in private for name in names)


def test_the_same_seed_writes_the_same_bytes(tmp_path):
    digests = []
    for name in ("a", "b"):
        one_study(tmp_path / name, seed=4, vendor="philips", matrix=4.0)
        digests.append(
            {p.relative_to(tmp_path / name): p.read_bytes() for p in tmp_path.glob(f"{name}/**/*") if p.is_file()}
        )
    assert digests[0] == digests[1]
    assert len(digests[0]) > 30


def test_visits_of_a_patient_share_the_person_and_not_the_study(tmp_path):
    first, second = (one_study(tmp_path, seed=4, visit=visit, matrix=4.0) for visit in (0, 1))
    assert first["patient_id"] == second["patient_id"]
    assert first["study_instance_uid"] != second["study_instance_uid"]
    assert first["folder"] != second["folder"]
    days = []
    for study in (first, second):
        ds = pydicom.dcmread(next(p for p in sorted(Path(study["folder"]).rglob("*")) if p.is_file()))
        days.append(dt.datetime.strptime(ds.StudyDate, "%Y%m%d"))
    assert 100 < (days[1] - days[0]).days < 420
