"""DICOM SR by TID 1500, as highdicom writes them and as a hand has written them."""

from __future__ import annotations

from typing import Any

import highdicom as hd
import numpy as np
import pandas as pd
import pydicom
import pytest
from hospital import CENTRES, T1, Hospital, head, on_hip_grid
from mask_files import item
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid
from skimage.measure import find_contours

from tasks.annotate.readers import dice

LEFT, RIGHT = codes.SCT.Left, codes.SCT.Right
MM, DEG = codes.UCUM.Millimeter, codes.UCUM.Degree


def concept(meaning: str) -> hd.sr.CodedConcept:
    return hd.sr.CodedConcept(value=meaning[:16], scheme_designator="99HOSP", meaning=meaning)


def group(name: str, side: Any, numbers: dict[str, tuple[float, Any]], stages: dict[str, str]) -> Any:
    site = hd.sr.FindingSite(anatomic_location=codes.SCT.Hip, laterality=side) if side else None
    return hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid=generate_uid(), identifier=name),
        finding_sites=[site] if site else None,
        measurements=[hd.sr.Measurement(name=concept(n), value=v, unit=unit) for n, (v, unit) in numbers.items()],
        qualitative_evaluations=[hd.sr.QualitativeEvaluation(concept(n), concept(v)) for n, v in stages.items()],
    )


def report(
    hospital: Hospital, groups: list[Any], name: str = "sr.dcm", reader: str = "Reader^Anna", images: Any = ()
) -> Dataset:
    images = images or hospital.visits[0].images(T1, "t1")[:2]
    observer = hd.sr.ObserverContext(
        observer_type=codes.DCM.Person,
        observer_identifying_attributes=hd.sr.PersonObserverIdentifyingAttributes(reader),
    )
    content = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_person_context=observer),
        procedure_reported=concept("MR of hip"),
        imaging_measurements=groups,
    )
    made = hd.sr.Comprehensive3DSR(
        evidence=images, content=content, series_number=8, series_instance_uid=generate_uid(), instance_number=1,
        sop_instance_uid=generate_uid(), manufacturer="m", is_complete=True, is_final=True,
    )  # fmt: skip
    made.save_as(hospital.src / name)
    return made


def read(hospital: Hospital) -> dict[tuple[str, str], str]:
    hospital.arrive()
    table = hospital.stage()
    own = table[(table["kind"] == "label") & (table["reader"] == hospital.keys.reader("Reader^Anna"))]
    assert set(own["source"].str.split("/").str[1].str.split(":").str[0]) <= {"tid1500"}
    return {(side, name): value for side, name, value in zip(own["side"], own["name"], own["value"], strict=True)}


def test_stages_angles_and_collapse_of_both_hips(hospital: Hospital) -> None:
    cm = codes.UCUM.Centimeter
    numbers = {"Modified Kerboul angle, mid-coronal": (112.0, DEG), "Femoral head collapse": (0.31, cm)}
    left = group("hip 1", LEFT, numbers, {"ARCO 2019 stage": "ARCO stage IIIB", "JIC type": "Type C1"})
    right = group("right femoral head", None, {}, {"Steinberg stage": "II C"})
    other = group("bladder", None, {"Volume": (120.0, MM)}, {})
    report(hospital, [left, right, other])
    summary = hospital.annotate()
    assert summary.ok and summary.notes == [
        "file 1: 1 measurement groups hold no stage, angle or collapse and were left out"
    ]
    assert read(hospital) == {
        ("L", "arco"): "3B", ("L", "jic"): "C1", ("L", "kerboul_coronal_deg"): "112", ("L", "collapse_mm"): "3.1",
        ("R", "steinberg"): "2C",
    }  # fmt: skip


def test_a_report_that_is_kept_in_a_study_of_its_own(hospital: Hospital) -> None:
    report(hospital, [group("L", LEFT, {}, {"Ficat stage": "III"})])
    path = hospital.src / "sr.dcm"
    ds = pydicom.dcmread(path)
    ds.StudyInstanceUID = generate_uid()
    ds.save_as(path)
    assert hospital.annotate().ok
    assert read(hospital) == {("L", "ficat"): "3"}


