"""What a reader drew, in every format, is the same on the hip's grid."""

from __future__ import annotations

import json
from pathlib import Path

import mask_files as writers
import numpy as np
import pandas as pd
import pydicom
import pytest
from hospital import CE, CENTRES, FINE, PARAMS, T1, VISIT, Hospital, head, lesion, on_hip_grid, vessel
from numpy.typing import NDArray
from skimage.measure import find_contours

from tasks.annotate import dicom_seg, drawn, fit, place, rtstruct
from tasks.annotate.params import Params
from tasks.annotate.readers import dice
from tasks.domain.volume import Volume
from tasks.store import hips


def of(hospital: Hospital, name: str) -> str:
    return f"{hospital.keys.reader(name)}"


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_seg_of_both_hips(hospital: Hospital, kind: str) -> None:
    visit = hospital.visits[0]
    images = visit.images(T1, "t1")
    both = lesion(T1, "L")
    masks = [("Left femoral head", head(T1, "L") & ~both), ("Femoral head R", head(T1, "R")), ("Osteonecrosis", both)]
    writers.seg(hospital.src / "a.dcm", images, T1, masks, kind)
    summary = hospital.annotate()
    assert summary.counts["masks"] == 3 and summary.ok, summary
    hospital.arrive()
    table = hospital.stage()
    reader = of(hospital, "Reader^Anna")
    rows = table[(table["kind"] == "mask") & (table["reader"] == "consensus")]
    assert sorted(zip(rows["side"], rows["name"], strict=True)) == [("L", "head"), ("L", "lesion"), ("R", "head")]
    assert set(rows["value"]) == {f"{hospital.key(visit, side)}.safetensors" for side in "LR"}
    truth = on_hip_grid(head, "R")
    assert dice(hospital.mask(visit, "R", f"{reader}/head").astype(bool), truth) > 0.96
    truth = on_hip_grid(lesion, "L")
    assert dice(hospital.mask(visit, "L", "consensus/lesion").astype(bool), truth) > 0.94  # 22 mm in 4.4 mm slices


@pytest.mark.parametrize("side", ["L", "R"])
@pytest.mark.parametrize("grid", ["visit", "fine"])
def test_a_mask_of_the_hip_grid_comes_back_exactly(hospital: Hospital, side: str, grid: str) -> None:
    """Hip-grid mask -> SEG -> import: Dice 1.0, right hips (whose grid is mirrored) as well."""
    visit = hospital.visits[0]
    label, shape_of, where = ("vessel", vessel, FINE) if grid == "fine" else ("head", head, VISIT)
    mask = on_hip_grid(shape_of, side, where)
    mask[tuple(np.random.default_rng(1).integers(20, 40, (3, 1)) % np.array(mask.shape)[:, None])] ^= True
    affine = where.patient_affine(CENTRES[side], side)
    stored = mask
    if side == "R":  # DICOM's planes are right-handed
        stored = mask[..., ::-1]
        affine[:3, 3] += affine[:3, 2] * (mask.shape[2] - 1)
        affine[:3, 2] *= -1
    images = visit.images(T1, "t1")
    writers.seg(hospital.src / "a.dcm", images, Volume(stored, affine), [(label, stored)])
    hospital.annotate()
    hospital.arrive()
    hospital.stage()
    np.testing.assert_array_equal(hospital.mask(visit, side, f"consensus/{label}").astype(bool), mask)


def contours(mask: NDArray, volume: Volume) -> list[NDArray]:
    found = []
    for n in np.flatnonzero(mask.any(axis=(1, 2))):
        for line in find_contours(np.pad(mask[n], 1).astype(float), 0.5):
            index = np.column_stack([np.full(len(line), float(n)), line - 1])
            found.append(volume.to_lps(index))
    return found


