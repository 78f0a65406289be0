from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from hospital import Hospital

TREATMENTS, OUTCOMES = "patient_id,side,date,treatment", "patient_id,side,date,event"


def standing(hospital: Hospital, kind: str) -> dict[str, list[float]]:
    """{treatment or event: days since the first visit}"""
    table = hospital.stage()
    table = table[table["kind"] == kind]
    return {str(name): sorted(days) for name, days in table.groupby("name")["days"]}


def give(hospital: Hospital, name: str, header: str, *rows: str) -> None:
    for path in hospital.src.iterdir():
        path.unlink()
    hospital.csv(name, "\n".join([header, *rows]) + "\n")
    summary = hospital.annotate()
    assert summary.ok, summary


def corrections() -> pd.DataFrame:
    return pd.read_csv("reports/annotate/corrections.csv")


@pytest.mark.parametrize(
    ("first", "later", "stands"),
    [
        # the whole table again, one cell put right: the date, or the treatment
        (["2021-04-05,core_decompression"], ["2021-04-12,core_decompression"], {"core_decompression": [39.0]}),
        (["2021-04-05,core_decompression"], ["2021-04-05,osteotomy"], {"osteotomy": [32.0]}),
        (["2021-04-05,nonvascular_graft"], ["2021-09-05,nonvascular_graft"], {"nonvascular_graft": [185.0]}),
        # two on one day in one table, and both again: nothing changes
        (
            ["2021-04-05,core_decompression", "2021-04-05,stem_cells"],
            ["2021-04-05,core_decompression", "2021-04-05,stem_cells"],
            {"core_decompression": [32.0], "stem_cells": [32.0]},
        ),
        # only what is new: what was said before stays
        (["2021-04-05,observation"], ["2021-09-05,stem_cells"], {"observation": [32.0], "stem_cells": [185.0]}),
        (["2021-04-05,bisphosphonate"], ["2021-09-05,bisphosphonate"], {"bisphosphonate": [32.0, 185.0]}),
    ],
)  # fmt: skip
def test_treatments(hospital: Hospital, first: list[str], later: list[str], stands: dict[str, list[float]]) -> None:
    hospital.arrive()
    give(hospital, "treatments", TREATMENTS, *[f"P-0007,L,{row}" for row in first], "P-0007,R,2021-04-05,osteotomy")
    give(hospital, "treatments", TREATMENTS, *[f"P-0007,L,{row}" for row in later])
    found = standing(hospital, "treatment")
    other = stands.get("osteotomy", [])
    assert found == stands | {"osteotomy": sorted([*other, 32.0])}  # that of the other hip was never in question
    assert len(corrections()) == (len(first) == 1 and sum(len(days) for days in stands.values()) == 1)


def test_outcomes_go_on_and_are_put_right(hospital: Hospital) -> None:
    hospital.arrive()
    give(hospital, "outcomes", OUTCOMES, "0815,R,2021-09-04,stage_up", "0815,R,2021-10-04,last_follow_up")
    give(hospital, "outcomes", OUTCOMES, "0815,R,2022-03-04,stage_up", "0815,R,2022-03-04,last_follow_up")
    assert standing(hospital, "outcome") == {"stage_up": [184.0, 365.0], "last_follow_up": [365.0]}
    assert corrections().empty  # follow-up went on
    give(hospital, "outcomes", OUTCOMES, "0815,R,2022-01-04,collapse")
    give(hospital, "outcomes", OUTCOMES, "0815,R,2022-02-04,collapse")
    assert standing(hospital, "outcome")["collapse"] == [337.0]
    (row,) = corrections().to_dict("records")
    assert (
        row["now"] == "collapse +31 days" and row["source"].split("/")[1] == "outcomes.csv:2" == row["by"].split("/")[1]
    )


def test_outcomes_of_one_day_stand_beside_each_other(hospital: Hospital) -> None:
    """A collapse is seen at the visit that ends follow-up, and is a rise of the stage too."""
    hospital.arrive()
    names = ("collapse", "last_follow_up", "stage_up")
    for name in names:
        give(hospital, "outcomes", OUTCOMES, f"0815,R,2021-09-04,{name}")
    assert standing(hospital, "outcome") == {name: [184.0] for name in names} and corrections().empty


def test_what_replaces_a_day_in_words_takes_its_own_kind_and_leaves_the_follow_up(hospital: Hospital) -> None:
    hospital.arrive()
    words = f"{OUTCOMES},replaces,status"
    give(hospital, "outcomes", OUTCOMES, "0815,R,2021-09-04,collapse", "0815,R,2021-09-04,last_follow_up")
    give(hospital, "outcomes", words, "0815,R,2021-09-24,collapse,2021-09-04,")
    assert standing(hospital, "outcome") == {"collapse": [204.0], "last_follow_up": [184.0]}
    give(hospital, "outcomes", words, "0815,R,2021-09-25,collapse,2021-09-04,")  # the date first given, again
    assert standing(hospital, "outcome") == {"collapse": [205.0], "last_follow_up": [184.0]}
    give(hospital, "outcomes", words, "0815,R,2021-09-25,stage_up,2021-09-25,")  # it was not a collapse
    give(hospital, "outcomes", OUTCOMES, "0815,R,2021-09-25,arthroplasty")
    give(hospital, "outcomes", words, "0815,R,2021-09-26,stage_up,2021-09-25,")
    expected = {"stage_up": [206.0], "last_follow_up": [184.0], "arthroplasty": [205.0]}
    assert standing(hospital, "outcome") == expected


def test_in_words_anything_can_be_replaced_or_withdrawn(hospital: Hospital) -> None:
    hospital.arrive()
    give(hospital, "treatments", TREATMENTS, "P-0007,L,2021-04-05,bisphosphonate", "P-0007,L,2021-06-05,stem_cells")
    give(hospital, "treatments", f"{TREATMENTS},replaces,status", "P-0007,L,2021-08-05,bisphosphonate,2021-04-05,")
    assert standing(hospital, "treatment") == {"bisphosphonate": [154.0], "stem_cells": [93.0]}
    give(hospital, "treatments", f"{TREATMENTS},status", "P-0007,L,2021-06-05,stem_cells,withdrawn")
    assert standing(hospital, "treatment") == {"bisphosphonate": [154.0]}
    assert list(corrections()["now"]) == ["bisphosphonate +122 days", "withdrawn"]
    give(hospital, "treatments", TREATMENTS, "P-0007,L,2021-06-05,stem_cells")
    assert standing(hospital, "treatment")["stem_cells"] == [93.0]  # and given again


def test_one_person_of_two_identities_is_put_right_under_either(hospital: Hospital) -> None:
    hospital.arrive()
    give(hospital, "merges", "site,patient_id,same_site,same_as", "local,OLD-1,local,P-0007")
    give(hospital, "outcomes", OUTCOMES, "OLD-1,L,2021-09-04,collapse")
    give(hospital, "outcomes", OUTCOMES, "P-0007,L,2021-09-14,collapse")
    assert standing(hospital, "outcome") == {"collapse": [194.0]}


def test_what_was_imported_before_corrections_were_known_reads_on(hospital: Hospital) -> None:
    hospital.arrive()
    give(hospital, "outcomes", OUTCOMES, "0815,R,2021-09-04,collapse")
    path = next(Path("data/imports").glob("*/outcomes.parquet"))
    pd.read_parquet(path).drop(columns=["replaces", "status"]).to_parquet(path)
    assert standing(hospital, "outcome") == {"collapse": [184.0]}
