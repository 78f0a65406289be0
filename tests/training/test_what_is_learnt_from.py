"""Hip files, masks and labels as tensors; augmentation; losses that pass over what nobody labelled."""

from __future__ import annotations

from pathlib import Path

import hip_cohort
import numpy as np
import pandas as pd
import pytest
import torch

from tasks.domain.errors import Unavailable
from tasks.store import hips, tables
from tasks.training import augment, data, losses
from tasks.training.recipe import Augment

HOW = Augment(rotate_deg=15, scale=0.1, shift=0.05, gain=0.2, gamma=0.2, noise=0.05, drop_channel=0.5)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    hip_cohort.make(tmp_path, patients=3, visits=1)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_values_in_memory_are_those_of_the_file(workspace: Path) -> None:
    rows = data.cohort()
    stack = data.stack(rows["path"].tolist())
    taken = stack.take(torch.tensor([2, 0]), torch.tensor([[1, 5], [0, 7]]))
    for i, visit in enumerate((2, 0)):
        file = hips.read(Path(rows["path"][visit]))
        for c, name in enumerate(("t1", "fluid", "contrast")):
            wanted = file.values(name)[[[1, 5], [0, 7]][i]]
            np.testing.assert_allclose(taken[i, :, c].numpy(), wanted, rtol=1e-5, atol=1e-6)
    assert stack.places().tolist() == [-21, -15, -9, -3, 3, 9, 15, 21]


def test_images_that_do_not_fit_into_memory_are_mapped_from_disk(
    workspace: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = data.cohort()
    paths, drawn = rows["path"].tolist(), rows["mask"].tolist()
    visit, slices = torch.tensor([2, 0]), torch.tensor([[1, 5], [0, 7]])
    whole, masks = data.stack(paths), data.masks(drawn, ("head", "lesion"), (8, 48, 48))
    assert not (home / "scratch").exists()
    monkeypatch.setattr(data, "available_memory", lambda: 1000)
    mapped, also = data.stack(paths), data.masks(drawn, ("head", "lesion"), (8, 48, 48))
    assert (home / "scratch").exists() and not list((home / "scratch").iterdir()), (
        "its file has no name to leave behind"
    )
    assert torch.equal(mapped.take(visit, slices), whole.take(visit, slices))
    assert torch.equal(also.take(visit, slices), masks.take(visit, slices)) and float(also.take(visit, slices).sum())


def test_a_full_disk_says_so_before_anything_is_mapped(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int, start: int, size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(data, "available_memory", lambda: 1000)
    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(Unavailable, match="No space left"):
        data.room_for((1000, 1000), torch.int16)
    assert not list((home / "scratch").iterdir())


def test_memory_that_files_hold_counts_as_available() -> None:
    lines = Path("/proc/meminfo").read_text().splitlines()
    held = 1024 * int(next(line.split()[1] for line in lines if line.startswith("MemTotal:")))
    assert 0 < data.available_memory() <= held


def test_a_smaller_image_keeps_its_brightness_and_its_millimetres(workspace: Path) -> None:
    paths = data.cohort()["path"].tolist()[:1]
    full, small = data.stack(paths), data.stack(paths, size_px=24)
    one, every = torch.tensor([0]), torch.arange(8)[None]
    assert small.spacing == (6.0, 3.6, 3.6)
    assert float((full.take(one, every).mean() - small.take(one, every).mean()).abs()) < 0.01


def test_a_missing_role_is_zero_and_said_to_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hip_cohort.make(tmp_path, patients=2, visits=1, test=0, roles=("t1",))
    monkeypatch.chdir(tmp_path)
    stack = data.stack(data.cohort()["path"].tolist())
    assert stack.present.tolist() == [[1.0, 0.0, 0.0]] * 4
    assert float(stack.take(torch.tensor([0]), torch.tensor([[3]]))[:, :, 1:].abs().max()) == 0.0


def test_only_usable_hip_visits_with_a_fold_are_used(workspace: Path) -> None:
    table = pd.read_parquet("data/hips.parquet")
    table.loc[0, "status"] = "rejected"
    tables.write("hips", Path("data/hips.parquet"), table)
    split = pd.read_parquet("data/split.parquet")
    tables.write("split", Path("data/split.parquet"), split.iloc[1:])
    assert set(data.cohort()["subject"]) == set(split["subject"].iloc[1:])
    assert data.folds(data.cohort()) == ["1"]


def test_a_head_without_a_lesion_means_none_unless_the_label_says_otherwise(workspace: Path) -> None:
    path = Path(data.cohort()["mask"][0])
    drawn = hips.read(path)
    del drawn.tensors["consensus/lesion"]
    hips.write(path, drawn)
    shape = drawn.tensors["consensus/head"].shape
    for label, known in ((0.0, 1.0), (float("nan"), 1.0), (1.0, 0.0)):
        found = data.masks([str(path), ""], ("head", "lesion"), shape, [label, 0.0])
        assert found.known.tolist() == [[1.0, known], [0.0, 0.0]]
        assert not found.masks[0, 1].any()


def test_labels_follow_the_consensus_and_no_lesion_means_zero(workspace: Path) -> None:
    table = data.labels()
    none = table[table["lesion"] == 0]
    assert len(none) and (none[["stage", "jic", "kerboul_coronal_deg", "collapse_mm"]] == 0).all(axis=None)
    some = table[table["lesion"] == 1]
    assert (some["stage"] >= 1).all() and some["kerboul_sagittal_deg"].isna().all()


def test_augmentation_never_swaps_medial_and_lateral() -> None:
    images = torch.zeros(64, 1, 40, 40)
    images[:, :, 15:25, 28:36] = 1.0
    generator = torch.Generator().manual_seed(0)
    changed, masks = augment.augment(images, HOW, generator, images.clone())
    columns = torch.arange(40).float()
    centre = (masks.sum((1, 2)) * columns).sum(1) / masks.sum((1, 2, 3))
    assert (centre > 24).all() and not torch.equal(changed, images)


def test_augmentation_draws_the_same_for_the_same_seed_and_leaves_missing_channels_empty() -> None:
    images = torch.rand(4, 3, 16, 16)
    images[:, 1] = 0
    one, two = (augment.augment(images, HOW, torch.Generator().manual_seed(3))[0] for _ in range(2))
    assert torch.equal(one, two) and float(one[:, 1].abs().max()) == 0.0


def test_one_present_channel_always_stays() -> None:
    present = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]).repeat(200, 1)
    kept = augment.drop_channels(present, 0.9, torch.Generator().manual_seed(0))
    assert (kept.sum(1) >= 1).all() and (kept <= present).all() and float(kept.sum()) < float(present.sum())


