"""Habits of rt-utils, plastimatch, dcmqi, slicerio, pynrrd, MetaImage writers and Label Studio's converter, rebuilt."""

from __future__ import annotations

import bz2
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from hospital import CENTRES, T1, VISIT, Hospital, head, lesion, on_hip_grid
from mask_files import item, nrrd, rtstruct
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_erosion
from skimage.measure import find_contours

from tasks.annotate import fit, label_studio, masks_in, place, traced
from tasks.annotate import rtstruct as planning
from tasks.annotate.readers import dice
from tasks.domain.errors import BadInput

AFFINE, SHAPE = T1.affine, T1.array.shape


# ---- structure sets


def circle(offset: float, radius: float, kind: str = "CLOSED_PLANAR", jitter: float = 0.0) -> Any:
    turn = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    depth = offset + jitter * np.cos(7 * turn)
    points = np.column_stack([radius * np.cos(turn), depth, radius * np.sin(turn)])
    return item(ContourGeometricType=kind, ContourData=[f"{v:.2f}" for v in points.ravel()])


def ball(offsets: list[float], radius: float = 20.0) -> list[Any]:
    return [circle(at, float(np.sqrt(radius**2 - at**2))) for at in offsets]


def volume(contours: list[Any]) -> float:
    array, affine, _ = planning.fill(contours)
    return float(array.sum() * abs(np.linalg.det(affine[:3, :3])))


@pytest.mark.parametrize(
    "offsets",
    [
        [-15.0, -10.0, -5.0, 0.0, 2.5, 5.0, 10.0, 15.0],  # one more, drawn between two slices
        [-16.0, -12.8, -9.1, -4.0, 0.0, 3.1, 7.7, 11.0, 16.0],  # drawn in a plane of its own each time
        [-15.1, -9.9, -5.05, 0.1, 4.95, 10.1, 14.9],  # rounded
    ],
)
def test_contours_that_lie_between_slices_are_one_solid(offsets: list[float]) -> None:
    truth = 4 / 3 * np.pi * 20**3
    assert volume(ball(offsets)) == pytest.approx(truth, rel=0.06)
    array, _, _ = planning.fill(ball(offsets))
    assert array[1:-1].any(axis=(1, 2)).all()


def test_what_lies_far_apart_is_two_and_a_keyhole_of_an_xor_is_a_hole() -> None:
    array, affine, _ = planning.fill(ball([-18.0, -15.0, -12.0, 6.0, 7.5, 9.0, 12.0]))
    empty = ~array.any(axis=(1, 2))
    step = float(np.linalg.norm(affine[:3, 0]))
    assert empty.sum() * step == pytest.approx(18 - 3, abs=2 * step)
    kind = "CLOSEDPLANAR_XOR"
    ring = [circle(0, 20, kind, 0.1), circle(0, 10, kind, 0.1), circle(0.2, 4, kind), circle(5, 20, kind)]
    areas = planning.fill(ring)[0].sum(axis=(1, 2)) * planning.PIXEL_MM**2
    assert areas == pytest.approx(np.pi * np.array([400 - 100 + 16, 400]), rel=0.03)
    with pytest.raises(BadInput, match="not in parallel planes"):
        planning.fill([circle(0, 20, jitter=1.0), circle(5, 20)])


PIXEL = np.array([0.82, 0.71])  # mm, rows and columns


def chain(pixels: NDArray, about: tuple[float, float]) -> NDArray:
    """(n, 2) of these pixels as OpenCV's findContours goes around."""
    index = np.argwhere(pixels)
    return index[np.argsort(np.arctan2(*(index - about).T))]


