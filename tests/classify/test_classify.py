"""The visit encoder: out of fold, warm where allowed, silent about what it was never taught."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import hip_cohort
import numpy as np
import pandas as pd
import pytest
from small_params import small

from tasks.classify.__main__ import main
from tasks.classify.reading import FEATURES, encode
from tasks.store import hips, tables
from tasks.training import models

MODELS, TABLE, METRICS = Path("models/classify"), Path("data/features.parquet"), Path("reports/classify/metrics.json")


def features(path: Path = TABLE) -> pd.DataFrame:
    table = pd.read_parquet(path)
    values = pd.DataFrame(table["features"].tolist(), columns=FEATURES, index=table["hip_visit"], dtype=float)
    return values.assign(fold=table["fold"].to_numpy())


def record(name: str) -> dict[str, Any]:
    found = models.record(MODELS, name)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classify")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        hip_cohort.make(folder)
        main([], small(), map)
    return folder


def test_everybody_has_features_with_names(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace)
    found, about = features(), json.loads((MODELS / "features.json").read_text())
    assert about["features"] == FEATURES and about["folds"] == ["0", "1"]
    assert set(found.index) == set(pd.read_parquet("data/hips.parquet")["hip_visit"])
    assert found["lesion"].notna().all() and found["stage"].between(0, 5).all()


def test_features_come_from_networks_that_did_not_see_the_patient(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace)
    split = pd.read_parquet("data/split.parquet")
    for fold in ("0", "1"):
        seen = set(record(f"fold{fold}")["trained_on"])
        assert seen == set(split[~split["fold"].isin([fold, "test"])]["subject"])
    found, rows = features(), pd.read_parquet("data/hips.parquet")
    paths = [Path("data/hips") / file for file in rows["file"]]
    again = encode(paths, MODELS, found["fold"].to_dict()).set_index("hip_visit")
    np.testing.assert_allclose(again[FEATURES], found.loc[again.index, FEATURES], rtol=1e-4, atol=1e-5)
    each = [encode(paths[-1:], MODELS, {paths[-1].stem: fold})[FEATURES].to_numpy(float)[0] for fold in ("0", "1")]
    assert found.loc[paths[-1].stem, "fold"] == "test"
    np.testing.assert_allclose(
        found.loc[paths[-1].stem, FEATURES].to_numpy(float), np.mean(each, 0), rtol=1e-4, atol=1e-5
    )


def test_a_quantity_that_nobody_labelled_has_no_number(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace)
    found = features()
    assert found[["kerboul_sagittal_deg", "kerboul_sagittal_deg_se"]].isna().all(axis=None)
    assert found[["kerboul_coronal_deg", "kerboul_coronal_deg_se", "lateral_deg", "slice_share"]].notna().all(axis=None)


def test_the_report_is_out_of_fold_with_intervals(workspace: Path) -> None:
    report = json.loads((workspace / METRICS).read_text())
    assert report["n_patients"] == 5 and report["slice"]["n"] > 60
    assert report["slice"]["auc_low"] <= report["slice"]["auc"] <= report["slice"]["auc_high"]
    assert set(report["slice"]["folds"]) == {"0", "1"}
    assert report["heads"]["stage"]["n"] == 20 and sum(map(sum, report["stage_confusion"]["counts"])) == 20
    for name in ("curves", "confusion", "calibration"):
        ElementTree.fromstring((workspace / f"reports/classify/{name}.svg").read_text())
    assert "n = 20 hip-visits" in (workspace / "reports/classify/confusion.svg").read_text()
    assert sum(one["n"] for one in report["slice_calibration"]) == report["slice"]["n"]


def test_unchanged_is_kept_external_sites_teach_nothing_and_a_warm_start_never_saw_the_fold_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    hip_cohort.make(tmp_path, patients=6, visits=1, external=1)
    main([], small(), map)
    first = {fold: record(f"fold{fold}") for fold in ("0", "1")}
    assert all(one["warm_started_from"] is None for one in first.values())
    known, reported = {path.name: path.read_bytes() for path in MODELS.iterdir()}, METRICS.read_bytes()
    outside = hip_cohort.another_external_site(tmp_path)
    main([], small(), map)
    assert {path.name: path.read_bytes() for path in MODELS.iterdir()} == known, "external sites teach nothing"
    assert METRICS.read_bytes() == reported, "and are not in the report out of fold"
    one = features().loc[sorted(outside)]
    rows = pd.read_parquet("data/hips.parquet").set_index("hip_visit").loc[one.index, "file"]
    both = encode([Path("data/hips") / file for file in rows], MODELS)[FEATURES]
    np.testing.assert_allclose(one[FEATURES], both, rtol=1e-4, atol=1e-5, err_msg="the mean over all networks")
    assert one["lesion"].notna().all()
    hip_cohort.make(tmp_path, patients=6, visits=2, external=1)
    main([], small(), map)
    for fold, one in first.items():
        now = record(f"fold{fold}")
        assert now["warm_started_from"] == one["weights"] and now["weights"] != one["weights"]
        assert len(now["history"]) == 1 and len(one["history"]) == 2
    split = pd.read_parquet("data/split.parquet")
    other = {"0": "1", "1": "0"}
    swapped = split.assign(fold=split["fold"].map(lambda fold: other.get(fold, fold)))
    tables.write("split", Path("data/split.parquet"), swapped)
    main([], small(), map)
    assert all(record(f"fold{fold}")["warm_started_from"] is None for fold in first), "they had seen the fold left out"


def test_same_seed_same_weights(workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    hip_cohort.make(tmp_path)
    main([], small(), map)
    for name in ("fold0.safetensors", "fold0.json", "features.json"):
        assert (MODELS / name).read_bytes() == (workspace / MODELS / name).read_bytes()


def test_one_sequence_and_labels_alone_are_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    hip_cohort.make(tmp_path, patients=7, visits=1, masks=False, roles=("t1",))
    main([], small(), map)
    found = features()
    assert found["lesion"].notna().all() and found[["cells_fraction", "oedema", "lesion_fraction"]].isna().all(
        axis=None
    )


def test_without_anything_to_learn_there_are_rows_without_numbers_and_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    hip_cohort.make(tmp_path, patients=3, visits=1, masks=False)
    tables.write("annotations", Path("data/annotations.parquet"), tables.empty("annotations"))
    main([], small(), map)
    assert features()[FEATURES].isna().all(axis=None) and len(features()) == 6
    assert "no hip-visit has a label" in json.loads(METRICS.read_text())["reason"]
    file = Path("data/hips") / pd.read_parquet("data/hips.parquet")["file"][0]
    assert encode([file], MODELS)[FEATURES].isna().all(axis=None)
    assert hips.read(file).tensors
