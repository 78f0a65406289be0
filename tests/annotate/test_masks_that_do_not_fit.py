from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hospital import CE, HEAD_MM, T1, Hospital, head, lesion, on_hip_grid, vessel
from mask_files import nifti, nrrd, rtstruct, seg
from pydicom import dcmread
from pydicom.uid import generate_uid

from tasks.domain.volume import LPS_TO_RAS, Volume

HEADER = "file,study_instance_uid,series_instance_uid,side,reader,label\n"


def rejected(hospital: Hospital) -> pd.DataFrame:
    summary = hospital.annotate()
    assert summary.path is not None, summary
    hospital.arrive()
    hospital.stage()
    masks = hospital.masks()
    return masks[masks["status"] == "rejected"]


def listed(hospital: Hospital, side: str = "", label: str = "head", series: str | None = None) -> None:
    visit = hospital.visits[0]
    hospital.csv("masks", f"{HEADER}m.nii.gz,{visit.study},{series or visit.t1},{side},A,{label}\n")


def test_another_frame_of_reference(hospital: Hospital) -> None:
    images = hospital.visits[0].images(T1, "t1")
    for image in images:
        image.FrameOfReferenceUID = "1.2.3.4"
    seg(hospital.src / "a.dcm", images, T1, [("head", head(T1, "L"))])
    rows = rejected(hospital)
    assert rows["reason"].str.startswith("other_frame").all() and len(rows) == 2
    assert rows["difference_mm"].min() < 3  # it looks right, but nothing proves it


def test_a_nifti_mirrored_by_mixing_up_lps_and_ras(hospital: Hospital) -> None:
    ras = LPS_TO_RAS @ T1.affine[:, [2, 1, 0, 3]]
    nifti(hospital.src / "m.nii.gz", T1, head(T1, "L"), affine=LPS_TO_RAS @ ras)
    listed(hospital)
    rows = rejected(hospital)
    assert rows["reason"].str.startswith("mirrored").all() and len(rows) == 2
    assert rows["difference_mm"].between(5, 100).all()


def test_a_nifti_on_another_grid_says_by_how_much(hospital: Hospital) -> None:
    ras = LPS_TO_RAS @ T1.affine[:, [2, 1, 0, 3]]
    ras[:3, 3] += [0, 0, 7.5]
    nifti(hospital.src / "m.nii.gz", T1, head(T1, "L"), affine=ras)
    listed(hospital)
    rows = rejected(hospital)
    assert rows["reason"].str.startswith("other_grid: its grid is 7.5 mm away").all() and len(rows) == 2
    np.testing.assert_allclose(rows["difference_mm"], 7.5, atol=0.05)


def test_a_nifti_of_a_series_that_nobody_knows(hospital: Hospital) -> None:
    nifti(hospital.src / "m.nii.gz", T1, head(T1, "L"))
    listed(hospital, series="1.2.3.99")
    assert rejected(hospital)["reason"].str.startswith("unproven").all()


def test_a_claimed_side_that_is_the_other_one(hospital: Hospital) -> None:
    nifti(hospital.src / "m.nii.gz", T1, head(T1, "L"))
    listed(hospital, side="R")
    (row,) = rejected(hospital).to_dict("records")
    assert row["reason"].startswith("wrong_side: it claims side R") and 170 < row["difference_mm"] < 190


def test_masks_of_both_hips_where_one_was_found(hospital: Hospital) -> None:
    images = hospital.visits[0].images(T1, "t1")
    for name, side in (("both", "LR"), ("other", "R")):
        seg(hospital.src / f"{name}.dcm", images, T1, [("head", head(T1, side))], reader=f"Reader^{name}")
    hospital.annotate()
    hospital.arrive(without=("P-0007-R",))
    hospital.stage()
    rows = hospital.masks().set_index("reader")
    both, other = (rows.loc[hospital.keys.reader(f"Reader^{name}")] for name in ("both", "other"))
    assert (both["side"], both["status"]) == ("L", "accepted") and both["difference_mm"] < 2
    assert (other["side"], other["status"]) == ("L", "rejected") and other["reason"].startswith(
        "other_hip: it is drawn 179"
    )


def test_a_head_drawn_beside_the_head(hospital: Hospital) -> None:
    seg(hospital.src / "a.dcm", hospital.visits[0].images(T1, "t1"), T1, [("head", head(T1, "L", shift=(0, 0, -16)))])
    (row,) = rejected(hospital).to_dict("records")
    assert row["side"] == "L" and row["reason"].startswith("out_of_place: its middle is 16 mm")


