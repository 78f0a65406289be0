"""Masks as 3D Slicer, ITK-SNAP, planning systems and SEG writers leave them: accepted where they prove their place."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from hospital import CENTRES, T1, VISIT, Hospital, head, lesion, on_hip_grid
from mask_files import item, nifti, nrrd, rtstruct, seg
from numpy.typing import NDArray
from PIL import Image
from pydicom.uid import generate_uid
from skimage.measure import find_contours

from tasks.annotate import label_studio, masks_in
from tasks.annotate.drawn import label_of, side_of
from tasks.annotate.readers import dice
from tasks.domain.errors import BadInput
from tasks.domain.volume import Volume

HEADER = "file,study_instance_uid,series_instance_uid,side,reader,label\n"


def listed(hospital: Hospital, name: str, *rows: str) -> None:
    visit = hospital.visits[0]
    hospital.csv("masks", HEADER + "".join(f"{name},{visit.study},{visit.t1},{row}\n" for row in rows))


def imported(hospital: Hospital) -> dict[tuple[str, str], str]:
    """{(side, label): status or reason} after an import that was accepted whole."""
    summary = hospital.annotate()
    assert summary.ok, summary.refused
    hospital.arrive()
    hospital.stage()
    rows = hospital.masks()
    rows = rows[rows["status"].isin(["accepted", "rejected"])]
    said = rows["reason"].fillna("accepted").str.split(":").str[0]
    return dict(zip(zip(rows["side"], rows["name"], strict=True), said, strict=True))


def test_a_mask_of_another_patient(hospital: Hospital) -> None:
    visit = hospital.visits[0]
    seg(hospital.src / "a.dcm", visit.images(T1, "t1"), T1, [("head", head(T1, "L"))], PatientID="0815")
    found = imported(hospital)
    assert set(found.values()) == {"other_patient"} and not list(Path("data/masks").iterdir())
    said = Path("reports/annotate/rejected.csv").read_text()
    assert "its patient is not that of the images" in said and re.search(r"\b0815\b", said) is None
    hospital.csv("merges", "site,patient_id,same_site,same_as\nlocal,0815,local,P-0007\n")
    (hospital.src / "a.dcm").unlink()
    assert imported(hospital) == {("L", "head"): "accepted"}  # two identities of one person


def test_a_seg_in_a_study_of_its_own_on_a_finer_grid(hospital: Hospital) -> None:
    """As a workstation keeps it: another study and series, a grid of its own, the side as a code."""
    visit = hospital.visits[0]
    fine = Volume(np.zeros((28, 168, 360), np.uint8), T1.affine @ np.diag([0.5, 2 / 3, 2 / 3, 1.0]))
    path = seg(hospital.src / "a.dcm", visit.images(T1, "t1"), fine, [("AVN", lesion(fine, "L")), ("head", head(fine))])
    ds = pydicom.dcmread(path)
    series = item(SeriesInstanceUID=visit.t1, ReferencedSOPSequence=[])
    other = item(StudyInstanceUID=visit.study, ReferencedSeriesSequence=[series])
    ds.StudiesContainingOtherReferencedInstancesSequence = [other]
    del ds.ReferencedSeriesSequence
    ds.StudyInstanceUID = generate_uid()
    turned = item(CodeValue="7771000", CodingSchemeDesignator="SCT", CodeMeaning="Left")
    ds.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [turned]
    ds.save_as(path)
    assert imported(hospital) == {("L", "head"): "accepted", ("L", "lesion"): "accepted", ("R", "head"): "accepted"}
    assert dice(hospital.mask(visit, "L", "consensus/lesion").astype(bool), on_hip_grid(lesion, "L")) > 0.96


@pytest.mark.parametrize("how", ["seg", "code", "rtstruct"])
def test_a_name_that_claims_the_other_side(hospital: Hospital, how: str) -> None:
    visit = hospital.visits[0]
    images = visit.images(T1, "t1")
    if how == "rtstruct":
        rtstruct(hospital.src / "a.dcm", images[0], [("Femoral_Head_R", contours(head(T1, "L"), T1))])
    else:
        path = seg(hospital.src / "a.dcm", images, T1, [("Right head" if how == "seg" else "head", head(T1, "L"))])
        ds = pydicom.dcmread(path)
        turned = item(CodeValue="24028007", CodingSchemeDesignator="SCT", CodeMeaning="Right")
        ds.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = (
            [turned] if how == "code" else []
        )
        ds.save_as(path)
    assert imported(hospital) == {("R", "head"): "wrong_side"}


def contours(mask: NDArray, volume: Volume) -> list[NDArray]:
    found = []
    for n in np.flatnonzero(mask.any(axis=(1, 2))):
        for line in find_contours(np.pad(mask[n], 1).astype(float), 0.5):
            found.append(volume.to_lps(np.column_stack([np.full(len(line), float(n)), line - 1])))
    return found


@pytest.mark.parametrize("side", ["L", "R"])
def test_a_mask_of_the_hip_grid_as_contours_comes_back(hospital: Hospital, side: str) -> None:
    visit, mask = hospital.visits[0], on_hip_grid(head, side) & ~on_hip_grid(lesion, "L")
    grid = Volume(mask, VISIT.patient_affine(CENTRES[side], side))
    rtstruct(hospital.src / "a.dcm", visit.images(T1, "t1")[0], [("head", contours(mask, grid))])
    assert imported(hospital) == {(side, "head"): "accepted"}
    assert dice(hospital.mask(visit, side, "consensus/head").astype(bool), mask) >= 0.98


def test_slicer_with_a_segment_for_each_side_cropped_to_what_is_drawn(hospital: Hospital) -> None:
    visit = hospital.visits[0]
    values = head(T1, "L") * 1 + head(T1, "R") * 2
    low, high = (np.array(found) for found in zip(*[(a.min(), a.max() + 1) for a in np.nonzero(values)], strict=True))
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    affine = T1.affine.copy()
    affine[:3, 3] = T1.to_lps(low.astype(float))
    names = {"Segment0_Name": "Left femoral head", "Segment0_LabelValue": "1", "Segment0_Layer": "0"}
    names |= {"Segment1_Name": "femoral head R", "Segment1_LabelValue": "2", "Segment1_Layer": "0"}
    nrrd(hospital.src / "s.seg.nrrd", Volume(values[box], affine), values[box], **names)
    listed(hospital, "s.seg.nrrd", ",A,head", "R,B,head")
    found = imported(hospital)
    assert found == {("L", "head"): "accepted", ("R", "head"): "accepted"}
    drawn = [hospital.mask(visit, side, f"{hospital.keys.reader('A')}/head").astype(bool) for side in "LR"]
    assert all(dice(mask, on_hip_grid(head, side)) > 0.96 for mask, side in zip(drawn, "LR", strict=True))
    assert (hospital.mask(visit, "R", f"{hospital.keys.reader('B')}/head").astype(bool) == drawn[1]).all()
    affine[:3, 3] += affine[:3, 2] * 0.4  # a box between the series' voxels is not cut out of it
    nrrd(hospital.src / "s.seg.nrrd", Volume(values[box], affine), values[box], **names)
    imported(hospital)
    rows = hospital.masks()
    assert rows[rows["status"] == "rejected"]["reason"].str.startswith("other_grid").sum() == 3


def test_a_nifti_that_says_two_things_of_its_place(hospital: Hospital) -> None:
    image = nibabel.load(nifti(hospital.src / "m.nii.gz", T1, head(T1, "L")))
    wrong = image.affine.copy()
    wrong[:3, 3] += [0, 0, 12.0]
    image.set_qform(wrong, code=1)
    nibabel.save(image, hospital.src / "m.nii.gz")
    listed(hospital, "m.nii.gz", ",A,head")
    summary = hospital.annotate()
    assert "two_positions: its sform and its qform are 12.0 mm apart" in str(summary.refused[0])


@pytest.mark.parametrize("how", ["canonical", "qform", "float", "metres"])
def test_niftis_that_are_stored_otherwise_are_the_same(hospital: Hospital, how: str) -> None:
    visit = hospital.visits[0]
    image = nibabel.load(nifti(hospital.src / "m.nii.gz", T1, head(T1, "L") * 3))
    if how == "canonical":  # axes turned to R, A, S, as ITK-SNAP and others like them
        image = nibabel.as_closest_canonical(image)
    elif how == "qform":
        image.set_qform(image.affine, code=1)
        image.set_sform(None, code=0)
    elif how == "float":
        image = nibabel.Nifti1Image(np.asarray(image.dataobj).astype(np.float32), image.affine)
    else:
        image = nibabel.Nifti1Image(np.asarray(image.dataobj), np.diag([1e-3, 1e-3, 1e-3, 1]) @ image.affine)
        image.header.set_xyzt_units("meter")
    nibabel.save(image, hospital.src / "m.nii.gz")
    listed(hospital, "m.nii.gz", "L,A,head")
    assert imported(hospital) == {("L", "head"): "accepted"}
    assert dice(hospital.mask(visit, "L", "consensus/head").astype(bool), on_hip_grid(head, "L")) > 0.96


def test_what_claims_gigabytes_is_not_read(hospital: Hospital) -> None:
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.float64)
    header.set_data_shape((600, 600, 600))
    header.set_sform(np.eye(4), 1)
    with open(hospital.src / "big.nii", "wb") as handle:
        header.write_to(handle)
        handle.truncate(2**31)
    (hospital.src / "big.nhdr").write_text(
        "NRRD0005\ntype: double\ndimension: 3\nspace: left-posterior-superior\nsizes: 600 600 600\n"
        "space directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\nencoding: raw\nendian: little\n"
        "data file: big.raw\n"
    )
    with open(hospital.src / "big.raw", "wb") as handle:
        handle.truncate(600**3 * 8)  # sparse: it takes no disk
    (hospital.src / "away.nhdr").write_text(
        "NRRD0005\ntype: uint8\ndimension: 3\nsizes: 2 2 2\ndata file: /etc/passwd\n"
    )
    summary = hospital.annotate()
    assert summary.path is None and sum("too_large" in refusal.reason for refusal in summary.refused) == 2
    reasons = []
    for name in ("big.nii", "big.nhdr", "away.nhdr"):
        row = type("Row", (), {"file": name, "label": "head", "value": None, "side": None})
        reasons += masks_in.read_listed([(2, row)], hospital.src, "masks.csv").refused
    said = [refusal.reason.split(":")[0] for refusal in reasons]
    assert said == ["too_large", "absurd_size", "outside"]


def test_what_was_drawn_on_released_files(hospital: Hospital) -> None:
    """Readers see the de-identified study: ids and UIDs are pseudonyms already, and a table's dates are shifted."""
    visit, keys = hospital.visits[0], hospital.keys
    subject = keys.subject("local", visit.patient)
    images = visit.images(T1, "t1")
    for image in images:
        image.PatientID, image.StudyInstanceUID = subject, keys.uid(visit.study)
        image.SeriesInstanceUID, image.FrameOfReferenceUID = keys.uid(visit.t1), keys.uid(visit.frame)
    seg(hospital.src / "a.dcm", images, T1, [("head", head(T1, "L"))])
    header = "patient_id,study_instance_uid,side,reader,arco\n"
    hospital.csv("labels", f"{header}{subject},{keys.uid(visit.study)},L,A,2\n")
    assert imported(hospital) == {("L", "head"): "accepted"}
    assert json.loads(Path("reports/annotate/agreement.json").read_text())["waiting"] == {}


