"""What follows from masks and from other staging systems: only where it is defined, only where nobody gave it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hospital import CENTRES, T1, Hospital, head
from mask_files import seg
from numpy.typing import NDArray

from tasks.annotate import clinical
from tasks.domain.disease import ARCO, FICAT, JIC, STEINBERG
from tasks.domain.staging import convert

NAMES = ["kerboul_coronal_deg", "kerboul_sagittal_deg", "necrotic_index", "lesion_fraction"]
BOTH = {"derived": {"from_masks": NAMES, "convert_to": ["arco"]}}


def sector(side: str, half_deg: float) -> NDArray:
    """The part of the head within `half_deg` of straight up."""
    away = T1.to_lps(np.stack(np.indices(T1.array.shape), axis=-1)) - CENTRES[side]
    return head(T1, side) & (away[..., 2] >= np.cos(np.deg2rad(half_deg)) * np.linalg.norm(away, axis=-1))


def values(table: pd.DataFrame, side: str, reader: str = "consensus") -> dict[str, str]:
    rows = table[(table["kind"] == "label") & (table["side"] == side) & (table["reader"] == reader)]
    return dict(zip(rows["name"], rows["value"], strict=True))


def test_angles_and_fractions_from_masks(hospital: Hospital) -> None:
    visit = hospital.visits[0]
    masks = [("head", head(T1)), ("lesion", sector("L", 45.0) | sector("R", 30.0))]
    seg(hospital.src / "a.dcm", visit.images(T1, "t1"), T1, masks)
    header = "patient_id,study_instance_uid,side,reader,kerboul_coronal_deg\n"
    hospital.csv("labels", f"{header}P-0007,{visit.study},L,A,101\n")
    assert hospital.annotate().ok
    hospital.arrive()
    table = hospital.stage(**BOTH)
    for side, half in (("L", 45.0), ("R", 30.0)):
        found = {name: float(value) for name, value in values(table, side).items()}
        assert found["kerboul_sagittal_deg"] == pytest.approx(2 * half, abs=10)
        assert found["lesion_fraction"] == pytest.approx((1 - np.cos(np.deg2rad(half))) / 2, abs=0.02)
        assert found["necrotic_index"] == pytest.approx((2 * half / 180) ** 2 * 100, rel=0.25)
        assert values(table, side, "computed").keys() == set(NAMES) - (
            {"kerboul_coronal_deg"} if side == "L" else set()
        )
    assert values(table, "L")["kerboul_coronal_deg"] == "101"  # what a reader gave stands
    marked = table[table["reader"] == "computed"]["source"]
    assert set(marked) == {"computed from masks of one reader"}
    assert "computed" not in str(hospital.stage()["reader"].unique())  # and by parameter, nothing


def test_a_stage_from_another_system_is_marked_and_replaces_nothing(hospital: Hospital) -> None:
    study = hospital.visits[0].study
    header = "patient_id,study_instance_uid,side,reader,arco,ficat,steinberg,collapse_mm\n"
    rows = [f"P-0007,{study},L,A,,3,,2.5", f"P-0007,{study},R,A,2,2,,"]
    other = [f"0815,{hospital.visits[2].study},L,A,,3,,", f"0815,{hospital.visits[2].study},R,A,,,4A,"]
    hospital.csv("labels", header + "\n".join(rows + other) + "\n")
    assert hospital.annotate().ok
    hospital.arrive()
    table = hospital.stage(**BOTH)
    subject = table["subject"] == hospital.keys.subject("local", "P-0007")
    assert values(table[subject], "L")["arco"] == "3B" and values(table[subject], "R")["arco"] == "2"
    assert "arco" not in values(table[~subject], "L")  # Ficat 3 without a depth is 3A or 3B
    assert values(table[~subject], "R")["arco"] == "3A"
    converted = table[table["reader"] == "converted"]
    assert sorted(converted["source"]) == ["converted from ficat", "converted from steinberg"]


def test_only_what_is_defined_is_converted() -> None:
    assert [convert(stage, "ficat", "arco") for stage in FICAT] == [None, "1", "2", None, "4"]
    assert [convert("3", "ficat", "arco", collapse_mm=mm) for mm in (0.0, 2.0, 2.1)] == ["3A", "3A", "3B"]
    assert {stage: convert(stage, "steinberg", "arco") for stage in STEINBERG} == {
        "0": None, "1A": "1", "1B": "1", "1C": "1", "2A": "2", "2B": "2", "2C": "2", "3A": "3A", "3B": "3A",
        "3C": "3A", "4A": "3A", "4B": None, "4C": None, "5A": "4", "5B": "4", "5C": "4", "6": "4",
    }  # fmt: skip
    assert convert("4B", "steinberg", "arco", collapse_mm=3.0) == "3B"
    assert [convert(stage, "arco", "ficat") for stage in ARCO] == ["1", "2", "3", "3", "4"]
    assert [convert("2", "arco", "steinberg", lesion_fraction=f) for f in (0.1, 0.15, 0.31)] == ["2A", "2B", "2C"]
    assert convert("2", "arco", "steinberg") is None is convert("3A", "arco", "steinberg", 1.0, 0.2)
    assert not any(convert(kind, "jic", to, 1.0, 0.2) for kind in JIC for to in ("arco", "ficat", "steinberg"))
    assert not any(convert(stage, "arco", "jic", 1.0, 0.2) for stage in ARCO)


@pytest.mark.parametrize(
    ("cells", "arco", "reason"),
    [
        ("III,,1.5", "3A", ""),
        ("stage 3,,2.5", "3B", ""),
        ("3,,", "", "arco: needs its substage"),
        ("3,,99", "", "arco: needs its substage"),
        ("1,4,", "", "contradicts itself: an ARCO and a Ficat stage"),
    ],
)
def test_a_collapse_says_which_arco_3_it_is(cells: str, arco: str, reason: str) -> None:
    text = f"patient_id,visit_date,side,reader,arco,ficat,collapse_mm\n7,2021-03-04,L,A,{cells}\n"
    good, refused, _ = clinical.read("labels", text.encode(), "labels.csv")
    if arco:
        assert good[0][1].arco == arco and not refused
    else:
        assert not good and reason in str(refused[0])
