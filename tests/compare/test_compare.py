"""The comparison: by patient, one result a network, nothing trained twice, and what leakage would have shown."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import hip_cohort
import pandas as pd
import pytest
from small_params import NETWORK, small
from torch import Tensor, nn

from tasks.compare.__main__ import main
from tasks.compare.table import to_unit
from tasks.domain.errors import Differs, WrongUse

CSV, FOLDER = Path("reports/compare.csv"), Path("reports/compare")


class Memorizer(nn.Module):
    """In place of a network: as able to know a hip again, at a hundredth of the cost."""

    def __init__(self, name: str, channels: int, dropout: float, weights: Path | None = None) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.BatchNorm1d(16 * channels), nn.Linear(16 * channels, 64),
            nn.ReLU(), nn.Linear(64, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)[:, 0]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort on which one network was compared."""
    folder = tmp_path_factory.mktemp("compare")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        hip_cohort.make(folder, patients=7, external=1)
        main([], small(), map)
    return folder


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_table_has_a_row_for_each_network_and_unit_with_intervals(workspace: Path) -> None:
    table = pd.read_csv(workspace / CSV)
    assert table["unit"].tolist() == ["slice", "hip_visit", "patient"]
    assert table["n_patients"].eq(5).all() and table["n"].tolist()[1:] == [20, 5]
    for name in ("auc", "accuracy", "recall", "specificity", "f1", "brier"):
        known = table[table[name].notna() & table[f"{name}_low"].notna()]
        assert (known[f"{name}_low"] <= known[name]).all() and (known[name] <= known[f"{name}_high"]).all()
    assert table["parameters"].gt(900_000).all() and table["mmacs"].gt(0).all()
    speed = json.loads((workspace / "reports/speed/compare.json").read_text())[NETWORK]
    assert speed["images_per_s"] > 0 and speed["train_items_per_s"] > 0 and speed["peak_memory_gb"] > 0


def test_each_patient_is_judged_once_by_a_network_of_other_patients_and_test_patients_never(workspace: Path) -> None:
    said = pd.read_parquet(workspace / FOLDER / f"{NETWORK}.parquet")
    split = pd.read_parquet(workspace / "data/split.parquet").set_index("subject")["fold"]
    assert not said.duplicated(["hip_visit", "slice"]).any()
    assert (said["fold"] == said["subject"].map(split)).all() and set(said["fold"]) == {"0", "1"}


def test_progress_ends_finished_and_tells_no_time(workspace: Path) -> None:
    lines = [json.loads(line) for line in (workspace / FOLDER / "run.jsonl").read_text().splitlines()]
    assert lines[0]["event"] == "params" and lines[-1] == {"event": "end", "status": "finished"}
    losses = [line for line in lines if line.get("name") == "loss"]
    assert {line["model"] for line in losses} == {f"{NETWORK}/fold{k}/seed0" for k in (0, 1)}


def test_nothing_is_trained_again_and_another_network_leaves_the_first_alone(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace)
    monkeypatch.setattr("tasks.compare.fold.SliceClassifier", Memorizer)  # the other network, were it trained
    before, table_before = bytes_of(FOLDER), CSV.read_bytes()
    hip_cohort.another_external_site(workspace)
    main([], small(), map)
    assert bytes_of(FOLDER) == before, "nothing is learnt from external sites either"
    two = small(compare={"networks": [NETWORK, "shufflenet_v2_x1_0"]})
    main(["--only", "shufflenet_v2_x1_0"], two, map)  # as a worker of its own does
    alone = bytes_of(FOLDER)["shufflenet_v2_x1_0.json"]
    assert CSV.read_bytes() == table_before, "the table is the stage's"
    main([], two, map)
    after = bytes_of(FOLDER)
    assert after["shufflenet_v2_x1_0.json"] == alone
    assert after[f"{NETWORK}.json"] == before[f"{NETWORK}.json"]
    table = pd.read_csv(CSV)
    assert table["network"].unique().tolist() == [NETWORK, "shufflenet_v2_x1_0"]
    slices = table[table["unit"] == "slice"].set_index("network")
    best = slices["auc"].idxmax()
    assert (slices["best"] == best).all() and pd.isna(slices.loc[best, "p_holm_vs_best"])
    assert slices.drop(best)["p_holm_vs_best"].between(0, 1).all()
    main([], small(), map)
    assert set(bytes_of(FOLDER)) == set(before), "a network that is no longer asked for leaves no result"


def test_only_a_network_of_the_parameters_can_be_asked_for(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace)
    with pytest.raises(WrongUse, match="'resnet18' is not among the networks"):
        main(["--only", "resnet18"], small(), map)