@pytest.mark.parametrize(
    ("numbers", "stages", "side", "reason"),
    [
        ({}, {"ARCO stage": "VII"}, LEFT, "impossible: arco is not one of 1, 2, 3A, 3B, 4"),
        ({}, {"ARCO stage": "III"}, LEFT, "impossible: arco needs its substage"),
        ({}, {"ARCO stage": "II"}, None, "no_side: measurement group 1"),
        (
            {"Kerboul angle coronal": (112.0, MM)},
            {},
            LEFT,
            "unknown_unit: measurement group 1 gives kerboul_coronal_deg",
        ),
        ({"Femoral head collapse": (80.0, MM)}, {}, LEFT, "impossible: collapse_mm lies outside 0 to 30"),
        ({"Femoral head collapse": (6.0, MM)}, {"ARCO stage": "1"}, LEFT, "contradicts itself"),
        ({"Volume": (6.0, MM)}, {}, LEFT, "no_known_measurement"),
    ],
)
def test_reports_that_are_refused(
    hospital: Hospital, numbers: dict[str, Any], stages: dict[str, str], side: Any, reason: str
) -> None:
    report(hospital, [group("hip", side, numbers, stages)])
    summary = hospital.annotate()
    assert summary.path is None and reason in str(summary.refused[0])


def test_the_same_measurement_twice_and_what_is_no_measurement_report(hospital: Hospital) -> None:
    twice = [group("a", LEFT, {}, {"ARCO stage": "1"}), group("b", LEFT, {}, {"ARCO stage": "2"})]
    made = report(hospital, twice)
    made.ConceptNameCodeSequence[0].CodeValue = "18748-4"  # a diagnostic imaging report
    made.save_as(hospital.src / "text.dcm")
    summary = hospital.annotate()
    assert [str(refusal) for refusal in summary.refused] == [
        "file 1: contradiction: measurement group 2 gives arco again, with another value"
    ]
    assert summary.notes == ["file 2: is no TID 1500 measurement report and was left out"]


def code(value: str, scheme: str, meaning: str) -> Dataset:
    return item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def content(kind: str, name: Dataset, **values: Any) -> Dataset:
    return item(ValueType=kind, RelationshipType="CONTAINS", ConceptNameCodeSequence=[name], **values)


def test_a_report_of_older_codes_without_evidence_or_person(hospital: Hospital) -> None:
    """SRT codes, laterality by G-C171, the observer named by whoever verified; a plain angle named by its tracking."""
    made = report(hospital, [group("L", LEFT, {}, {"ARCO stage": "1"})])
    turned = content("CODE", code("G-C171", "SRT", "Laterality"), ConceptCodeSequence=[code("G-A100", "SRT", "Right")])
    site = content(
        "CODE", code("G-C0E3", "SRT", "Finding Site"), ConceptCodeSequence=[code("T-12710", "SRT", "Head of femur")],
        ContentSequence=[turned],
    )  # fmt: skip
    value = item(NumericValue="1.5", MeasurementUnitsCodeSequence=[code("rad", "UCUM", "radian")])
    angle = content("NUM", code("1483009", "SCT", "Angle"), MeasuredValueSequence=[value])
    name = content("TEXT", code("112039", "DCM", "Tracking Identifier"), TextValue="Kerboul sagittal")
    one = content("CONTAINER", code("125007", "DCM", "Measurement Group"), ContentSequence=[name, site, angle])
    made.ContentSequence = [content("CONTAINER", code("126010", "DCM", "Imaging Measurements"), ContentSequence=[one])]
    made.VerifyingObserverSequence = [item(VerifyingObserverName="Reader^Anna")]
    del made.CurrentRequestedProcedureEvidenceSequence
    made.save_as(hospital.src / "sr.dcm")
    assert hospital.annotate().ok
    assert read(hospital) == {("R", "kerboul_sagittal_deg"): "85.9437"}


def region(name: str, where: Any) -> Any:
    return hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid=generate_uid(), identifier=name), referenced_region=where
    )


def outline(drawn: Any) -> Any:
    """(points, 2) row and column, pixel centres at whole numbers, of the longest border."""
    return max(find_contours(np.pad(drawn, 1).astype(float), 0.5), key=len) - 1


def in_pixels(image: Dataset, kind: str, points: Any, frame: int | None = None) -> Any:
    source = hd.sr.SourceImageForRegion(image.SOPClassUID, image.SOPInstanceUID, [frame] if frame else None)
    return hd.sr.ImageRegion(hd.sr.GraphicTypeValues(kind), np.array(points, dtype=float), source)


def accepted(hospital: Hospital) -> list[tuple[str, str]]:
    hospital.arrive()
    hospital.stage()
    masks = hospital.masks()
    return list(masks.loc[masks["status"] == "accepted", ["side", "name"]].itertuples(index=False, name=None))


