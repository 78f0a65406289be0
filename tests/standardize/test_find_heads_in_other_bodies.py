"""The localizer on bodies that tasks/phantom did not make; none of these seeds was used to choose its constants."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from bodies import Abdomen, Head, Knee, Scan, pelvis, scan
from pydicom.data import get_testdata_file

from tasks.domain.volume import Volume
from tasks.standardize.locate import locate
from tasks.standardize.params import Params


def middle_of(hips: dict) -> np.ndarray:
    return np.mean([hip.centre for hip in hips.values()], axis=0)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_both_heads_of_a_pelvis_of_any_size(seed: int, params: Params) -> None:
    rng = np.random.default_rng([77, seed])
    body, hips = pelvis(rng)
    how = Scan("coronal", rng.uniform(330, 450), 160, 4.5, 4.0, 12, middle_of(hips), tuple(rng.normal(0, 6, 3)))
    found = locate(scan(body, how, rng, ("t1",))["t1"], 1, params.localizer)
    assert set(found.heads) == {"L", "R"}
    for side, hip in hips.items():
        assert np.linalg.norm(found.heads[side].centre - hip.centre) < 3.0
        assert abs(found.heads[side].radius - hip.radius) < 5.0


@pytest.mark.parametrize(("seed", "side"), [(4, "L"), (5, "R")])
def test_one_hip_in_a_small_field_of_view(seed: int, side: str, params: Params) -> None:
    rng = np.random.default_rng([78, seed])
    body, hips = pelvis(rng)
    hip = hips[side]
    how = Scan("coronal", 170.0, 144, 3.5, 3.0, 17, hip.centre + [5 * hip.lateral, 3, -4], (4.0, 3.0, -5.0))
    found = locate(scan(body, how, rng, ("t1",))["t1"], 1, params.localizer)
    assert set(found.heads) == {side}
    assert np.linalg.norm(found.heads[side].centre - hip.centre) < 3.0
    assert found.side_from == "neck"


@pytest.mark.parametrize(("plane", "seed"), [("axial", 5), ("sagittal", 11)])
def test_any_plane(plane: str, seed: int, params: Params) -> None:
    rng = np.random.default_rng([79, seed])
    body, hips = pelvis(rng)
    centre = middle_of(hips) if plane == "axial" else hips["R"].centre
    how = Scan(plane, 420.0 if plane == "axial" else 220.0, 160, 4.0, 3.5, 18, centre, (2.0, 4.0, 3.0))
    found = locate(scan(body, how, rng, ("t1",))["t1"], 1, params.localizer)
    assert set(found.heads) == ({"L", "R"} if plane == "axial" else {"R"})
    for side, head in found.heads.items():
        assert np.linalg.norm(head.centre - hips[side].centre) < 3.0


def test_an_implant_is_not_a_head(params: Params) -> None:
    rng = np.random.default_rng([80, 1])
    body, hips = pelvis(rng, implant="L")
    how = Scan("coronal", 400.0, 160, 4.5, 4.0, 12, middle_of(hips))
    found = locate(scan(body, how, rng, ("t1",))["t1"], 1, params.localizer)
    assert set(found.heads) == {"R"}
    assert np.linalg.norm(found.heads["R"].centre - hips["R"].centre) < 3.0
    assert "L" in found.missing


@pytest.mark.parametrize("plane", ["coronal", "sagittal", "axial"])
@pytest.mark.parametrize("part", ["knee", "head", "abdomen"])
def test_no_hip_in_another_part_of_the_body(part: str, plane: str, params: Params) -> None:
    rng = np.random.default_rng([81, len(part), len(plane)])
    nowhere = rng.normal(0, 5, 3)
    body = {"knee": Knee(nowhere, 1.05), "head": Head(nowhere, 1.0), "abdomen": Abdomen(nowhere, (165.0, 110.0))}[part]
    fov = {"knee": 170.0, "head": 240.0, "abdomen": 380.0}[part]
    volumes = scan(body, Scan(plane, fov, 128, 4.5, 4.0, 14, nowhere, (3.0, 2.0, 1.0)), rng, ("t1", "fluid"))
    for role, polarity in (("t1", 1), ("fluid", 0)):
        found = locate(volumes[role], polarity, params.localizer)
        assert not found.heads
        assert set(found.missing) == {"L", "R"}
        assert "confidence" in found.missing["L"]


@pytest.mark.parametrize("name", ["MR_small.dcm", "examples_overlay.dcm", "MR_small_RLE.dcm"])
def test_no_hip_in_real_images_of_something_else(name: str, params: Params) -> None:
    path = get_testdata_file(name, download=False)
    assert path is not None, f"{name} does not come with this pydicom"
    plane = pydicom.dcmread(path).pixel_array
    volume = Volume(np.stack([plane] * 8), np.diag([4.0, 0.9, 0.9, 1.0])[:, [0, 1, 2, 3]])
    assert not locate(volume, 1, params.localizer).heads
    assert not locate(volume, 0, params.localizer).heads


def test_noise_and_emptiness_have_no_heads(params: Params) -> None:
    rng = np.random.default_rng(3)
    for array in (rng.integers(0, 900, (12, 96, 96)).astype(np.uint16), np.zeros((3, 8, 8), np.uint16)):
        assert not locate(Volume(array, np.diag([4.0, 2.0, 2.0, 1.0])), 1, params.localizer).heads
