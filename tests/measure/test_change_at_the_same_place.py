"""A hip seen twice by other fields of view: what leaves the picture is no change, what grows is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from tasks.domain.params import load
from tasks.domain.volume import Grid
from tasks.measure import Params, item_of, process
from tasks.measure.change import with_errors
from tasks.store import hips

PARAMS = load("measure", Params, yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8")))
VISIT, FINE = Grid((12, 56, 56), (4.0, 1.6, 1.6)), Grid((64, 64, 64), (0.8, 0.8, 0.8))


def moved(mm: tuple[float, float, float], deg: float = 0.0) -> np.ndarray:
    """Hip space of the second visit from that of the first: its centre was found elsewhere, its head is turned."""
    a = np.deg2rad(deg)
    pose = np.eye(4)
    pose[:3, :3] = [[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]]
    pose[:3, 3] = mm
    return pose


def places(grid: Grid, pose: np.ndarray) -> np.ndarray:
    """(D, H, W, 3): where each voxel of a visit lies in the body, in hip space of the first visit."""
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    to_body = np.linalg.inv(pose) @ grid.hip_affine()
    return index @ to_body[:3, :3].T + to_body[:3, 3]


def tube(points: np.ndarray, start: tuple[float, ...], end: tuple[float, ...], radius: float = 1.4) -> np.ndarray:
    a, along = np.array(start), np.array(end) - np.array(start)
    share = np.clip((points - a) @ along / (along @ along), 0, 1)
    return np.linalg.norm(points - a - share[..., None] * along, axis=-1) <= radius


def visit(folder: Path, name: str, pose: np.ndarray, dead_mm: float = 12.0, vessels: int = 3, front: float = 0) -> dict:
    """A ball of 22 mm, dead in a smaller ball at its front, and straight vessels that leave the fine grid on one side.
    `front`: so many mm of the body are missing at the front of the second visit's T1."""
    body = places(VISIT, pose)
    head = np.linalg.norm(body, axis=-1) <= 22
    dead = head & (np.linalg.norm(body - [0, -14, 6], axis=-1) <= dead_mm)
    fine = places(FINE, pose)
    tree = np.zeros(FINE.shape, bool)
    for x in (-12.3, 0.1, 12.2)[:vessels]:
        tree |= tube(fine, (x, 0, 10), (x, 0, -60))
    to_lps = VISIT.patient_affine(np.zeros(3), "L")
    cut = int(front // VISIT.spacing[0])
    source = to_lps.copy()
    source[:3, 3] = to_lps[:3, 3] + cut * to_lps[:3, 0]
    shown = np.arange(VISIT.shape[0]) >= cut
    head, dead = head & shown[:, None, None], dead & shown[:, None, None]
    tensors = {"t1": np.ones(VISIT.shape, np.uint16), "contrast_fine": np.ones(FINE.shape, np.uint16)}
    grids = {"t1": VISIT, "contrast_fine": FINE}
    meta: dict[str, Any] = {
        "scale": dict.fromkeys(tensors, (1.0, 0.0)),
        "grids": {name: {"shape": list(grid.shape), "spacing": list(grid.spacing)} for name, grid in grids.items()},
        "source_spacing_mm": {"contrast_fine": [0.8] * 3},
        "source_affine": {"t1": source.tolist()},
        "source_shape": {"t1": [VISIT.shape[0] - cut, *VISIT.shape[1:]]},
        "patient_affine": {"t1": to_lps.tolist()},
    }
    paths = folder / f"{name}.safetensors", folder / f"{name}-masks.safetensors"
    hips.write(paths[0], hips.HipFile(tensors, meta))
    masks = {"head": head, "lesion": dead, "vessel": tree}
    hips.write(paths[1], hips.HipFile({n: mask.astype(np.uint8) for n, mask in masks.items()}, {}))
    return {"paths": paths, "hip_visit": name, "subject": "S", "study": name, "side": "L", "days": 0.0}


def measured(folder: Path, now: dict, first: dict, pose: np.ndarray | None, residual_mm: float = 0.0) -> dict[str, Any]:
    row = now | {"to_first": None if pose is None else list(np.linalg.inv(pose).ravel())}
    row |= {"first_visit": first["hip_visit"], "align_residual_mm": residual_mm}
    return process(item_of(*now["paths"], row, first["paths"]), PARAMS, folder)[0]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> dict:
    return visit(tmp_path_factory.mktemp("first"), "first", np.eye(4))


POSE = moved((2.0, -1.5, 7.0), 3.0)


def test_a_field_of_view_that_moved_is_no_change(tmp_path: Path, first: dict) -> None:
    now = visit(tmp_path, "now", POSE, front=16.0)
    row, before = measured(tmp_path, now, first, POSE), measured(tmp_path, first, first, np.eye(4))
    assert (row["change_status"], before["change_status"]) == ("ok", "first")
    assert before["vessel_length_mm_change"] == before["lesion_fraction_change"] == 0.0
    # Whole pictures differ: 3 vessels are seen 7 mm further, and the front of the head is not shown.
    assert row["vessel_length_mm"] - before["vessel_length_mm"] > 15
    assert row["lesion_fraction"] < 0.8 * before["lesion_fraction"]
    assert abs(row["vessel_length_mm_change"]) < 4 and row["vessel_branches_change"] == 0
    assert abs(row["lesion_fraction_change"]) < 0.15 * before["lesion_fraction"]
    assert 0.5 < row["change_share"] < 0.95
    # Negative control: the same without registration compares other places.
    blind = measured(tmp_path, now, first, np.eye(4))
    assert abs(blind["vessel_length_mm_change"]) > 12


def test_what_grew_and_what_went_is_seen(tmp_path: Path, first: dict) -> None:
    now = visit(tmp_path, "now", POSE, dead_mm=15.0, vessels=2)
    row = measured(tmp_path, now, first, POSE)
    truth = {r: np.linalg.norm(places(VISIT, np.eye(4)) - [0, -14, 6], axis=-1) <= r for r in (12.0, 15.0)}
    ball = np.linalg.norm(places(VISIT, np.eye(4)), axis=-1) <= 22
    grown = ((truth[15.0] & ball).sum() - (truth[12.0] & ball).sum()) * np.prod(VISIT.spacing)
    assert abs(row["lesion_volume_mm3_change"] / grown - 1) < 0.15
    assert abs(row["vessel_length_mm_change"] + 35) < 5  # of 10 mm above the centre to 25 mm below it
    assert row["vessel_branches_change"] == -1


def test_a_change_carries_the_errors_of_both_visits_and_of_their_registration(tmp_path: Path, first: dict) -> None:
    now = visit(tmp_path, "now", POSE, front=16.0)
    pairs = (now, first, POSE, 1.5), (first, first, np.eye(4), 0.0)
    rows = [measured(tmp_path, *pair) | {"hip_visit": pair[0]["hip_visit"]} for pair in pairs]
    found = with_errors(pd.DataFrame(rows)).set_index("hip_visit")
    exact = measured(tmp_path, now, first, POSE)
    for name in ("vessel_length_mm", "lesion_volume_mm3"):
        row, before = found.loc["now"], found.loc["first"]
        registration = row[f"{name}_change_registration_se"]
        # Where the pictures end is not known better than they are laid onto each other; with no residual it is.
        assert registration > 0 and exact[f"{name}_change_registration_se"] == 0
        parts = (row[f"{name}_se"], before[f"{name}_se"], registration)
        assert row[f"{name}_change_se"] == pytest.approx(np.sqrt(np.sum(np.square(parts))))
        assert before[f"{name}_change_se"] == 0
    assert found.loc["now", "vessel_length_mm_change_registration_se"] < 10


def test_what_cannot_be_compared_says_why(tmp_path: Path, first: dict) -> None:
    now = visit(tmp_path, "now", POSE)
    row = measured(tmp_path, now, first, None)
    assert row["change_status"] == "not_measurable:not_registered" and np.isnan(row["vessel_length_mm_change"])
    far = measured(tmp_path, now, first, moved((0.0, 30.0, 0.0)))
    assert far["change_status"] == "not_measurable:too_little_in_common" and np.isnan(far["lesion_fraction_change"])
    alone = process(item_of(*now["paths"], now), PARAMS, tmp_path)[0]
    assert alone["change_status"] == "not_measurable:not_registered"
    # Another pose, or another first visit, makes it due again.
    items = [
        item_of(*now["paths"], now | {"to_first": list(pose.ravel())}, first["paths"]) for pose in (POSE, np.eye(4))
    ]
    assert items[0].digest != items[1].digest != item_of(*now["paths"], now).digest