def test_regions_in_space_are_masks(hospital: Hospital) -> None:
    visit, drawn = hospital.visits[0], head(T1, "L")
    groups = []
    for n in np.flatnonzero(drawn.any(axis=(1, 2))):
        line = outline(drawn[n])
        points = T1.to_lps(np.column_stack([np.full(len(line), float(n)), line]))
        kind = hd.sr.GraphicTypeValues3D.POLYGON
        groups.append(region("left femoral head", hd.sr.ImageRegion3D(kind, points, visit.frame)))
    report(hospital, groups)
    assert hospital.annotate().ok
    assert accepted(hospital) == [("L", "head")]
    assert dice(hospital.mask(visit, "L", "consensus/head").astype(bool), on_hip_grid(head, "L")) > 0.96


def test_regions_in_pixels_are_masks_of_the_images_they_were_drawn_on(hospital: Hospital) -> None:
    """Closed lines of the head, a circle that is a lesion; and what is no area, or of nothing known."""
    visit, drawn = hospital.visits[0], head(T1, "L")
    images = visit.images(T1, "t1")
    groups = []
    for n in np.flatnonzero(drawn.any(axis=(1, 2))):
        line = outline(drawn[n])[:, ::-1] + 0.5  # SCOORD counts columns and rows from the corner of the first pixel
        groups.append(region("left femoral head", in_pixels(images[n], "POLYLINE", line)))
    d, h, w = T1.to_index(CENTRES["L"] + [0.0, 0.0, 8.0])
    centre = np.array([w, h]) + 0.5
    groups += [
        region("lesion left", in_pixels(images[round(d)], "CIRCLE", [centre, centre + [6.0, 0.0]])),
        region("lesion left", in_pixels(images[round(d)], "POLYLINE", [centre, centre + 3, centre + 6])),
        region("bladder", in_pixels(images[round(d)], "CIRCLE", [centre, centre + [6.0, 0.0]])),
    ]
    report(hospital, groups, images=images)
    summary = hospital.annotate()
    why = {-1: "what is no closed line, circle or ellipse", 0: "what is neither head, lesion nor vessel"}
    assert summary.ok and summary.notes == [
        f"file 1: measurement group {len(groups) + n} draws {what}; its region was left out" for n, what in why.items()
    ]
    assert accepted(hospital) == [("L", "head"), ("L", "lesion")]
    assert dice(hospital.mask(visit, "L", "consensus/head").astype(bool), on_hip_grid(head, "L")) > 0.96
    off = hospital.masks().query("name == 'lesion' and status == 'accepted'")["difference_mm"]
    assert off.item() == pytest.approx(8.0, abs=2.2)  # in the nearest slice


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("beyond", "other_grid: it was drawn on an image of another size than its series has"),
        ("elsewhere", "no_slice: the image it was drawn on is not in its series"),
        ("frame", "no_slice: the slice it was drawn on is not known"),
    ],
)
def test_regions_in_pixels_that_fit_no_image(hospital: Hospital, what: str, reason: str) -> None:
    visit = hospital.visits[0]
    images = visit.images(T1, "t1")
    if what == "elsewhere":
        images[7].SOPInstanceUID = generate_uid()
    if what == "frame":  # the series came as one object, and nothing says which of its slices the frame is
        visit.sops["t1"] = [images[7].SOPInstanceUID]
    points = [[170.0, 100.0], [190.0, 100.0], [190.0, 130.0 if what == "beyond" else 110.0], [170.0, 100.0]]
    drawn = in_pixels(images[7], "POLYLINE", points, 3 if what == "frame" else None)
    report(hospital, [region("lesion left", drawn)], images=images)
    assert hospital.annotate().ok
    assert accepted(hospital) == []
    assert set(hospital.masks()["reason"]) == {reason}


def test_a_frame_of_an_enhanced_image_is_found_wherever_it_lies(hospital: Hospital) -> None:
    """Frames 1, 2, 3... of the object lie from back to front."""
    visit, drawn = hospital.visits[0], head(T1, "L")
    images = visit.images(T1, "t1")
    visit.sops["t1"] = [images[0].SOPInstanceUID]
    groups = [
        region("left femoral head", in_pixels(images[0], "POLYLINE", outline(drawn[n])[:, ::-1] + 0.5, 14 - int(n)))
        for n in np.flatnonzero(drawn.any(axis=(1, 2)))
    ]
    report(hospital, groups, images=images)
    assert hospital.annotate().ok
    hospital.arrive()
    series = pd.read_parquet("data/series.parquet")
    series["frames"] = ["+".join(str(14 - n) for n in range(14)) if role == "t1" else "" for role in series["role"]]
    series.to_parquet("data/series.parquet")
    hospital.stage()
    assert dice(hospital.mask(visit, "L", "consensus/head").astype(bool), on_hip_grid(head, "L")) > 0.96
