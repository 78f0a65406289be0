from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
from hospital import T1, Hospital, head, lesion
from mask_files import seg

from tasks.annotate.readers import combine
from tasks.domain.errors import Refused

HEADER = "patient_id,study_instance_uid,visit_date,side,reader,arco,lesion,kerboul_coronal_deg\n"


def labels(hospital: Hospital, *rows: str) -> None:
    hospital.csv("labels", HEADER + "\n".join(rows) + "\n")
    assert hospital.annotate().ok


def agreement() -> dict:
    return json.loads(Path("reports/annotate/agreement.json").read_text())


def test_nothing_imported_makes_empty_outs(hospital: Hospital) -> None:
    hospital.arrive()
    table = hospital.stage()
    assert table.empty and "hip_visit" in table and hospital.masks().empty
    assert (hospital.folder / "data/masks").is_dir()


def test_by_study_and_by_the_nearest_day(hospital: Hospital) -> None:
    first, second, *_ = hospital.visits
    near = second.day + timedelta(days=9)
    labels(hospital, f"P-0007,{first.study},,L,A,2,,", f"P-0007,,{near},R,A,3A,,", "P-0007,,2022-11-11,R,A,4,,")
    hospital.arrive()
    table = hospital.stage()
    table = table[table["reader"] != "consensus"]
    assert dict(zip(table["hip_visit"], table["value"], strict=True)) == {
        hospital.key(first, "L"): "2",
        hospital.key(second, "R"): "3A",
    }
    assert sorted(table["days"]) == [0.0, 180.0] and set(table["kind"]) == {"label"}
    assert agreement()["waiting"] == {"no visit within 21 days of its date": 1}


def test_a_label_waits_for_its_images(hospital: Hospital) -> None:
    last = hospital.visits[3]
    labels(hospital, f"0815,{last.study},,L,A,2,,", "9999,,2021-03-04,L,A,2,,")
    hospital.csv("treatments", "patient_id,side,date,treatment\n0815,L,2021-09-01,osteotomy\n")
    hospital.annotate()
    hospital.arrive(hospital.visits[:2])
    assert hospital.stage().empty
    waiting = agreement()["waiting"]
    assert waiting == {"its patient has not arrived": 2 + 1, "its study has not arrived": 2}  # both imports hold them
    hospital.arrive()
    table = hospital.stage()
    assert sorted(table["kind"]) == ["label", "label", "treatment"]
    treatment = table[table["kind"] == "treatment"].iloc[0]
    assert treatment["days"] == 181.0 and treatment["name"] == "osteotomy" and treatment["side"] == "L"
    assert treatment["hip_visit"] is None


def test_what_contradicts_the_images_is_refused_with_its_row(hospital: Hospital) -> None:
    first, _, other, _ = hospital.visits
    labels(
        hospital,
        f"0815,{first.study},,L,A,2,,",
        f"P-0007,{first.study},2021-08-08,L,A,2,,",
        f"0815,{other.study},,L,A,1,,",
    )
    hospital.arrive()
    table = hospital.stage()
    assert list(table[table["reader"] != "consensus"]["value"]) == ["1"]
    said = Path("reports/annotate/rejected.csv").read_text()
    assert "labels.csv:2,label,,its study belongs to another patient" in said
    assert "labels.csv:3,label,,its date is 157 days from its study" in said


def test_a_hip_that_was_not_found_has_no_label_yet(hospital: Hospital) -> None:
    labels(hospital, f"P-0007,{hospital.visits[0].study},,L,A,2,,")
    hospital.arrive(without=("P-0007-L",))
    assert len(hospital.stage()) == 2  # standardize knows the hip, though it could not measure it


def test_two_identities_of_one_person(hospital: Hospital) -> None:
    """Dates of the other identity are shifted otherwise; the merge carries the difference, and days come out right."""
    hospital.csv("merges", "site,patient_id,same_site,same_as\nlocal,OLD-1,local,P-0007\n")
    hospital.csv("outcomes", "patient_id,side,date,event\nOLD-1,L,2021-09-05,collapse\n")
    labels(hospital, "OLD-1,,2021-03-06,R,A,2,,")
    hospital.arrive()
    table = hospital.stage()
    outcome = table[table["kind"] == "outcome"].iloc[0]
    subject = hospital.keys.subject("local", "P-0007")
    assert (outcome["subject"], outcome["days"]) == (subject, 185.0)
    assert set(table[table["kind"] == "label"]["hip_visit"]) == {hospital.key(hospital.visits[0], "R")}
    merge = table[table["kind"] == "merge"].iloc[0]
    assert {merge["subject"], merge["value"]} == {subject, hospital.keys.subject("local", "OLD-1")}