def test_rtstruct_with_a_hole_and_a_keyhole(hospital: Hospital) -> None:
    visit = hospital.visits[0]
    ring = head(T1, "L") & ~head(T1, "L", 12.0)
    lines = contours(head(T1, "R"), T1)
    inner = {round(line[0] @ T1.affine[:3, 0], 1): line for line in contours(head(T1, "R", 12.0), T1)}
    keyholes = []
    for line in lines:  # outer border, a channel of no width, inner border backwards, back through the channel
        hole = inner.get(round(line[0] @ T1.affine[:3, 0], 1))
        keyholes.append(line if hole is None else np.concatenate([line, hole[::-1], line[:1]]))
    structures = [("head_L", contours(ring, T1)), ("Femoral Head R", keyholes), ("Bladder", lines)]
    writers.rtstruct(hospital.src / "a.dcm", visit.images(T1, "t1")[0], structures)
    summary = hospital.annotate()
    assert summary.counts["masks"] == 2 and "structure 3 is neither" in summary.notes[0]
    hospital.arrive()
    hospital.stage()
    for side in "LR":
        expected = hospital.folder / f"expected-{side}.nii.gz"
        writers.nifti(expected, T1, head(T1, side) & ~head(T1, side, 12.0))
    assert hospital.mask(visit, "L", "consensus/head").sum() > 10000
    from_seg = _by_seg(hospital, [("head", ring), ("head R", head(T1, "R") & ~head(T1, "R", 12.0))])
    for side in "LR":
        drawn = hospital.mask(visit, side, f"{of(hospital, 'Reader^Anna')}/head").astype(bool)
        assert dice(drawn, from_seg[side]) >= 0.98


def _by_seg(hospital: Hospital, masks: list[tuple[str, NDArray]]) -> dict[str, NDArray]:
    visit = hospital.visits[0]
    writers.seg(hospital.src / "b.dcm", visit.images(T1, "t1"), T1, masks, reader="Other^Reader")
    hospital.annotate()
    hospital.stage()
    name = f"{of(hospital, 'Other^Reader')}/head"
    return {side: hospital.mask(visit, side, name).astype(bool) for side in "LR"}


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd"])
def test_volumes_named_in_masks_csv(hospital: Hospital, suffix: str) -> None:
    visit = hospital.visits[0]
    values = vessel(CE, "L").astype(np.uint8) + 2 * vessel(CE, "R").astype(np.uint8)
    write = writers.nrrd if suffix == ".nrrd" else writers.nifti
    write(hospital.src / f"Smith John vessels{suffix}", CE, values)
    rows = [f"Smith John vessels{suffix},{visit.study},{visit.ce},{side},Dr A,vessel,{n}" for side, n in ("L1", "R2")]
    header = "file,study_instance_uid,series_instance_uid,side,reader,label,value"
    hospital.csv("masks", "\n".join([header, *rows]))
    assert hospital.annotate().ok
    hospital.arrive()
    hospital.stage()
    for side in "LR":
        truth = on_hip_grid(vessel, side, FINE)
        assert dice(hospital.mask(visit, side, f"{of(hospital, 'Dr A')}/vessel").astype(bool), truth) > 0.85


def test_a_segmentation_of_slicer_names_its_own_values(hospital: Hospital) -> None:
    visit = hospital.visits[0]
    layers = np.stack([head(T1, "LR") * 4, lesion(T1, "L") * 9], axis=-1).astype(np.uint8)
    meta = {
        "Segment0_Name": "Femoral heads", "Segment0_LabelValue": "4", "Segment0_Layer": "0",
        "Segment1_Name": "Necrosis", "Segment1_LabelValue": "9", "Segment1_Layer": "1",
    }  # fmt: skip
    writers.nrrd(hospital.src / "s.seg.nrrd", T1, layers, **meta)
    header = "file,study_instance_uid,series_instance_uid,reader,label"
    rows = [f"s.seg.nrrd,{visit.study},{visit.t1},A,{label}" for label in ("head", "lesion")]
    hospital.csv("masks", "\n".join([header, *rows]))
    assert hospital.annotate().ok
    hospital.arrive()
    table = hospital.stage()
    rows = table[(table["kind"] == "mask") & (table["reader"] == "consensus")]
    assert sorted(zip(rows["side"], rows["name"], strict=True)) == [("L", "head"), ("L", "lesion"), ("R", "head")]
    assert dice(hospital.mask(visit, "R", "consensus/head").astype(bool), on_hip_grid(head, "R")) > 0.96