def traced_disc(hole: bool, straight: bool = False) -> tuple[list[NDArray], float]:
    """Outlines through the centres of the outermost pixels, and the pixels' area in mm2."""
    row, column = np.indices((60, 60))
    away = np.hypot((row - 29.0) / 1.1, column - 31.0)
    disc, inner = away < 17.6, away < 8.2
    outlines = [chain(disc & ~binary_erosion(disc), (29.0, 31.0))]
    if hole:
        outlines.append(chain(binary_dilation(inner) & ~inner, (29.0, 31.0)))
    if straight:  # where it goes on in its direction nothing is said
        moves = [(np.roll(o, -1, axis=0) - o, o - np.roll(o, 1, axis=0)) for o in outlines]
        outlines = [o[(after != before).any(axis=1)] for o, (after, before) in zip(outlines, moves, strict=True)]
    return outlines, float((disc & ~inner if hole else disc).sum() * PIXEL.prod())


def in_planes(outlines: list[NDArray], turn_deg: float = 7.0) -> list[Any]:
    turn = np.deg2rad(turn_deg)
    rows, columns = np.array([np.sin(turn), 0.0, -np.cos(turn)]), np.array([np.cos(turn), 0.0, np.sin(turn)])
    flat = [(o * PIXEL) @ np.array([rows, columns]) for o in outlines]
    return [
        item(ContourGeometricType="CLOSED_PLANAR", ContourData=[f"{v:.4f}" for v in (p + [3.0, y, 40.0]).ravel()])
        for y in (0.0, 4.0, 8.0) for p in flat
    ]  # fmt: skip


@pytest.mark.parametrize("hole", [False, True])
@pytest.mark.parametrize("straight", [False, True])
def test_an_outline_through_the_outermost_pixels_holds_them_as_a_whole(hole: bool, straight: bool) -> None:
    outlines, area = traced_disc(hole, straight)
    array, _, _ = planning.fill(in_planes(outlines))
    assert array.sum(axis=(1, 2)) * planning.PIXEL_MM**2 == pytest.approx([area] * 3, rel=0.015)


def test_what_goes_between_the_pixels_or_free_is_no_such_outline() -> None:
    row, column = np.indices((60, 60))
    disc = np.hypot(row - 29.0, column - 31.0) < 17.6
    between = find_contours(disc.astype(float), 0.5)[0][:-1]
    turn = np.linspace(0, 2 * np.pi, 80, endpoint=False)
    free = np.column_stack([17 * np.sin(turn), 17 * np.cos(turn)]) + 30
    edges = np.array([[0, 0], [0, 9], [4, 9], [4, 13], [9, 13], [9, 0]] * 5) + 10.0
    for outline in (between, free, edges):
        assert traced.pixels([outline * PIXEL]) is None
    assert traced.pixels([o * PIXEL for o in traced_disc(False)[0]]) == pytest.approx(np.diag(PIXEL))
    area = planning.fill(in_planes([between]))[0].sum(axis=(1, 2)) * planning.PIXEL_MM**2
    assert area == pytest.approx([disc.sum() * PIXEL.prod()] * 3, rel=0.015)


def contours(mask: NDArray, shift: tuple[float, float, float]) -> list[NDArray]:
    found = []
    for n in np.flatnonzero(mask.any(axis=(1, 2))):
        for line in find_contours(np.pad(mask[n], 1).astype(float), 0.5):
            found.append(T1.to_lps(np.column_stack([np.full(len(line), float(n)), line - 1])) + shift)
    return found


@pytest.mark.parametrize(("mm", "taken"), [(0.0, True), (30.0, False)])
def test_a_lesion_goes_where_its_head_goes(hospital: Hospital, mm: float, taken: bool) -> None:
    """A writer that mixes up the pixels' height and width moves all that it draws; only of the head is it seen."""
    both = [(name, contours(mask, (mm, 0, 0))) for name, mask in (("head", head(T1, "R")), ("AVN", lesion(T1, "R")))]
    rtstruct(hospital.src / "a.dcm", hospital.visits[0].images(T1, "t1")[0], both)
    assert hospital.annotate().ok
    hospital.arrive()
    hospital.stage()
    rows = hospital.masks()
    rows = rows[rows["status"].isin(["accepted", "rejected"])]
    assert list(rows["name"]) == ["head", "lesion"] and set(rows["status"]) == {"accepted" if taken else "rejected"}
    if not taken:
        assert rows["reason"].str.startswith("out_of_place").all()