def test_consensus_of_readers(hospital: Hospital) -> None:
    study = hospital.visits[0].study
    labels(
        hospital,
        f"P-0007,{study},,L,A,2,1,100", f"P-0007,{study},,L,B,3A,1,110", f"P-0007,{study},,L,C,2,,150",
        f"P-0007,{study},,R,A,2,1,", f"P-0007,{study},,R,B,,0,",
    )  # fmt: skip
    hospital.arrive()
    table = hospital.stage()
    agreed = table[table["reader"] == "consensus"]
    left = agreed[agreed["side"] == "L"].set_index("name")["value"].to_dict()
    right = agreed[agreed["side"] == "R"].set_index("name")["value"].to_dict()
    assert left == {"arco": "2", "lesion": "1", "kerboul_coronal_deg": "110"}
    assert right == {"arco": "2", "lesion": "1"}  # a tie goes to the more severe
    assert agreement()["disagreements"] == 2
    labels(hospital, f"P-0007,{study},,L,adjudicator,3A,1,105", f"P-0007,{study},,R,A,,0,")
    table = hospital.stage()
    agreed = table[(table["reader"] == "consensus") & (table["side"] == "L")].set_index("name")["value"].to_dict()
    assert agreed == {"arco": "3A", "lesion": "1", "kerboul_coronal_deg": "105"}
    right = table[(table["reader"] == "consensus") & (table["side"] == "R") & (table["name"] == "lesion")]
    assert list(right["value"]) == ["0"]  # the later import corrects reader A
    assert agreement()["corrected_by_later_imports"] == 1 and agreement()["disagreements"] == 0


def test_only_an_adjudicator_may_decide(hospital: Hospital) -> None:
    """By parameter: what readers differ on has no consensus, as label or mask, until somebody has decided."""
    visit = hospital.visits[0]
    study = visit.study
    for reader, radius in (("A", 24.0), ("B", 16.0)):
        masks = [("head", head(T1, radius=radius)), ("lesion", lesion(T1, "L"))]
        seg(hospital.src / f"{reader}.dcm", visit.images(T1, "t1"), T1, masks, reader=reader)
    rows = [f"P-0007,{study},,L,A,2,1,100", f"P-0007,{study},,L,B,3A,1,160", f"P-0007,{study},,R,A,1,,"]
    labels(hospital, *rows)
    hospital.arrive()
    how = dict.fromkeys(("head", "lesion", "vessel", "stage", "measurement"), "adjudicator")
    floors = {
        "bootstrap": 20,
        "seed": 1,
        "min_hips": 9,
        "floors": {},
        "differ": {"kerboul_coronal_deg": 30, "head": 0.8},
    }
    table = hospital.stage(consensus=how, agreement=floors)
    agreed = table[table["reader"] == "consensus"]
    assert sorted(zip(agreed["side"], agreed["name"], agreed["kind"], strict=True)) == [
        ("L", "lesion", "label"), ("L", "lesion", "mask"), ("R", "arco", "label")
    ]  # fmt: skip
    said = Path("reports/annotate/disagreements.csv").read_text().splitlines()[1:]
    assert [line.split(",")[1] for line in said] == ["arco", "kerboul_coronal_deg", "head", "head"]
    seg(hospital.src / "C.dcm", visit.images(T1, "t1"), T1, [("head", head(T1, "L", 20.0))], reader="Adjudicator")
    labels(hospital, f"P-0007,{study},,L,consensus,3A,1,130")
    table = hospital.stage(consensus=how, agreement=floors)
    agreed = table[(table["reader"] == "consensus") & (table["side"] == "L")]
    assert set(agreed["name"]) == {"arco", "head", "kerboul_coronal_deg", "lesion"}
    assert agreement()["disagreements"] == 1  # the right head