def test_label_studio_polygons_and_brush(hospital: Hospital) -> None:
    visit = hospital.visits[0]
    tasks = []
    for n in range(T1.array.shape[0]):
        plane, results = head(T1, "L")[n], []
        height, width = plane.shape
        size = {"original_height": height, "original_width": width}
        for line in find_contours(np.pad(plane, 1).astype(float), 0.5):
            percent = (line - 0.5)[:, ::-1] / [width, height] * 100
            value = {"points": percent.tolist(), "polygonlabels": ["femoral head"]}
            results.append({"type": "polygonlabels", "value": value, **size})
        stroke = lesion(T1, "L")[n]
        if stroke.any():
            value = {"format": "rle", "rle": encode_rle(stroke), "brushlabels": ["Lesion"]}
            results.append({"type": "brushlabels", "value": value, **size})
        data = {
            "study_instance_uid": visit.study, "series_instance_uid": visit.t1, "sop_instance_uid": visit.sops["t1"][n]
        }  # fmt: skip
        tasks.append(
            {"id": n, "data": data, "annotations": [{"completed_by": {"email": "anna@x.org"}, "result": results}]}
        )
    (hospital.src / "export.json").write_text(json.dumps(tasks))
    summary = hospital.annotate()
    assert summary.ok and summary.counts["masks"] > 8
    hospital.arrive()
    hospital.stage()
    from_seg = _by_seg(hospital, [("head", head(T1, "L")), ("head R", head(T1, "R"))])["L"]
    name = of(hospital, "anna@x.org")
    assert dice(hospital.mask(visit, "L", f"{name}/head").astype(bool), from_seg) > 0.98
    assert dice(hospital.mask(visit, "L", f"{name}/lesion").astype(bool), on_hip_grid(lesion, "L")) > 0.8


def test_one_contour_without_a_thickness_stays_in_its_plane(tmp_path: Path) -> None:
    """As thick as its series' slices are; read on the fine grid, where a shift of that would show."""
    affine = np.array([[0, 0, 0.5, 80.0], [1.0, 0, 0, 13.3], [0, 0.5, 0, -30.0], [0, 0, 0, 1.0]])  # coronal, 1 mm
    plane = drawn.Drawn("vessel", np.ones((1, 40, 40), bool), affine, "rtstruct", thick=False)
    hips.write(tmp_path / "m.safetensors", drawn.to_file(plane))
    grid = FINE.patient_affine(CENTRES["L"], "L")
    meta = {
        "patient_affine": {"contrast_fine": grid.tolist()}, "frame_of_reference": {"contrast_fine": "F"},
        "grids": {"contrast_fine": {"shape": list(FINE.shape), "spacing": list(FINE.spacing)}}, "sources": {},
    }  # fmt: skip
    stack = {"slice_mm": 4.4, "frame": "F", "sops": None, "affine": None, "shape": None}
    mask = {"side": "", "series": "S", "path": str(tmp_path / "m.safetensors"), "thick": "no", "kind": "rtstruct",
            "frame": "F", "label": "vessel", "sop": None, "index": None}  # fmt: skip
    target = fit.Target("L", CENTRES["L"], None, meta)
    values, *_ = place._on_hip([mask], target, {"S": {"stacks": [stack]}}, Params.model_validate(PARAMS))
    middle = grid[:3, :3] @ np.argwhere(values).mean(0) + grid[:3, 3]
    assert np.linalg.norm(middle - affine[:3] @ [0, 19.5, 19.5, 1.0]) < 0.5


@pytest.mark.parametrize(("step", "missing"), [(1.65, ()), (1.65, tuple(range(5, 14))), (1.5, (3, 4)), (1.36, ())])
def test_slices_are_counted_where_the_claimed_spacing_is_a_little_wrong(step: float, missing: tuple[int, ...]) -> None:
    planes = {step * n: np.ones((2, 2), bool) for n in range(20) if n not in missing}
    array, pitch = drawn.stack(planes, 1.5)
    assert array.shape[0] == 20 and pitch == pytest.approx(step)
    assert [n for n in range(20) if not array[n].any()] == list(missing)