def test_a_head_with_its_neck_is_told_from_one_elsewhere() -> None:
    target = fit.Target("L", CENTRES["L"], CENTRES["R"], {})
    neck = head(T1, "L") | head(T1, "L", 24.0, (30, 0, -30)) | head(T1, "L", 24.0, (20, 0, -55))
    for mask, words, astray in ((neck, "neck", False), (head(T1, "L", 10.0, (-30, 0, 0)), "at most 12", True)):
        with pytest.raises(fit.Unfit, match=words) as caught:
            fit.check_place("head", mask, AFFINE, target, 45, 12)
        assert caught.value.astray is astray


# ---- label maps


def drawn_by(**masks: NDArray) -> dict[tuple[str, str], dict[str, Any]]:
    return {("A", name): {"values": mask.astype(np.uint8), "mask": {"source": "x"}} for name, mask in masks.items()}


def test_a_head_of_a_label_map_holds_its_lesion() -> None:
    """Multi-label NIfTI, LABELMAP segmentations and Slicer's single layer give a voxel to one label alone."""
    whole, dead = on_hip_grid(head, "L"), on_hip_grid(lesion, "L")
    taken = drawn_by(head=whole & ~dead, lesion=dead)
    assert place._beside_heads(taken) == []
    assert dice(taken["A", "head"]["values"].astype(bool), whole) > 0.999
    assert taken["A", "head"]["mask"]["source"] == "x and its lesion"
    neck = dead | on_hip_grid(lambda v, s: head(v, s, 5.0, (0, -4, 26)), "L")  # mostly in the head: nothing is added
    taken = drawn_by(head=whole, lesion=neck)
    assert place._beside_heads(taken) == [] and (taken["A", "head"]["values"] == whole).all()
    taken = drawn_by(head=whole, lesion=on_hip_grid(lambda v, s: head(v, s, 5.0, (0, 0, 36)), "L"))
    assert place._beside_heads(taken) == [
        (("A", "lesion"), "outside_head: it does not touch the femoral head that its reader drew")
    ]


# ---- volumes


def row(file: str) -> Any:
    more = dict.fromkeys(("patient_id", "site", "value", "side"))
    names = {"file": file, "label": "head", "reader": "A", "study_instance_uid": "1.2", "series_instance_uid": "1.3"}
    return type("Row", (), more | names)


def detached(folder: Path, mask: NDArray, encoding: str, pack: Any, name: str) -> str:
    """As pynrrd writes a detached header: the data beside it, `.raw.gz` where it is packed."""
    columns = " ".join(f"({','.join(str(v) for v in AFFINE[:3, n])})" for n in (2, 1, 0))
    sizes = " ".join(str(n) for n in mask.shape[::-1])
    (folder / "m.nhdr").write_text(
        f"NRRD0005\ntype: uint8\ndimension: 3\nspace: left-posterior-superior\nsizes: {sizes}\nendian: little\n"
        f"space directions: {columns}\nspace origin: ({','.join(str(v) for v in AFFINE[:3, 3])})\n"
        f"encoding: {encoding}\ndata file: {name}\n"
    )
    (folder / name).write_bytes(pack(mask.astype(np.uint8).tobytes()))
    return "m.nhdr"


@pytest.mark.parametrize("kind", ["mha", "mhd", "raw.gz"])
def test_metaimage_and_packed_data_beside_a_header(hospital: Hospital, kind: str) -> None:
    mask, visit = head(T1, "L"), hospital.visits[0]
    if kind == "raw.gz":
        name = detached(hospital.src, mask, "gzip", gzip.compress, "m.raw.gz")
    else:
        image = sitk.ReadImage(str(nrrd(hospital.folder / "m.nrrd", T1, mask)))
        name = f"m.{kind}"
        sitk.WriteImage(image, str(hospital.src / name), useCompression=kind == "mhd")
    (one,) = masks_in.read_listed([(2, row(name))], hospital.src, "masks.csv").drawn
    assert (one.array == mask).all() and one.affine == pytest.approx(AFFINE)
    header = "file,study_instance_uid,series_instance_uid,reader,label\n"
    hospital.csv("masks", f"{header}{name},{visit.study},{visit.t1},A,head\n")
    summary = hospital.annotate()  # reads copies: the data beside a header is one of them
    assert summary.ok and summary.counts["masks"] == 1