def test_a_tumour_of_the_knee_is_not_a_lesion_of_the_hip(hospital: Hospital) -> None:
    far = Volume(T1.array, T1.affine.copy())
    far.affine[2, 3] -= 420
    seg(hospital.src / "a.dcm", hospital.visits[0].images(T1, "t1"), far, [("lesion", lesion(T1, "L"))])
    (row,) = rejected(hospital).to_dict("records")
    assert row["reason"].startswith("out_of_place") and row["difference_mm"] > 400


@pytest.mark.parametrize(("label", "radius"), [("lesion", 31.0), ("head", 34.0)])
def test_more_than_a_femoral_head_has_room_for(hospital: Hospital, label: str, radius: float) -> None:
    """Its middle is where it belongs; a mask of all of the proximal femur looks like this."""
    images = hospital.visits[0].images(T1, "t1")
    seg(hospital.src / "a.dcm", images, T1, [(label, head(T1, "L", radius))])
    (row,) = rejected(hospital).to_dict("records")
    assert row["reason"].startswith("too_large: it holds") and "ml" in row["reason"]
    assert row["difference_mm"] == pytest.approx(2 * (radius - HEAD_MM), abs=1)


@pytest.mark.parametrize(("label", "radius"), [("lesion", 24.0), ("head", 28.0)])
def test_all_of_a_femoral_head_has_room_in_it(hospital: Hospital, label: str, radius: float) -> None:
    images = hospital.visits[0].images(T1, "t1")
    seg(hospital.src / "a.dcm", images, T1, [(label, head(T1, "L", radius))])
    assert rejected(hospital).empty and (hospital.masks()["status"] == "accepted").any()


def test_a_lesion_of_the_femoral_shaft_is_none_of_the_head(hospital: Hospital) -> None:
    images = hospital.visits[0].images(T1, "t1")
    seg(hospital.src / "a.dcm", images, T1, [("lesion", head(T1, "L", 8.0, (0, 0, -42)))])
    (row,) = rejected(hospital).to_dict("records")
    assert row["reason"].startswith("outside_head: half of it lies more than") and 14 < row["difference_mm"] < 22


def test_two_readings_of_one_head_that_name_no_reader(hospital: Hospital) -> None:
    """Joined they would be a third mask that nobody drew."""
    images = hospital.visits[0].images(T1, "t1")
    for name, shift in (("a", 0), ("b", 5)):
        mask = head(T1, "L", shift=(0, 0, shift))
        seg(hospital.src / f"{name}.dcm", images, T1, [("head", mask)], reader="")
    (row,) = rejected(hospital).to_dict("records")
    assert row["reason"].startswith("drawn_twice") and row["reader"] == "unnamed"
    (kept,) = hospital.masks().query("status == 'accepted'")["voxels"]
    assert kept == pytest.approx(on_hip_grid(head, "L").sum(), rel=0.05)


def test_a_later_reading_by_somebody_not_named_says_what_it_replaced(hospital: Hospital) -> None:
    images = hospital.visits[0].images(T1, "t1")
    seg(hospital.src / "a.dcm", images, T1, [("head", head(T1, "L"))], reader="")
    hospital.annotate()
    seg(hospital.src / "a.dcm", images, T1, [("head", head(T1, "L", 26.0))], reader="")
    (row,) = rejected(hospital).to_dict("records")
    assert row["reason"].startswith("replaced") and row["source"].startswith("0001")


def test_parts_of_one_lesion_in_several_files_are_one(hospital: Hospital) -> None:
    images = hospital.visits[0].images(T1, "t1")
    for name, shift in (("a", -9), ("b", 9)):
        seg(hospital.src / f"{name}.dcm", images, T1, [("lesion", head(T1, "L", 8.0, (shift, 0, 8)))])
    assert rejected(hospital).empty
    (row,) = hospital.masks().query("status == 'accepted'").to_dict("records")
    assert row["volume_mm3"] == pytest.approx(2 * 4 / 3 * np.pi * 8**3, rel=0.15)