def test_same_inputs_same_bytes_in_every_output(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    hip_cohort.make(tmp_path, patients=7, external=1)
    main([], small(), map)
    assert bytes_of(FOLDER) == bytes_of(workspace / FOLDER)
    assert CSV.read_bytes() == (workspace / CSV).read_bytes()


def test_without_masks_the_hips_own_label_is_learnt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tasks.compare.fold.SliceClassifier", Memorizer)
    hip_cohort.make(tmp_path, patients=4, visits=1, masks=False)
    main([], small(), map)
    said = pd.read_parquet(FOLDER / f"{NETWORK}.parquet")
    assert said.groupby("hip_visit")["label"].nunique().eq(1).all() and said["label"].nunique() == 2


def test_nothing_to_compare_on_is_said_and_leaves_a_table_without_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    hip_cohort.make(tmp_path, patients=3, visits=1, folds=1)
    main([], small(), map)
    assert "one fold" in caplog.text
    assert pd.read_csv(CSV).empty and "auc_low" in pd.read_csv(CSV)


def test_a_hip_visit_scores_its_highest_slices_and_a_patient_its_highest_visit() -> None:
    said = pd.DataFrame(
        {
            "hip_visit": ["a"] * 3 + ["b"] * 3,
            "subject": ["s"] * 6,
            "label": [0, 1, 0, 0, 0, 0],
            "fold": ["0"] * 6,
            "p": [0.1, 0.9, 0.7, 0.2, 0.2, 0.2],
        }
    )
    visits = to_unit(said, "hip_visit", 2)
    assert visits["p"].round(6).tolist() == [0.8, 0.2] and visits["label"].tolist() == [1, 0]
    assert to_unit(said, "patient", 2)["p"].round(6).tolist() == [0.8]


def test_weights_to_start_from_are_those_of_the_digest_or_none(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given: list[Path | None] = []

    class Starting(Memorizer):
        def __init__(self, name: str, channels: int, dropout: float, weights: Path | None = None) -> None:
            given.append(weights)
            super().__init__(name, channels, dropout)

    monkeypatch.chdir(tmp_path)
    for name in ("data", "reports"):
        shutil.copytree(workspace / name, tmp_path / name)
    monkeypatch.setattr("tasks.compare.fold.SliceClassifier", Starting)
    file, trained = tmp_path / "weights.safetensors", bytes_of(FOLDER)[f"{NETWORK}.json"]

    def named(digest: str) -> dict[str, Any]:
        return small(compare={"pretrained": {NETWORK: {"file": str(file), "sha256": digest}}})

    with pytest.raises(WrongUse, match="is not there"):
        main([], named("0" * 64), map)
    file.write_bytes(b"weights")
    with pytest.raises(Differs, match="does not have the digest"):
        main([], named("0" * 64), map)
    assert not given and bytes_of(FOLDER)[f"{NETWORK}.json"] == trained, "nothing was trained from other bytes"
    main([], named(hashlib.sha256(b"weights").hexdigest()), map)
    assert given[0] == file and bytes_of(FOLDER)[f"{NETWORK}.json"] != trained


def test_leakage_inflates_what_an_honest_split_calls_chance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels drawn by lot for each patient: there is nothing to learn but who it is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tasks.compare.fold.SliceClassifier", Memorizer)
    hip_cohort.make(tmp_path, patients=24, visits=1, folds=2, test=0, roles=("t1", "fluid"))
    still = {"rotate_deg": 0, "scale": 0, "shift": 0, "gain": 0, "gamma": 0, "noise": 0, "drop_channel": 0}
    fit = {"epochs": 30, "batch": 16, "settle": 6, "lr": 0.01}
    how = small(compare={"slices": 4, "bootstrap": 200, "recipe": fit, "augment": still})
    main(["--protocol", "slice-split", "--labels", "shuffled"], how, map)
    honest = pd.read_csv("reports/compare-shuffled-labels.csv").set_index("unit")
    for unit in ("slice", "hip_visit", "patient"):
        assert honest.loc[unit, "auc_low"] <= 0.5 <= honest.loc[unit, "auc_high"], "by patient it is chance"
    found = pd.read_csv("reports/compare-leakage-shuffled-labels.csv").set_index("unit").loc["slice"]
    assert found["auc_slice_split"] > 0.75 and found["inflation"] > 0.15, "the leak is real"
    assert found["inflation_low"] > 0, "and more than the luck of the draw"
    assert found["inflation"] == pytest.approx(found["auc_slice_split"] - found["auc"], abs=1e-5)
    assert not CSV.exists(), "a demonstration is not the stage's result"