def test_headers_that_cannot_be_followed_say_why(tmp_path: Path) -> None:
    names = [detached(tmp_path, head(T1, "L"), "bzip2", bz2.compress, "m.raw.bz2")]
    start = "ObjectType = Image\nNDims = 3\nDimSize = 2 2 2\nElementType = MET_UCHAR\nElementDataFile = "
    for n, data in enumerate(("/etc/passwd", "../away.raw", "LIST\na.raw", "s%03d.raw 1 2 1")):
        (tmp_path / f"{n}.mhd").write_text(start + data + "\n")
        names.append(f"{n}.mhd")
    said = [masks_in.read_listed([(2, row(name))], tmp_path, "m").refused[0].reason.split(":")[0] for name in names]
    assert said == ["unknown_encoding", *["outside"] * 4]


def test_a_box_cut_out_of_a_series_by_any_program() -> None:
    """dcmqi gives the slices that hold something; what would fit mirrored as well proves nothing."""

    def at(affine: NDArray, low: tuple[float, ...], shape: tuple[int, ...]) -> dict[str, Any]:
        box = affine.copy()
        box[:3, 3] += affine[:3, :3] @ np.array(low)
        return {"full": {"affine": box, "shape": list(shape)}}

    series = {"affine": AFFINE.ravel(), "shape": list(SHAPE)}
    fit.on_series(at(AFFINE, (3, 0, 0), (6, *SHAPE[1:])), series, 1.0, False)
    for low, shape in (((3.4, 0, 0), (6, *SHAPE[1:])), ((10, 0, 0), (6, *SHAPE[1:])), ((1, 0, 0), SHAPE)):
        with pytest.raises(fit.Unfit, match="other_grid"):
            fit.on_series(at(AFFINE, low, shape), series, 1.0, False)
    even = np.array([[0, 0, 1.0, -60], [4.0, 0, 0, -20], [0, -1.0, 0, 60], [0, 0, 0, 1]])  # the same from both sides
    series = {"affine": even.ravel(), "shape": [11, 120, 121]}
    fit.on_series(at(even, (2, 10, 10), (5, 50, 40)), series, 1.0, True)
    with pytest.raises(fit.Unfit, match="other_grid"):
        fit.on_series(at(even, (2, 10, 10), (5, 50, 40)), series, 1.0, False)


# ---- Label Studio


def brush(alpha: NDArray, label: str = "head", **more: Any) -> dict[str, Any]:
    """RGBA, one literal a value."""
    flat = np.repeat(alpha.astype(np.uint8).ravel(), 4)
    bits = f"{flat.size:032b}{7:05b}" + "".join(f"{n - 1:04b}" for n in (3, 4, 8, 16))
    bits += "".join(f"000000{value:08b}" for value in flat)
    bits += "0" * (-len(bits) % 8)
    value = {"format": "rle", "rle": [int(bits[n : n + 8], 2) for n in range(0, len(bits), 8)], "brushlabels": [label]}
    height, width = alpha.shape
    return {"type": "brushlabels", "original_height": height, "original_width": width, "value": value} | more


UIDS = {"study": "1.2.3", "series": "1.2.4", "sop": "1.2.5"}
KEYS = {f"{name}_instance_uid": uid for name, uid in UIDS.items()}


@pytest.mark.parametrize("strength", [255, 100, 1])
def test_label_studio_brushes_of_any_strength(strength: int) -> None:
    """Its converters write 255, 100 (`contour2rle`) or, of a mask of 0 and 1, 1."""
    mask = np.zeros((6, 8), bool)
    mask[2:5, 1:6] = True
    edge = mask * strength
    edge[1, 1:6] = strength // 3  # a soft border
    (one,), _ = label_studio.read([{"data": KEYS, "annotations": [{"completed_by": 1, "result": [brush(edge)]}]}])
    assert (one.array[0] == mask).all()
    empty = [{"data": KEYS, "annotations": [{"completed_by": 1, "result": [brush(mask * 0)]}]}]
    assert not label_studio.read(empty)[0][0].array.any()