def test_what_nobody_labelled_adds_nothing() -> None:
    nan = float("nan")
    logit = torch.zeros(4, requires_grad=True)
    assert losses.binary(logit, torch.tensor([1.0, nan, 0.0, nan])).item() == pytest.approx(0.6931, abs=1e-3)
    losses.binary(logit, torch.full((4,), nan)).backward()
    assert logit.grad is not None and float(logit.grad.abs().sum()) == 0.0
    assert losses.number(torch.tensor([1.0, 9.0]), torch.tensor([1.0, nan])).item() == 0.0
    steps = torch.tensor([[9.0, 9.0, -9.0], [0.0, 0.0, 0.0]])
    assert losses.ordinal(steps, torch.tensor([2.0, nan])).item() < 0.001
    masks, known = torch.ones(2, 1, 4, 4), torch.tensor([[1.0], [0.0]])
    far = torch.stack([torch.full((1, 4, 4), 20.0), torch.full((1, 4, 4), -20.0)])
    assert losses.soft_dice(far, masks, known).item() < 0.01 and losses.pixels(far, masks, known).item() < 0.01


def test_cldice_punishes_a_broken_vessel_more_than_a_thin_one() -> None:
    vessel = torch.zeros(1, 1, 32, 32)
    vessel[..., 14:17, 2:30] = 1
    broken, thin, known = vessel.clone(), torch.zeros_like(vessel), torch.ones(1, 1)
    broken[..., 10:18] = 0
    thin[..., 15:16, 2:30] = 1
    loss = {name: float(losses.soft_cldice((x * 2 - 1) * 20, vessel, known, 3)) for name, x in
            {"same": vessel, "broken": broken, "thin": thin}.items()}  # fmt: skip
    assert loss["same"] < 0.02 and loss["thin"] < 0.05 < loss["broken"]
