"""The stage on hip files with predicted masks: numbers where something can be measured, reasons where it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from vessel_trees import draw, grow, length_of

from tasks.domain.params import load
from tasks.measure import Params, item_of, process
from tasks.measure.__main__ import main
from tasks.measure.measure import _shape_row
from tasks.store import hips, tables

PARAMS = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text(encoding="utf-8"))
VISIT, FINE = ((12, 112, 112), (4.0, 0.8, 0.8)), ((64, 64, 64), (0.8, 0.8, 0.8))


def write_hip(
    folder: Path, key: str, roles: tuple[str, ...] = ("t1", "fluid", "contrast"), spacing_mm: float = 1.25
) -> None:
    rng = np.random.default_rng(0)
    tensors, meta = {}, {"scale": {}, "grids": {}, "source_spacing_mm": {}}  # type: ignore[var-annotated]
    for name in (*roles, *(["contrast_fine"] if "contrast" in roles else [])):
        shape, spacing = FINE if name == "contrast_fine" else VISIT
        tensors[name], meta["scale"][name] = hips.quantize(rng.uniform(0, 0.9, shape))
        meta["grids"][name] = {"shape": shape, "spacing": spacing}
        meta["source_spacing_mm"][name] = [spacing_mm] * 3
    hips.write(folder / "data/hips/b1" / f"{key}.safetensors", hips.HipFile(tensors, meta))


def write_masks(folder: Path, key: str, vessel: bool = True, lesion: bool = True) -> float:
    """A ball with a cone-shaped lesion; returns the length of the vessels."""
    d, h, w = np.meshgrid(*[(np.arange(n) - (n - 1) / 2) * s for n, s in zip(*VISIT, strict=True)], indexing="ij")
    head = d**2 + h**2 + w**2 <= 23**2
    inside = head & (-h >= np.cos(np.deg2rad(35)) * np.sqrt(d**2 + h**2 + w**2)) & lesion
    masks = {"head": head.astype(np.uint8), "lesion": inside.astype(np.uint8)}
    tree = grow(np.random.default_rng(4), 50.0, reach=18.0)
    if vessel:
        masks["vessel"] = draw(tree, FINE[1])[: FINE[0][0], : FINE[0][1], : FINE[0][2]].astype(np.uint8)
    hips.write(folder / "data/segments" / f"{key}.safetensors", hips.HipFile(masks, {}))
    return length_of(tree)


def row_of(folder: Path, key: str) -> dict[str, Any]:
    item = item_of(
        folder / "data/hips/b1" / f"{key}.safetensors",
        folder / "data/segments" / f"{key}.safetensors",
        {"hip_visit": key, "subject": "S", "study": key[:-2], "side": key[-1], "days": 0.0},
    )
    return process(item, load("measure", Params, PARAMS), folder)[0]


def test_a_hip_with_known_shape(tmp_path: Path) -> None:
    write_hip(tmp_path, "1.2-L")
    truth = write_masks(tmp_path, "1.2-L")
    row = row_of(tmp_path, "1.2-L")
    assert (row["status"], row["vessel_status"]) == ("ok", "ok")
    assert abs(row["lesion_fraction"] - (1 - np.cos(np.deg2rad(35))) / 2) < 0.02
    assert abs(row["lesion_volume_mm3"] / row["lesion_fraction"] / (4 / 3 * np.pi * 23**3) - 1) < 0.06
    assert abs(row["kerboul_deg"] - 140) < 14
    assert row["kerboul_deg"] == row["kerboul_coronal_deg"] + row["kerboul_sagittal_deg"]
    assert (row["jic"], row["jic_rank"]) == ("C2", 3.0)
    assert row["collapse_mm"] < 1.0
    assert abs(row["vessel_length_mm"] / truth - 1) < 0.15
    for name in (
        "lesion_fraction",
        "lesion_volume_mm3",
        "kerboul_deg",
        "collapse_mm",
        "vessel_length_mm",
        "oedema_index",
    ):
        assert row[f"{name}_se"] >= 0
    assert row["lesion_fraction_se"] > 0
    assert row_of(tmp_path, "1.2-L") == pytest.approx(row, nan_ok=True)


def test_the_stored_error_covers_what_another_position_of_the_slices_changes() -> None:
    """The same hip on grids that lie elsewhere in it: measurements differ by no more than the error says."""
    rng = np.random.default_rng(5)
    params, rows = load("measure", Params, PARAMS), []
    for _ in range(16):
        axes = [(np.arange(n) - (n - 1) / 2) * s + rng.uniform(-s / 2, s / 2) for n, s in zip(*VISIT, strict=True)]
        d, h, w = np.meshgrid(*axes, indexing="ij")
        head = d**2 + h**2 + w**2 <= 23**2
        lesion = head & ((d + 8) ** 2 + (h + 16) ** 2 + (w - 9) ** 2 <= 13**2)
        rows.append(_shape_row(hips.HipFile({}, {}), head, lesion, np.array(VISIT[1]), params, rng))
    for name in ("lesion_volume_mm3", "lesion_fraction", "kerboul_coronal_deg", "kerboul_sagittal_deg", "lateral_deg"):
        stored = np.sqrt(np.mean([row[f"{name}_se"] ** 2 for row in rows]))
        assert 0.8 * np.std([row[name] for row in rows]) < stored, name


@pytest.mark.parametrize(
    ("roles", "spacing", "vessel", "status"),
    [
        (("t1", "fluid"), 1.25, False, "not_measurable:no_contrast_series"),
        (("t1", "fluid", "contrast"), 1.25, False, "not_measurable:no_vessel_mask"),
        (("t1", "fluid", "contrast"), 2.0, True, "not_measurable:contrast_too_coarse"),
    ],
)
def test_vessels_are_a_reason_and_never_a_number(
    tmp_path: Path, roles: tuple[str, ...], spacing: float, vessel: bool, status: str
) -> None:
    write_hip(tmp_path, "1.2-L", roles, spacing)
    write_masks(tmp_path, "1.2-L", vessel)
    row = row_of(tmp_path, "1.2-L")
    assert row["vessel_status"] == status
    assert all(np.isnan(row[name]) for name in row if name.startswith("vessel_") and name != "vessel_status")
    assert row["status"] == "ok"


def test_a_hip_without_lesion_has_zero_and_not_null(tmp_path: Path) -> None:
    write_hip(tmp_path, "1.2-R")
    write_masks(tmp_path, "1.2-R", lesion=False)
    row = row_of(tmp_path, "1.2-R")
    assert (row["lesion_fraction"], row["kerboul_deg"]) == (0.0, 0.0)
    assert np.isnan(row["lateral_deg"])
    assert row["jic"] is None


def test_without_masks_or_head_the_row_says_why(tmp_path: Path) -> None:
    write_hip(tmp_path, "1.2-L")
    assert "no predicted masks" in row_of(tmp_path, "1.2-L")["reason"]
    empty = hips.HipFile({"head": np.zeros(VISIT[0], np.uint8), "lesion": np.zeros(VISIT[0], np.uint8)}, {})
    hips.write(tmp_path / "data/segments/1.2-L.safetensors", empty)
    row = row_of(tmp_path, "1.2-L")
    assert (row["status"], row["reason"]) == ("not_measurable", "no head mask")
    noise = (np.random.default_rng(1).random(VISIT[0]) < 0.01).astype(np.uint8)
    hips.write(tmp_path / "data/segments/1.2-L.safetensors", hips.HipFile({"head": noise}, {}))
    assert "not a femoral head" in row_of(tmp_path, "1.2-L")["reason"]


def test_the_stage_writes_one_row_each_and_does_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = []
    for number, side in ((1, "L"), (1, "R"), (2, "L")):
        key = f"1.{number}-{side}"
        write_hip(tmp_path, key)
        write_masks(tmp_path, key, vessel=False)
        rows.append(
            {"hip_visit": key, "subject": "OFA", "study": f"1.{number}", "side": side, "days": 0.0, "roles": "t1",
             "status": "ok" if number == 1 else "rejected", "file": f"b1/{key}.safetensors"}
        )  # fmt: skip
    tables.write("hips", Path("data/hips.parquet"), tables.pd.DataFrame(rows))
    main([], PARAMS, map)
    table = tables.read("measures", Path("data/measures.parquet"))
    assert table["hip_visit"].tolist() == ["1.1-L", "1.1-R"]
    assert table["study"].tolist() == ["1.1", "1.1"]
    before = Path("data/measures.parquet").read_bytes()

    def fail(*_: object) -> Any:
        pytest.fail("an item was measured twice")

    monkeypatch.setattr("tasks.measure.shapes.fit_sphere", fail)
    main([], PARAMS, map)
    assert Path("data/measures.parquet").read_bytes() == before


def test_no_usable_hip_is_an_empty_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tables.write("hips", Path("data/hips.parquet"), tables.empty("hips"))
    main([], PARAMS, map)
    assert tables.read("measures", Path("data/measures.parquet")).empty
