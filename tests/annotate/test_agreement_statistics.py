from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from sklearn.metrics import cohen_kappa_score

from tasks.annotate.agreement import below_floor, icc21, table, weighted_kappa
from tasks.annotate.params import Agreement
from tasks.annotate.readers import dice, staple, surface_distance

SHROUT_FLEISS = np.array(
    [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], dtype=float
)
"""Shrout and Fleiss 1979, table 2: six targets, four judges; ICC(2,1) = .29, 95% 0.019 to 0.761."""


def test_icc_of_the_published_example() -> None:
    icc, low, high = icc21(SHROUT_FLEISS)
    assert icc == pytest.approx(0.29, abs=0.005)
    assert (low, high) == (pytest.approx(0.019, abs=0.002), pytest.approx(0.761, abs=0.002))


def test_icc_counts_a_readers_bias_and_is_one_without_error() -> None:
    one = np.arange(10.0)
    assert icc21(np.column_stack([one, one]))[0] == pytest.approx(1.0)
    assert icc21(np.column_stack([one, one + 5]))[0] < 0.5


def test_kappa_against_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    one = rng.integers(0, 5, 200)
    two = np.clip(one + rng.integers(-1, 2, 200), 0, 4)
    assert weighted_kappa(one, two, 5) == pytest.approx(cohen_kappa_score(one, two, weights="quadratic"))
    assert np.isnan(weighted_kappa([1, 1], [1, 1], 5))


def test_dice_and_distance_of_two_cubes() -> None:
    one, two = np.zeros((2, 20, 20, 20), dtype=bool)
    one[5:10, 5:10, 5:10] = two[5:10, 5:10, 6:11] = True
    assert dice(one, two) == pytest.approx(0.8)
    assert 0 < surface_distance(one, two, (1.0, 1.0, 2.0)) <= 2.0
    assert surface_distance(one, one, (1.0, 1.0, 1.0)) == 0.0
    assert np.isnan(surface_distance(one, np.zeros_like(one), (1.0, 1.0, 1.0)))


ABSTRACTORS = np.array([[13, 0, 0], [0, 20, 7], [0, 4, 56]])
"""Gwet, Handbook of Inter-Rater Reliability (2014): two abstractors of 100 pregnancies; R package irrCAC prints a kappa
of 0.7964094 without weights and 0.8921569 with quadratic ones."""


def readings(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    one, two = np.indices(counts.shape)
    return np.repeat(one.ravel(), counts.ravel()), np.repeat(two.ravel(), counts.ravel())


def test_kappa_of_the_published_example() -> None:
    assert weighted_kappa(*readings(ABSTRACTORS), 3) == pytest.approx(0.8921569, abs=1e-6)


def label(hip: int, patient: int, reader: str, name: str, value: str) -> dict:
    return {
        "kind": "label",
        "hip_visit": f"h{hip}",
        "subject": f"s{patient}",
        "reader": reader,
        "name": name,
        "value": value,
    }


PARAMS = Agreement(bootstrap=400, seed=3, min_hips=10, floors={"arco": 0.9, "collapse_mm": 0.9}, differ={})


def test_the_same_published_values_come_out_of_the_stages_table() -> None:
    """Stages named for the three categories; four judges of six targets as four readers of six hips."""
    one, two = readings(ABSTRACTORS)
    stage = ("1", "2", "3A")
    rows = [
        label(n, n, reader, "arco", stage[v]) for reader, said in (("a", one), ("b", two)) for n, v in enumerate(said)
    ]
    rows += [
        label(n, n, f"r{k}", "collapse_mm", str(v)) for n, own in enumerate(SHROUT_FLEISS) for k, v in enumerate(own)
    ]
    rows += [label(7, 7, "r0", "collapse_mm", "3"), label(8, 8, "computed", "collapse_mm", "9")]
    arco, collapse = table(rows, [], PARAMS)
    assert arco["value"] == pytest.approx(0.8921569, abs=1e-6) and arco["n_hips"] == 100
    assert 0.80 < arco["low"] < 0.86 < 0.92 < arco["high"] < 0.97  # irrCAC: 0.89 with a standard error of 0.03
    assert collapse["value"] == pytest.approx(0.29, abs=0.005) and collapse["readers"] == ["r0", "r1", "r2", "r3"]
    assert (collapse["low_by_f"], collapse["high_by_f"]) == (
        pytest.approx(0.019, abs=0.002),
        pytest.approx(0.761, abs=0.002),
    )
    assert [entry["name"] for entry in below_floor([arco, collapse], PARAMS)] == ["arco"]  # six hips are too few to say


def test_patients_not_hips_are_drawn_for_the_interval() -> None:
    """Ten visits of one patient tell little more than one: the interval of 20 patients is that of 20, not of 200."""
    rng = np.random.default_rng(0)
    level = rng.integers(0, 5, 20)
    off = np.clip(level + rng.integers(-1, 2, 20), 0, 4)
    stage = ("1", "2", "3A", "3B", "4")
    widths = []
    for patients in (20, 200):
        rows = [
            label(n, n % patients, reader, "arco", stage[said[n % 20]])
            for n in range(200)
            for reader, said in (("a", level), ("b", off))
        ]
        (entry,) = table(rows, [], PARAMS)
        widths.append(entry["high"] - entry["low"])
        assert entry["n_patients"] == patients and entry["n_hips"] == 200
    assert widths[0] > 2.5 * widths[1]


def test_overlap_and_staple_against_simpleitk() -> None:
    rng = np.random.default_rng(1)
    z, y, x = np.mgrid[:12, :24, :24]
    masks = [
        ((z - 6) / 5) ** 2 + ((y - 12) / r) ** 2 + ((x - 12 - s) / r) ** 2 + rng.normal(0, 0.08, z.shape) < 1
        for r, s in ((8, 0), (7, 1), (9, -1))
    ]
    images = [sitk.GetImageFromArray(mask.astype(np.uint8)) for mask in masks]
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    overlap.Execute(images[0], images[1])
    assert dice(masks[0], masks[1]) == pytest.approx(overlap.GetDiceCoefficient())
    theirs = sitk.GetArrayFromImage(sitk.STAPLE(images, 1.0)) >= 0.5
    assert dice(staple(masks), theirs) > 0.995
    distance = sitk.HausdorffDistanceImageFilter()
    distance.Execute(images[0], images[1])
    assert 0 < surface_distance(masks[0], masks[1], (1.0, 1.0, 1.0)) < distance.GetHausdorffDistance()