@pytest.mark.parametrize(
    ("label", "text", "side"),
    [
        ("head", "drawn by R. Meier", ""),
        ("lesion de l'epiphyse", "", ""),
        ("head", "of the right hip", "R"),
        ("head L", "", "L"),
        ("femoral head R", "of the left hip, as sent", "R"),
    ],
)
def test_a_letter_claims_a_side_only_in_a_name(hospital: Hospital, label: str, text: str, side: str) -> None:
    images, small = hospital.visits[0].images(T1, "t1"), Volume(np.zeros((4, 12, 12), np.uint8), T1.affine)
    mask = np.zeros((4, 12, 12), bool)
    mask[1:3, 3:9, 3:9] = True
    made = pydicom.dcmread(writers.seg(hospital.src / "a.dcm", images, small, [(label, mask)]))
    made.SegmentSequence[0].SegmentDescription = text
    assert [one.side for one in dicom_seg.read(made)[0]] == [side]
    made = pydicom.dcmread(writers.rtstruct(hospital.src / "b.dcm", images[0], [(label, contours(mask, small))]))
    made.StructureSetROISequence[0].ROIDescription = text
    assert [one.side for one in rtstruct.read(made)[0]] == [side]


def encode_rle(plane: NDArray) -> list[int]:
    """Label Studio's brush code of a mask, the way its converter writes it: repeats and literals."""
    flat = np.repeat(plane.ravel().astype(np.uint8) * 255, 4)
    bits = f"{flat.size:032b}{7:05b}" + "".join(f"{n - 1:04b}" for n in (3, 4, 8, 16))
    at = 0
    while at < flat.size:
        end = at
        while end < flat.size and flat[end] == flat[at] and end - at < 65536:
            end += 1
        if end - at == 4:  # as four literals
            bits += "0" + "00" + f"{3:03b}" + "".join(f"{v:08b}" for v in flat[at:end])
        else:
            bits += "1" + "11" + f"{end - at - 1:016b}" + f"{flat[at]:08b}"
        at = end
    bits += "0" * (-len(bits) % 8)
    return [int(bits[n : n + 8], 2) for n in range(0, len(bits), 8)]


def test_a_series_of_several_stacks(hospital: Hospital) -> None:
    """One that shows each hip for itself is two that are used; of a series with phases the others are not."""
    visit, table = hospital.visits[0], Path("data/series.parquet")
    writers.nifti(hospital.src / "m.nii", T1, head(T1, "L"))
    header = "file,study_instance_uid,series_instance_uid,side,reader,label"
    hospital.csv("masks", f"{header}\nm.nii,{visit.study},{visit.t1},L,A,head\n")
    rows, columns = np.nonzero(lesion(T1, "L").any(0))
    box = {"x": columns.min() / 2.4, "y": rows.min() / 1.12, "width": 4, "height": 7, "rectanglelabels": ["lesion"]}
    result = [{"type": "rectanglelabels", "value": box, "original_height": 112, "original_width": 240}]
    names = {"study_instance_uid": visit.study, "series_instance_uid": visit.t1}
    tasks = [
        {"data": names | {"sop_instance_uid": visit.sops["t1"][n]}, "annotations": [{"result": result}]} for n in (6, 7)
    ]
    (hospital.src / "export.json").write_text(json.dumps(tasks, default=float))
    hospital.annotate()
    hospital.arrive()
    series = pd.read_parquet(table)
    (t1,) = series[series["series"] == hospital.keys.uid(visit.t1)].to_dict("records")
    halves, sops = [], t1["sops"].split("+")
    for low in (0, 7):
        affine = T1.affine.copy()
        affine[:3, 3] = T1.to_lps(np.array([low, 0.0, 0.0]))
        parts = {"affine": affine.ravel(), "shape": [7.0, 112.0, 240.0], "sops": "+".join(sops[low : low + 7])}
        halves.append(t1 | parts | {"status": "used"})
    whole, unused = t1 | {"status": "used"}, halves[0] | {"status": "unused", "reason": "another is better"}
    for stacks, accepted in (
        ([whole, unused], {"head", "lesion"}),
        (halves, {"lesion"}),
        ([*halves, whole], {"head", "lesion"}),
    ):
        others = series[series["series"] != t1["series"]]
        pd.concat([others, pd.DataFrame(stacks)]).to_parquet(table)
        hospital.stage()
        found = hospital.masks()
        assert set(found[(found["status"] == "accepted") & (found["side"] == "L")]["name"]) == accepted