def test_a_later_mask_corrects_and_only_its_hip_is_done_again(
    hospital: Hospital, caplog: pytest.LogCaptureFixture
) -> None:
    first, second, *_ = hospital.visits
    for visit in (first, second):
        seg(hospital.src / f"{visit.number}.dcm", visit.images(T1, "t1"), T1, [("head", head(T1))])
    hospital.annotate()
    hospital.arrive()
    hospital.stage()
    before = {p.name: p.stat().st_ino for p in (hospital.folder / "data/masks").iterdir()}
    assert len(before) == 4
    hospital.stage()
    assert {p.name: p.stat().st_ino for p in (hospital.folder / "data/masks").iterdir()} == before
    seg(hospital.src / "0.dcm", first.images(T1, "t1"), T1, [("head", head(T1, "L", radius=20.0))])
    (hospital.src / "1.dcm").unlink()
    hospital.annotate()
    hospital.stage()
    after = {p.name: p.stat().st_ino for p in (hospital.folder / "data/masks").iterdir()}
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {f"{hospital.key(first, side)}.safetensors" for side in "LR"}
    small, large = (int(hospital.mask(visit, "L", "consensus/head").sum()) for visit in (first, second))
    assert small < 0.65 * large


def test_a_hip_called_free_of_lesions_has_an_empty_lesion(hospital: Hospital) -> None:
    visit = hospital.visits[0]
    masks = [("head", head(T1)), ("lesion", lesion(T1, "L"))]
    seg(hospital.src / "a.dcm", visit.images(T1, "t1"), T1, masks, reader="A")
    labels(hospital, f"P-0007,{visit.study},,R,A,,0,", f"P-0007,{visit.study},,L,A,,1,")
    hospital.arrive()
    hospital.stage()
    assert hospital.mask(visit, "L", "consensus/lesion").any()
    assert not hospital.mask(visit, "R", "consensus/lesion").any()


def test_readers_masks_and_their_agreement(hospital: Hospital) -> None:
    for visit in hospital.visits:
        for reader, radius in (("A", 24.0), ("B", 22.0)):
            name = hospital.src / f"{visit.patient}{visit.number}{reader}.dcm"
            seg(name, visit.images(T1, "t1"), T1, [("head", head(T1, radius=radius))], reader=reader)
    hospital.annotate()
    hospital.arrive()
    hospital.stage()
    visit = hospital.visits[0]
    sizes = [int(hospital.mask(visit, "L", f"{hospital.keys.reader(r)}/head").sum()) for r in "AB"]
    both = int(hospital.mask(visit, "L", "consensus/head").sum())
    assert sizes[1] < both < sizes[0]
    (entry,) = agreement()["agreement"]
    assert entry["measure"] == "Dice" and (entry["n_hips"], entry["n_patients"]) == (8, 2)
    assert 0.8 < entry["low"] <= entry["value"] <= entry["high"] < 0.95 and 1.5 < entry["surface_mm"] < 2.5
    floors = {"bootstrap": 20, "seed": 1, "min_hips": 3, "floors": {"head": 0.99}, "differ": {}}
    with pytest.raises(Refused, match="head Dice") as refused:
        hospital.stage(agreement=floors)
    assert refused.value.exit_code == 3


def test_annotations_of_another_origin_never_meet_these_images(hospital: Hospital) -> None:
    visit = hospital.visits[0]
    seg(hospital.src / "a.dcm", visit.images(T1, "t1"), T1, [("head", head(T1, "L"))])
    labels(hospital, f"P-0007,{visit.study},,L,A,2,,")
    about = next((hospital.folder / "data/imports").glob("*/import.json"))
    about.write_text(about.read_text().replace('"hospital"', '"phantom"'))
    hospital.arrive()
    assert hospital.stage().empty
    assert any("imported as phantom, its images as hospital" in reason for reason in agreement()["waiting"])


@pytest.mark.parametrize("method", ["mean", "majority", "union", "intersection", "staple"])
def test_ways_to_combine_three_readers(method: str) -> None:
    ball = head(T1, "L")
    small = head(T1, "L", 20.0)
    shifted = head(T1, "L", 24.0, (3.0, 0, 0))
    sizes = [int(mask.sum()) for mask in (ball, small, shifted)]
    agreed = int(combine([ball, small, shifted], method, (4.4, 1.2, 1.2)).sum())
    low, high = {"union": (max(sizes) + 1, 9**9), "intersection": (0, min(sizes))}.get(method, (min(sizes), max(sizes)))
    assert low <= agreed <= high
