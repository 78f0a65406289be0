"""One subject goes, the other stays whole."""

import json
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from tasks.domain.errors import Refused, WrongUse
from tasks.erase import certificate, plan, purge, remaining
from tasks.erase.plan import matcher

GONE, STAYS = "OFGONE", "OFSTAYS"


def test_the_plan_finds_everything_and_changes_nothing(workspace, facts):
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    found = plan(GONE, facts, home=workspace)
    assert found.studies == ("2.25.111",) and found.series == ("2.25.900",)
    assert found.hip_visits == ("2.25.111-L",) and found.batches == ("000001",)
    assert set(found.files) == {
        "data/studies/000001/2.25.111-v1.zip",
        "data/hips/000001/2.25.111-L.safetensors",
        "data/imports/0001-abc/masks/a.st",
        "reports/report.html",
        ".osteoflow/scores/2.25.111.json",
        ".osteoflow/arrived/standardize/2.25.111/rows.json",
        ".osteoflow/arrived/standardize/2.25.111/files/x.safetensors",
        ".osteoflow/arrived/anonymize/rowkey7/rows.json",
        ".osteoflow/arrived/anonymize/rowkey7/files/y.zip",
    }
    assert found.rows == {
        f"data/{name}.parquet": 1
        for name in ("hips", "imports/0001-abc/masks", "sequences", "series", "split", "studies")
    }
    assert found.lines == {".osteoflow/logs/run.log": 1}
    assert before == {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    json.dumps(found.as_dict())


def test_models_that_learned_from_the_subject_are_tainted(workspace, facts):
    said = {model.version: model.reason for model in plan(GONE, facts, home=workspace).models}
    assert said.keys() == {1, 3}
    assert "trained on the subject (fold 0)" in said[1] and "unknown" in said[3]
    said = {model.version: model.reason for model in plan(STAYS, facts, home=workspace).models}
    assert said[1] == said[2] == "tested on the subject"


def test_after_the_purge_nothing_names_the_subject_and_the_other_is_whole(workspace, facts):
    found = plan(GONE, facts, home=workspace)
    done = purge(found)
    assert remaining(found, home=workspace) == []
    grep = subprocess.run(["grep", "-rlwE", r"OFGONE|2\.25\.111", "."], capture_output=True, text=True)
    assert grep.stdout.split() == ["./.osteoflow/identified/ledger.sqlite"]  # the flow's
    for name in ("studies", "hips", "sequences", "split"):
        assert list(pd.read_parquet(f"data/{name}.parquet")["subject"]) == [STAYS]
    for path in (
        "data/studies/000001/2.25.1112-v1.zip",
        "data/imports/0001-abc/masks/b.st",
        ".osteoflow/scores/2.25.1112.json",
        ".osteoflow/arrived/standardize/2.25.1112/rows.json",
        "reports/effect.csv",
        "models/package/package.json",
    ):
        assert Path(path).exists(), path
    assert Path(".osteoflow/logs/run.log").read_text() == "scored 2.25.1112-L\n"
    assert len(done) == len(found.files) + len(found.rows) + len(found.lines)
    assert remaining(found, home=workspace) == []


def test_the_certificate_holds_no_pseudonym_and_is_refused_while_something_is_left(workspace, facts):
    found = plan(GONE, facts, home=workspace)
    with pytest.raises(Refused):
        certificate(found, [], remaining(found, home=workspace))
    paper = certificate(found, purge(found), remaining(found, home=workspace), {"ledger_rows": 1})
    text = json.dumps(paper)
    for needle in (*found.needles, *found.files):
        assert needle not in text
    assert paper["counts"] == {"file": 9, "rows": 6, "lines": 1}
    assert {model["version"] for model in paper["tainted_models"]} == {1, 3}


def test_who_is_not_here_is_said(workspace, facts):
    with pytest.raises(WrongUse):
        plan("OFNOBODY", facts | {"models": []}, home=workspace)
    with pytest.raises(WrongUse):
        plan("a/../b", facts, home=workspace)


def test_a_uid_is_not_found_inside_a_longer_one():
    pattern = matcher(["2.25.111"])
    assert (
        pattern.search("hips/2.25.111-L.safetensors") and pattern.search('"2.25.111"') and pattern.search("2.25.111.")
    )
    for text in ("2.25.1112", "12.25.111", "1.2.25.111", "2.25.111.4"):
        assert not pattern.search(text), text
