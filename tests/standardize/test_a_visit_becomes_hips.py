from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bodies import Hip
from scans import Entries, classic, enhanced

from tasks.domain.volume import Volume
from tasks.standardize import process
from tasks.standardize.params import Params
from tasks.store import archives, hips
from tasks.store.items import Item

STUDY = "2.25.77"
Person = tuple[dict[str, Volume], dict[str, Hip]]


def visit(folder: Path, entries: Entries, name: str = "study-v1.zip") -> Item:
    archives.write(folder / name, entries)
    payload = {"study": STUDY, "subject": "OFTEST", "archives": [(folder / name).as_posix()]}
    return Item(STUDY, "digest", payload)


def rows_of(rows: list[dict], table: str) -> list[dict]:
    return [row for row in rows if row["table"] == table]


def everything(volumes: dict[str, Volume], **more: object) -> Entries:
    return [entry for role, image in volumes.items() for entry in classic(image, role, STUDY, **more)]


PER_TENSOR = ("scale", "grids", "sources", "source_spacing_mm", "patient_affine", "frame_of_reference")


def test_both_hips_with_three_roles_on_their_grids(tmp_path: Path, params: Params, person: Person) -> None:
    volumes, truth = person
    rows = process(visit(tmp_path, everything(volumes)), params, tmp_path)
    found = rows_of(rows, "hips")
    assert [(row["side"], row["status"], row["roles"]) for row in found] == [
        ("L", "ok", "t1+fluid+contrast"), ("R", "ok", "t1+fluid+contrast"),
    ]  # fmt: skip
    for row in found:
        centre = np.array([row["center_x_mm"], row["center_y_mm"], row["center_z_mm"]])
        assert np.linalg.norm(centre - truth[row["side"]].centre) < 2.5
        hip = hips.read(tmp_path / row["owns"])
        assert {name: list(tensor.shape) for name, tensor in hip.tensors.items()} == {
            "t1": [12, 112, 112], "fluid": [12, 112, 112], "contrast": [12, 112, 112], "contrast_fine": [64, 96, 96],
        }  # fmt: skip
        assert hip.meta["side"] == row["side"] and hip.meta["mirrored"] == (row["side"] == "R")
        assert np.allclose(hip.meta["center_lps"], centre)
        # What the stages downstream decide by: without the acquired spacing no vessel is ever measured.
        assert all(set(hip.meta[table]) == set(hip.tensors) for table in PER_TENSOR)
        assert np.allclose(hip.meta["source_spacing_mm"]["contrast_fine"], volumes["contrast"].spacing)
        assert all(tensor.dtype == np.uint16 for tensor in hip.tensors.values())
        # Marrow is bright in T1 and dark where fat is suppressed; the neck leaves laterally and down, towards +w, +h.
        t1, fluid = hip.values("t1"), hip.values("fluid")
        assert np.median(t1[5:7, 52:60, 52:60]) > 0.4
        assert np.median(fluid[5:7, 52:60, 52:60]) < 0.4
        assert np.median(t1[6, 84:88, 84:92]) > 1.5 * np.median(t1[6, 84:88, 20:28])
    series = rows_of(rows, "series")
    assert sorted((row["role"], row["status"]) for row in series) == [
        ("contrast", "used"), ("fluid", "used"), ("t1", "used"),
    ]  # fmt: skip
    assert all(len(row["affine"]) == 16 and row["snr"] > 3 for row in series)


def test_a_voxel_of_the_hip_grid_is_the_same_place_in_the_source(
    tmp_path: Path, params: Params, person: Person
) -> None:
    volumes, _ = person
    rows = process(visit(tmp_path, everything({"t1": volumes["t1"]})), params, tmp_path)
    source = volumes["t1"]
    for row in rows_of(rows, "hips"):
        hip = hips.read(tmp_path / row["owns"])
        there = Volume(hip.values("t1"), np.array(hip.meta["patient_affine"]["t1"]))
        index = np.argwhere(np.ones(there.array.shape, bool))[::101]
        back = source.to_index(there.to_lps(index))
        near = back.round().astype(int)
        inside = ((near >= 1) & (near < np.array(source.array.shape) - 1)).all(axis=1)
        close = inside & (np.abs(back - near) < 0.15).all(axis=1)
        here = there.array[tuple(index[close].T)]
        want = source.array[tuple(near[close].T)].astype(float)
        assert close.sum() > 2
        assert np.corrcoef(here, want)[0, 1] > 0.98
        assert row["roles"] == "t1"


def test_enhanced_multi_frame_gives_the_same_hips_as_classic(tmp_path: Path, params: Params, person: Person) -> None:
    volumes, _ = person
    first = process(visit(tmp_path / "a", everything(volumes)), params, tmp_path / "a")
    frames = [entry for role, image in volumes.items() for entry in enhanced(image, role, STUDY)]
    second = process(visit(tmp_path / "b", frames), params, tmp_path / "b")
    for one, two in zip(rows_of(first, "hips"), rows_of(second, "hips"), strict=True):
        assert one["digest"] == two["digest"]