def test_label_studio_turns_rectangles_and_ellipses_clockwise_about_their_point() -> None:
    """Against the geometry in words: x to the right, y down, degrees clockwise; a rectangle turns about its corner."""
    height, width, turn = 80, 120, np.deg2rad(30)
    y, x = np.mgrid[:height, :width] + 0.5
    size = {"original_height": height, "original_width": width}
    value = {"x": 50, "y": 20, "width": 30, "height": 25, "rotation": 30, "rectanglelabels": ["lesion"]}
    _, plane = label_studio._plane({"type": "rectanglelabels", "value": value, **size}, 1)
    along = (x - 60) * np.cos(turn) + (y - 16) * np.sin(turn)
    down = -(x - 60) * np.sin(turn) + (y - 16) * np.cos(turn)
    assert plane is not None and dice(plane, (along >= 0) & (along < 36) & (down >= 0) & (down < 20)) > 0.97
    value = {"x": 50, "y": 50, "radiusX": 25, "radiusY": 15, "rotation": 30, "ellipselabels": ["head"]}
    _, plane = label_studio._plane({"type": "ellipselabels", "value": value, **size}, 1)
    along = (x - 60) * np.cos(turn) + (y - 40) * np.sin(turn)
    down = -(x - 60) * np.sin(turn) + (y - 40) * np.cos(turn)
    assert plane is not None and dice(plane, (along / 30) ** 2 + (down / 12) ** 2 <= 1) > 0.97