@pytest.mark.parametrize(
    "data",
    [
        {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.4", "SOPInstanceUID": "1.2.5"},
        {"image": "https://pacs.example/dicom-web/studies/1.2.3/series/1.2.4/instances/1.2.5/rendered"},
        {"image": "https://pacs.example/wado?requestType=WADO&studyUID=1.2.3&seriesUID=1.2.4&objectUID=1.2.5"},
    ],
)
def test_label_studio_tasks_that_name_their_slice_otherwise(data: dict[str, str]) -> None:
    result = [brush(np.full((2, 2), 255))]
    (one,), _ = label_studio.read([{"data": data, "annotations": [{"completed_by": 1, "result": result}]}])
    assert {"study": one.study, "series": one.series, "sop": one.sop} == UIDS
    nowhere = [{"data": {"image": "s3://b/1.png"}, "annotations": [{"completed_by": 1, "result": result}]}]
    with pytest.raises(BadInput, match="give study_instance_uid"):
        label_studio.read(nowhere)


@pytest.mark.parametrize("short", [False, True])
def test_label_studio_takes_the_last_word_of_each_reader(tmp_path: Path, short: bool) -> None:
    one, two = np.zeros((2, 2, 3), bool)
    one[0, 0] = two[1, 2] = True
    said = [(7, one, "2026-01-02"), (7, two, "2026-01-01"), (8, two, "2026-01-01")]
    if short:  # JSON-MIN: an entry for each annotation
        tasks: list[dict[str, Any]] = [
            KEYS | {"id": 3, "annotation_id": n, "annotator": reader, "updated_at": day, "tag": [_flat(brush(m * 255))]}
            for n, (reader, m, day) in enumerate(said)
        ]
    else:
        given = [{"completed_by": r, "updated_at": day, "result": [brush(m * 255)]} for r, m, day in said]
        tasks = [{"data": KEYS, "annotations": given}]
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    found = masks_in.read_label_studio(tmp_path / "export.json", "file 1")
    assert found is not None and not found.refused
    assert [(d.reader, (d.array[0] == m).all()) for d, m in zip(found.drawn, (one, two), strict=True)] == [
        ("7", True), ("8", True)
    ]  # fmt: skip
    assert found.notes == ["file 1: task 1: 1 other annotations of the same reader were left out"]
    if not short:
        tasks[0]["annotations"][1]["ground_truth"] = True
        assert (label_studio.read(tasks)[0][0].array[0] == two).all()


def _flat(region: dict[str, Any]) -> dict[str, Any]:
    return region["value"] | {name: region[name] for name in ("original_height", "original_width")}


def test_label_studio_shapes_that_come_once_without_their_label() -> None:
    size = {"original_height": 10, "original_width": 10, "id": "a"}
    box = {"x": 10, "y": 10, "width": 30, "height": 20}
    pair = [
        {"type": "rectangle", "value": box, **size},
        {"type": "labels", "value": box | {"labels": ["AVN"]}, **size},
    ]
    drawn, notes = label_studio.read([{"data": KEYS, "annotations": [{"completed_by": 1, "result": pair}]}])
    assert [(d.label, int(d.array.sum())) for d in drawn] == [("lesion", 6)] and notes == []
    drawn, notes = label_studio.read([{"data": KEYS, "annotations": [{"completed_by": 1, "result": pair[:1]}]}])
    assert drawn == [] and len(notes) == 1  # nobody says what it is


def test_a_hip_grid_is_not_changed_by_any_of_this() -> None:
    grid = VISIT.patient_affine(CENTRES["L"], "L")
    mask = on_hip_grid(lesion, "L")
    assert (fit.on_grid("lesion", mask, grid, grid, VISIT.shape).astype(bool) == mask).all()
