"""Segmentation: out of fold, made again only when something changed, never scored on test patients."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import hip_cohort
import numpy as np
import pandas as pd
import pytest
from small_params import small

from tasks.segment import agreement
from tasks.segment.__main__ import main
from tasks.segment.predict import predict
from tasks.store import hips
from tasks.training import models

MODELS, SEGMENTS, METRICS = Path("models/segment"), Path("data/segments"), Path("reports/segment/metrics.json")


def report() -> dict[str, Any]:
    return json.loads(METRICS.read_text())


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("segment")
    how = {"recipe": {"epochs": 10, "batch": 4, "settle": 8}}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        hip_cohort.make(folder)
        main([], small(segment={"hip": how}), map)
    return folder


def test_masks_of_unseen_patients_are_found(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace)
    found = report()["agreement"]
    assert found["head"]["network"]["dice"] > 0.7 and found["head"]["network"]["hd95_mm"] < 15
    scores = {"dice", "cldice", "cldice_low", "hd95_mm", "surface_mm_high", "false_alarm"}
    assert scores <= set(found["vessel"]["network"])
    assert Path("reports/segment/examples.svg").read_text().count("data:image/png") == 5
    assert found["head"]["readers"]["dice"] > 0.8 and found["head"]["network"]["n_patients"] == 5


def test_every_hip_visit_has_its_masks_where_its_images_are(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace)
    for row in pd.read_parquet("data/hips.parquet").itertuples():
        image, masks = hips.read(Path("data/hips") / row.file), hips.read(SEGMENTS / f"{row.hip_visit}.safetensors")
        assert set(masks.tensors) == {"head", "lesion", "vessel"}
        assert masks.tensors["head"].shape == image.tensors["t1"].shape and masks.tensors["head"].dtype == np.uint8
        assert masks.tensors["vessel"].shape == image.tensors["contrast_fine"].shape
        assert not (masks.tensors["lesion"] & ~masks.tensors["head"]).any(), "a lesion lies in the head"
        assert masks.meta["grids"]["vessel"] == image.meta["grids"]["contrast_fine"]
        assert masks.meta["patient_affine"]["lesion"] == image.meta["patient_affine"]["t1"]
        assert masks.meta["center_lps"] == image.meta["center_lps"] and masks.meta["side"] == row.side


def test_networks_did_not_see_whom_they_segment_and_test_patients_are_not_scored(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace)
    split = pd.read_parquet("data/split.parquet")
    for fold in ("0", "1"):
        for kind in ("hip", "vessel"):
            record = models.record(MODELS, f"{kind}-fold{fold}")
            assert record is not None
            assert set(record["trained_on"]) == set(split[~split["fold"].isin([fold, "test"])]["subject"])
    assert report()["agreement"]["head"]["network"]["dice_n"] == 20  # of 24


def test_on_arrival_the_same_masks_come_out(workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace)
    row = pd.read_parquet("data/hips.parquet").iloc[0]
    made = predict(Path("data/hips") / row["file"], MODELS, "0", tmp_path)
    assert made["labels"] == "head+lesion+vessel"
    new, old = hips.read(tmp_path / made["file"]), hips.read(SEGMENTS / made["file"])
    assert all(np.array_equal(new.tensors[name], old.tensors[name]) for name in old.tensors)
    mean = predict(Path("data/hips") / row["file"], MODELS, None, tmp_path)
    assert mean["labels"] == "head+lesion+vessel"


def test_no_vessel_is_found_farther_out_than_readers_drew(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large vessels beside the joint are as bright, and nobody draws them."""
    monkeypatch.chdir(workspace)
    about = models.record(MODELS, "vessel-fold0")
    drawn = [hips.read(path) for path in sorted(Path("data/masks").glob("*.safetensors"))]
    farthest = max(
        float(away(d.tensors["consensus/vessel"].shape)[d.tensors["consensus/vessel"] > 0].max()) for d in drawn
    )
    assert about is not None and 0.8 * farthest < about["reading"]["reach_mm"] <= farthest + 2.0
    image = sorted(Path("data/hips").rglob("*.safetensors"))[0]
    far = {}
    for reach in (0.0, 10.0):
        folder = tmp_path / str(reach)
        shutil.copytree(MODELS, folder)
        for path in folder.glob("vessel-*.json"):
            kept = json.loads(path.read_text())
            kept["reading"] |= {"reach_mm": reach, "threshold": 1e-9}  # all is called a vessel
            path.write_text(json.dumps(kept))
        predict(image, folder, "0", tmp_path / f"masks-{reach}")
        mask = hips.read(tmp_path / f"masks-{reach}" / image.name).tensors["vessel"] > 0
        far[reach] = float(away(mask.shape)[mask].max())
    assert far[10.0] <= 10.0 < 30.0 < far[0.0]