def studio(value: dict, kind: str, size: tuple[int, int] = (6, 8), **result: object) -> dict:
    return {"type": kind, "original_height": size[0], "original_width": size[1], "value": value, **result}


def bitmask(mask: NDArray) -> str:
    """As Label Studio writes it: black where something is drawn, transparent elsewhere."""
    pixels = np.zeros((*mask.shape, 4), np.uint8)
    pixels[..., 3] = mask * 255
    with io.BytesIO() as handle:
        Image.fromarray(pixels).save(handle, "PNG")
        return "data:image/png;base64," + base64.b64encode(handle.getvalue()).decode()


def test_label_studio_bitmasks_and_tasks_of_several_pictures() -> None:
    one, two = np.zeros((2, 6, 8), bool)
    one[2:5, 1:4] = two[0:2, 5:8] = True
    value = {"imageDataURL": bitmask(one), "bitmasklabels": ["head"]}
    results = [
        studio(value, "bitmasklabels"),
        studio(value | {"imageDataURL": bitmask(two)}, "bitmasklabels", item_index=1),
    ]
    results += [
        studio({"x": 1, "y": 1, "keypointlabels": ["head"]}, "keypointlabels"),
        {"type": "choices", "value": {}},
    ]
    place = {"study_instance_uid": "1.2", "series_instance_uid": "1.3", "sop_instance_uid": ["1.4", "1.5"]}
    drawn, notes = label_studio.read([{"data": place, "annotations": [{"completed_by": 7, "result": results}]}])
    assert [(d.sop, d.study) for d in drawn] == [("1.4", "1.2"), ("1.5", "1.2")]
    assert (drawn[0].array[0] == one).all() and (drawn[1].array[0] == two).all()
    assert notes == ["task 1: a keypoint region is no area of one picture and was left out"]
    # A region of the second picture of a task that names one slice belongs nowhere.
    task = {"data": place | {"sop_instance_uid": "1.4"}, "annotations": [{"completed_by": 7, "result": results}]}
    with pytest.raises(BadInput, match=r"no_image_named.*picture 2"):
        label_studio.read([task])
    bad = [("data:image/png;base64,AAAA", "no PNG"), (bitmask(one[:3]), "3 x 8 on 6 x 8"), (bitmask(one)[:-40], "PNG")]
    for url, why in bad:
        with pytest.raises(BadInput, match=why):
            label_studio._plane(studio({"imageDataURL": url, "labels": ["head"]}, "labels"), 1)