def test_vessels_of_a_hip_without_contrast_have_no_grid(hospital: Hospital) -> None:
    from tasks.store import hips

    nifti(hospital.src / "m.nii.gz", CE, vessel(CE, "L"))
    listed(hospital, label="vessel", series=hospital.visits[0].ce)
    hospital.annotate()
    hospital.arrive()
    path = Path(f"data/hips/0001/{hospital.key(hospital.visits[0], 'L')}.safetensors")
    meta = hips.read(path).meta
    for name in ("grids", "sources", "patient_affine", "frame_of_reference"):
        del meta[name]["contrast_fine"]
    hips.write(path, hips.HipFile({}, meta))
    table = hospital.stage()
    assert table[table["kind"] == "mask"].empty
    assert hospital.masks()["reason"].str.startswith("no_grid").any()


@pytest.mark.parametrize("what", ["truncated", "text", "gigabytes", "slide", "no_geometry", "uneven", "skewed", "4d"])
def test_files_that_cannot_be_masks(hospital: Hospital, what: str) -> None:
    visit = hospital.visits[0]
    path = hospital.src / "a.dcm"
    if what in ("no_geometry", "skewed", "4d"):
        array, affine = head(T1, "L"), np.eye(4)
        if what == "skewed":
            affine = LPS_TO_RAS @ T1.affine[:, [2, 1, 0, 3]]
            affine[:3, 0] += affine[:3, 1] * 0.4
        nifti(hospital.src / "m.nii.gz", T1, array, affine)
        if what != "skewed":
            import nibabel

            four = np.zeros((4, 4, 4, 3), dtype=np.uint8) if what == "4d" else np.zeros((4, 4, 4), dtype=np.uint8)
            nibabel.save(nibabel.Nifti1Image(four, None), hospital.src / "m.nii.gz")
        listed(hospital)
    else:
        seg(path, visit.images(T1, "t1"), T1, [("head", head(T1, "L"))])
        ds = dcmread(path)
        if what == "gigabytes":
            ds.Rows = ds.Columns = 60000
        if what == "slide":
            ds.DimensionOrganizationType = "TILED_FULL"
        if what == "uneven":
            position = ds.PerFrameFunctionalGroupsSequence[3].PlanePositionSequence[0]
            position.ImagePositionPatient = [
                float(v) + 1.9 * float(d)
                for v, d in zip(position.ImagePositionPatient, T1.affine[:3, 0] / 4.4, strict=True)
            ]
        ds.save_as(path)
        if what == "truncated":
            path.write_bytes(path.read_bytes()[:3000])
        if what == "text":
            path.write_text("this is no DICOM")
    summary = hospital.annotate()
    assert summary.path is None
    reasons = {
        "truncated": "malformed", "gigabytes": "absurd_size: claims", "slide": "tiled", "uneven": "uneven_slices",
        "no_geometry": "bad_geometry: states no position", "skewed": "bad_geometry: its axes", "4d": "not_a_volume",
    }  # fmt: skip
    if what == "text":
        assert not summary.refused and summary.notes == ["1 other files were left out"]
    else:
        assert reasons[what] in str(summary.refused[0])


def test_a_damaged_nrrd_and_an_rtstruct_of_two_series(hospital: Hospital) -> None:
    visit = hospital.visits[0]
    nrrd(hospital.src / "m.nrrd", T1, head(T1))
    (hospital.src / "m.nrrd").write_bytes((hospital.src / "m.nrrd").read_bytes()[:400])
    hospital.csv(
        "masks", f"{HEADER}m.nrrd,{visit.study},{visit.t1},,A,head\ngone.nii,{visit.study},{visit.t1},,A,head\n"
    )
    square = T1.to_lps(np.array([[5, 10, 10], [5, 10, 30], [5, 30, 30], [5, 30, 10]], dtype=float))
    path = rtstruct(hospital.src / "rt.dcm", visit.images(T1, "t1")[0], [("head", [square])])
    ds = dcmread(path)
    series = ds.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0].RTReferencedSeriesSequence
    other = dcmread(path).ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
    series.append(other.RTReferencedSeriesSequence[0])
    series[1].SeriesInstanceUID = generate_uid()
    ds.save_as(path)
    said = [str(refusal) for refusal in hospital.annotate().refused]
    assert said == [
        "masks.csv row 2, column file: damaged: cannot be read as NRRD or MetaImage",
        "masks.csv row 3, column file: missing_file: is not there",
        "file 3: several_series: refers to 2 series; one structure set belongs to one",
    ]