def away(shape: tuple[int, ...]) -> np.ndarray:
    """mm from the middle of the toy cohort's fine grid."""
    axes = [(np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(shape, hip_cohort.FINE.spacing, strict=True)]
    return np.sqrt(sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij")))


def test_only_what_changed_is_made_again_and_external_sites_teach_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    how = small(segment={"hip": {"recipe": {"epochs": 1}}, "vessel": {"recipe": {"epochs": 1}}})
    hip_cohort.make(tmp_path, patients=5, visits=1, external=1)
    main([], how, map)
    before = {path.name: path.stat().st_ino for path in SEGMENTS.iterdir()}
    weights = {path.name: path.read_bytes() for path in MODELS.iterdir()}
    gone = sorted(before)[0]
    (SEGMENTS / gone).unlink()
    (SEGMENTS / "stray.safetensors").write_bytes(b"left by an interrupted run")
    scored = METRICS.read_bytes()
    anew = {gone, *(f"{name}.safetensors" for name in hip_cohort.another_external_site(tmp_path))}
    main([], how, map)
    after = {path.name: path.stat().st_ino for path in SEGMENTS.iterdir()}
    assert set(after) == set(before) and {name for name in after if after[name] != before[name]} <= anew
    assert {path.name: path.read_bytes() for path in MODELS.iterdir()} == weights, "external sites teach nothing"
    assert METRICS.read_bytes() == scored, "and are not scored here"
    hip_cohort.make(tmp_path, patients=5, visits=2, external=1)
    main([], how, map)
    record = models.record(MODELS, "hip-fold0")
    assert record is not None and record["warm_started_from"] == json.loads(weights["hip-fold0.json"])["weights"]


def test_without_contrast_there_are_no_vessels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    hip_cohort.make(tmp_path, patients=3, visits=1, roles=("t1", "fluid"))
    main([], small(segment={"hip": {"recipe": {"epochs": 1}}}), map)
    assert json.loads((MODELS / "segment.json").read_text())["networks"]["vessel"] == []
    assert set(hips.read(next(SEGMENTS.iterdir())).tensors) == {"head", "lesion"}


def test_without_masks_nothing_is_segmented_and_the_report_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    hip_cohort.make(tmp_path, patients=3, visits=1, masks=False)
    main([], small(), map)
    assert report()["reason"] == "no training hip-visit has a mask" and not list(SEGMENTS.iterdir())
    made = predict(next(Path("data/hips").rglob("*.safetensors")), MODELS, None, tmp_path / "out")
    assert made["file"] == "" and not (tmp_path / "out").exists()


def test_agreement_of_masks_in_the_numbers_of_the_literature() -> None:
    a, b = np.zeros((4, 20, 20), bool), np.zeros((4, 20, 20), bool)
    a[1:3, 5:15, 5:15], b[1:3, 5:15, 7:17] = True, True
    assert agreement.dice(a, a) == 1.0 and agreement.dice(a, b) == pytest.approx(0.8)
    assert np.isnan(agreement.dice(a & False, a & False))
    mean, worst = agreement.surface_mm(a, b, (4.0, 0.5, 0.5))
    assert worst == pytest.approx(1.0) and 0 < mean < 1.0
    tube, broken = np.zeros((8, 30, 8), bool), np.zeros((8, 30, 8), bool)
    tube[3:6, 2:28, 3:6], broken[3:6, 2:28, 3:6] = True, True
    broken[:, 10:20] = False
    assert agreement.cldice(tube, tube, 2) == 1.0
    assert 0.5 < agreement.cldice(broken, tube, 2) < 0.9