def test_the_side_comes_from_geometry_and_a_wrong_header_is_recorded(
    tmp_path: Path, params: Params, person: Person
) -> None:
    volumes, truth = person
    t1 = volumes["t1"]
    # A field of view that shows the right hip alone, sent with Laterality L and "LEFT" in its description.
    columns = t1.to_index(truth["R"].centre)[2] + np.array([-1, 1]) * 85 / t1.spacing[2]
    low, high = max(int(columns[0]), 0), int(columns[1])
    affine = t1.affine.copy()
    affine[:3, 3] = t1.to_lps(np.array([0, 0, low]))
    one = Volume(np.ascontiguousarray(t1.array[:, :, low:high]), affine)
    rows = process(visit(tmp_path, classic(one, "t1", STUDY, Laterality="L")), params, tmp_path)
    found = rows_of(rows, "hips")
    assert [(row["side"], row["status"]) for row in found] == [("R", "ok")]
    assert "Laterality says L" in found[0]["conflict"]


def test_without_contrast_or_t1_the_rest_is_used(tmp_path: Path, params: Params, person: Person) -> None:
    volumes, truth = person
    rows = process(visit(tmp_path, everything({"fluid": volumes["fluid"]})), params, tmp_path)
    found = rows_of(rows, "hips")
    assert [row["roles"] for row in found] == ["fluid", "fluid"]
    assert {row["located_by"] for row in found} == {"fluid"}
    for row in found:
        centre = np.array([row["center_x_mm"], row["center_y_mm"], row["center_z_mm"]])
        assert np.linalg.norm(centre - truth[row["side"]].centre) < 3.0


def test_a_role_that_must_be_there(tmp_path: Path, params: Params, person: Person) -> None:
    role = params.roles["contrast"].model_copy(update={"missing": "not_measurable"})
    strict = params.model_copy(update={"roles": params.roles | {"contrast": role}})
    rows = process(visit(tmp_path, everything({"t1": person[0]["t1"]})), strict, tmp_path)
    assert {(row["status"], row["reason"]) for row in rows_of(rows, "hips")} == {("not_measurable", "no contrast")}
    assert not list(tmp_path.glob("*.safetensors"))


def test_of_two_series_for_one_role_the_other_is_listed(tmp_path: Path, params: Params, person: Person) -> None:
    volumes, _ = person
    narrow = Volume(volumes["t1"].array[:6], volumes["t1"].affine)
    entries = everything({"t1": volumes["t1"]}) + classic(narrow, "t1", STUDY, name="again")
    entries += classic(volumes["fluid"], "fluid", STUDY, EchoTime=400)
    rows = rows_of(process(visit(tmp_path, entries), params, tmp_path), "series")
    assert sorted(row["status"] for row in rows) == ["unused", "unused", "used"]
    reasons = " ".join(row["reason"] for row in rows)
    assert "better t1" in reasons and "te_ms 400" in reasons


def test_bad_series_and_bad_archives_are_rows_not_errors(tmp_path: Path, params: Params, person: Person) -> None:
    volumes, _ = person
    broken = classic(
        volumes["fluid"], "fluid", STUDY, change=lambda number, dataset: None if number in (4, 5, 8) else dataset
    )
    rows = process(visit(tmp_path, everything({"t1": volumes["t1"]}) + broken), params, tmp_path)
    assert [row["roles"] for row in rows_of(rows, "hips")] == ["t1", "t1"]
    rejected = [row for row in rows_of(rows, "series") if row["status"] == "rejected"]
    assert len(rejected) == 1 and "missing_slices: 3 of 12" in rejected[0]["reason"]
    (tmp_path / "bad.zip").write_bytes(b"no archive")
    item = Item(STUDY, "d", {"study": STUDY, "subject": "OFTEST", "archives": [(tmp_path / "bad.zip").as_posix()]})
    rows = process(item, params, tmp_path)
    assert {row["status"] for row in rows_of(rows, "hips")} == {"not_measurable"}
    assert "cannot be read" in rows_of(rows, "series")[0]["reason"]


def test_another_frame_of_reference_is_located_for_itself(tmp_path: Path, params: Params, person: Person) -> None:
    volumes, _ = person
    affine = volumes["fluid"].affine.copy()
    affine[:3, 3] += [15.0, -8.0, 20.0]  # the patient got up in between
    moved = Volume(volumes["fluid"].array, affine)
    entries = classic(volumes["t1"], "t1", STUDY) + classic(moved, "fluid", STUDY, frame="1.2.10")
    for row in rows_of(process(visit(tmp_path, entries), params, tmp_path), "hips"):
        hip = hips.read(tmp_path / row["owns"])
        assert row["roles"] == "t1+fluid"
        centres = [np.array(hip.meta["patient_affine"][name]) @ [5.5, 55.5, 55.5, 1.0] for name in ("t1", "fluid")]
        assert (centres[1] - centres[0])[:3] == pytest.approx([15.0, -8.0, 20.0], abs=2.5)
        assert hip.meta["frame_of_reference"] == {"t1": "1.2.9", "fluid": "1.2.10"}


def test_the_same_visit_gives_the_same_bytes(tmp_path: Path, params: Params, person: Person) -> None:
    entries = everything({"t1": person[0]["t1"]})
    one = process(visit(tmp_path / "a", entries), params, tmp_path / "a")
    two = process(visit(tmp_path / "b", entries[::-1]), params, tmp_path / "b")
    assert one == two
    for row in rows_of(one, "hips"):
        assert (tmp_path / "a" / row["owns"]).read_bytes() == (tmp_path / "b" / row["owns"]).read_bytes()