@pytest.mark.parametrize("kind", ["seg", "rtstruct", "nifti", "nrrd"])
def test_broken_bytes_are_refused_and_never_raise(hospital: Hospital, kind: str) -> None:
    """Sixty mutations each: bytes changed, cut out, doubled; a refusal names a reason and nothing of the file."""
    visit = hospital.visits[0]
    small = Volume(np.zeros((4, 12, 12), np.uint8), T1.affine)
    mask = np.zeros((4, 12, 12), bool)
    mask[1:3, 3:9, 3:9] = True
    images = visit.images(T1, "t1")
    made = {
        "seg": lambda path: seg(path, images, small, [("head", mask)]),
        "rtstruct": lambda path: rtstruct(path, images[0], [("head", contours(mask, small))]),
        "nifti": lambda path: nifti(path, small, mask),
        "nrrd": lambda path: nrrd(path, small, mask),
    }[kind](hospital.src / {"nifti": "a.nii", "nrrd": "a.nrrd"}.get(kind, "a.dcm"))
    data, rng = made.read_bytes(), np.random.default_rng(5)
    row = type("Row", (), {"file": made.name, "label": "head", "value": None, "side": None, "study_instance_uid": "1.2",
                           "series_instance_uid": "1.3", "reader": "A", "patient_id": None, "site": None})  # fmt: skip
    refused = 0
    for _ in range(60):
        broken = bytearray(data)
        for _ in range(int(rng.integers(1, 6))):
            at = int(rng.integers(0, len(broken) - 8))
            choice = rng.integers(0, 3)
            if choice == 0:
                broken[at : at + 4] = rng.bytes(4)
            elif choice == 1:
                del broken[at : at + int(rng.integers(1, 64))]
            else:
                broken[at:at] = broken[at : at + 16]
        made.write_bytes(broken)
        listed_kind = kind in ("nifti", "nrrd")
        found = masks_in.read_listed([(2, row)], made.parent, "w") if listed_kind else masks_in.read_dicom(made, "w")
        assert found is None or found.drawn or found.refused or found.notes
        refused += bool(found and found.refused)
        assert "Doe" not in str(found and found.refused) and "P-0007" not in str(found and found.refused)
    assert refused > 5


@pytest.mark.parametrize(
    ("name", "label", "side"),
    [
        ("Femur_Head_L", "head", "L"), ("FemoralHead Rt", "head", "R"), ("Hüftkopf re", "head", "R"),
        ("tête fémorale gauche", "head", "L"), ("te\u0302te fe\u0301morale droite", "head", "R"),
        ("Femurkopfnekrose links", "lesion", "L"), ("Läsion", "lesion", ""), ("cabeza femoral izquierda", "head", "L"),
        ("GTV necrosis", "lesion", ""), ("Gefäße", "vessel", ""), ("PTV_7000", None, ""), ("Blase", None, ""),
    ],
)  # fmt: skip
def test_structures_are_known_by_the_names_of_several_languages(name: str, label: str | None, side: str) -> None:
    assert (label_of(name), side_of(name)) == (label, side)
