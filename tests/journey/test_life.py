"""The whole life over: what the demo left must hold for a data engineer, the retraining loop and an auditor."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pandas as pd
import phi
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


def test_two_versions_are_registered_and_the_gate_has_spoken(life) -> None:
    status = json.loads(life.cold("status", "--json"))
    assert status["models"]["champion"] is not None
    assert status["studies"]["done"] > 0
    assert not any(status["studies"][state] for state in ("receiving", "complete", "claimed"))
    series = pd.read_parquet(life.workspace / "data" / "series.parquet")
    assert (series["status"] == "used").mean() > 0.9, series["reason"].value_counts()
    measured = pd.read_parquet(life.workspace / "data" / "measures.parquet")
    assert (measured["vessel_length_mm"] > 0).sum() > 5, measured["vessel_status"].value_counts()
    assert "version 1: promoted" in life.printed and "version 2:" in life.printed
    assert "not for diagnosis" in life.printed


def test_dvc_status_is_clean_and_plain_repro_does_nothing(life) -> None:
    lock = (life.workspace / "dvc.lock").read_bytes()
    assert "up to date" in life.dvc("status")
    said = life.dvc("repro")
    assert (life.workspace / "dvc.lock").read_bytes() == lock
    assert "Running stage" not in said


def test_the_checkout_that_it_was_started_from_stays_clean(life) -> None:
    assert life.checkout_after == life.checkout_before


def needles(life) -> list[str]:
    """What the cohort planted. Study dates are left out: one patient's shifted date may be another's real one."""
    planted = json.loads((life.cohort / "truth" / "phi.json").read_text())
    kinds = {**planted["strings"], **planted["tokens"]}
    return [text for kind, texts in kinds.items() if kind != "dates" for text in texts if len(text) >= 4]


def test_no_phi_outside_the_identified_zone(life) -> None:
    assert len(needles(life)) > 50
    assert phi.find(needles(life), life.workspace, life.home / "identified") == []


def test_the_search_for_phi_finds_what_is_planted(life, tmp_path: Path) -> None:
    """The negative control: in a table, a database, a file name, a Git object."""
    needle = needles(life)[0]
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    pd.DataFrame({"a": [needle]}).to_parquet(tmp_path / "t.parquet", compression="zstd")
    with sqlite3.connect(tmp_path / "x.db") as base:
        base.execute("create table t (a text)")
        base.execute("insert into t values (?)", (needle,))
    (tmp_path / "secret.txt").write_text(needle)
    subprocess.run(["git", "-C", str(tmp_path), "add", "secret.txt"], check=True)
    (tmp_path / "secret.txt").unlink()
    (tmp_path / f"a{needle}b.txt").touch()
    places = {where for where, _ in phi.find([needle], tmp_path, tmp_path / "none")}
    assert {"t.parquet", "x.db", ".git (objects)"} <= places
    assert any(place.endswith("(its name)") for place in places)


def test_the_identified_zone_finds_its_own_phi(life) -> None:
    """Another control: the same needles are found where they may be."""
    assert phi.find(needles(life)[:20], life.home / "identified", life.workspace / "none")


def test_lineage_has_a_commit_for_each_run_and_the_branch_is_untouched(life) -> None:
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=life.workspace, capture_output=True, text=True, check=True).stdout

    assert len(git("log", "--format=%H", "lineage").split()) == 2
    assert len(git("log", "--format=%H", "main").split()) == 1
    assert git("diff", "--stat") == ""
    recorded = git("ls-tree", "-r", "--name-only", "lineage").split()
    assert "dvc.lock" in recorded and "data/batches.dvc" in recorded
    assert not any(name.startswith(("data/batches/", "data/imports/")) for name in recorded)


def test_trace_goes_both_ways(life) -> None:
    back = life.json("trace", "model:onfh-progression@champion")
    kinds = {node["kind"] for node in back["nodes"]}
    assert {"model", "commit", "stage_run", "file", "batch", "study", "subject"} <= kinds
    subject = next(node["id"] for node in back["nodes"] if node["kind"] == "subject")
    forward = life.json("trace", subject if subject.startswith("subject:") else f"subject:{subject}")
    assert any(node["kind"] == "model" for node in forward["nodes"])


def test_verify_passes_and_names_a_planted_change(life) -> None:
    assert life.json("verify")["differences"] == []
    target = life.workspace / "data" / "measures.parquet"
    kept = life.workspace / ".osteoflow" / "kept"
    shutil.copy2(target, kept)
    try:
        with open(target, "ab") as handle:
            handle.write(b"x")
        found = life.json("verify", code=3)
        assert any("measures" in entry["what"] for entry in found["differences"])
    finally:
        shutil.move(kept, target)
    assert life.json("verify")["differences"] == []


def test_the_registered_model_loads_and_predicts_on_rows_with_nulls(life, tmp_path: Path) -> None:
    script = tmp_path / "predict.py"
    script.write_text(
        "import os, sys, pandas as pd\n"
        "from flows.environment import prepare; prepare()\n"
        "import mlflow\n"
        "frame = pd.read_parquet('data/sequences.parquet')\n"
        "assert frame['label'].isna().any(), 'no nulls to try'\n"
        "model = mlflow.pyfunc.load_model('models:/onfh-progression@champion')\n"
        "assert model.metadata.signature is not None and model.metadata.saved_input_example_info\n"
        "out = model.predict(frame)\n"
        "assert list(out.columns[:5]) == ['hip_visit', 'risk', 'risk_low', 'risk_high', 'abstain'], out.columns\n"
        "assert len(out) == len(frame) and out['risk'].dropna().between(0, 1).all()\n"
        "print('fine')\n"
    )
    assert "fine" in life.python(script)


def test_no_pickle_is_in_the_registry_or_among_the_models(life) -> None:
    for folder in (life.home / "mlartifacts", life.workspace / "models"):
        names = [path.name for path in folder.rglob("*") if path.is_file()]
        assert names and not [name for name in names if name.endswith((".pkl", ".pickle", ".pt", ".pth", ".joblib"))]


def test_folds_never_changed_between_the_runs(life) -> None:
    split = pd.read_parquet(life.workspace / "data" / "split.parquet")
    assert split["subject"].is_unique and {"test"} & set(split["fold"])


def test_the_report_is_one_file_that_fetches_nothing(life) -> None:
    html = (life.workspace / "reports" / "report.html").read_text()
    assert "not for diagnosis" in html and "<svg" in html
    for forbidden in ('src="http', 'href="http://', "<script src", "@import"):
        assert forbidden not in html


def test_bad_input_ends_in_quarantine_with_a_reason(life, tmp_path: Path) -> None:
    source = next(path for path in sorted((life.cohort / "dicom").rglob("*")) if path.is_file())
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "empty.dcm").touch()
    (bad / "note.txt").write_text("not an image")
    (bad / "cut.dcm").write_bytes(source.read_bytes()[:3000])
    before = sum(life.json("status")["quarantine"].values())
    result = life.json("ingest", str(bad), "--origin", "phantom")
    after = life.json("status")["quarantine"]
    assert sum(after.values()) == before + 3, (result, after)


def test_promote_and_rollback_move_the_champion_and_keep_who_and_why(life) -> None:
    champion = life.json("status")["models"]["champion"]
    other = 2 if champion == 1 else 1
    life.osteoflow("promote", str(other), "--reason", "reviewed", "--by", "tester")
    assert life.json("status")["models"]["champion"] == other
    life.osteoflow("rollback", "--reason", "second thoughts", "--by", "tester")
    assert life.json("status")["models"]["champion"] == champion
    history = [json.loads(line) for line in (life.home / "promotions.jsonl").read_text().splitlines()]
    assert [entry["reason"] for entry in history[-2:]] == ["reviewed", "second thoughts"]


def test_retraining_with_nothing_new_runs_no_stage(life) -> None:
    result = life.json("retrain", "--force")
    assert result["seconds"] == {}


def test_z_erasing_a_subject_leaves_nothing_and_taints_the_models(life) -> None:
    """Last, since it changes the data (the file's tests run in order)."""
    split = pd.read_parquet(life.workspace / "data" / "split.parquet")
    subject = split.loc[split["fold"] != "test", "subject"].iloc[0]
    plan = life.json("erase", subject, "--dry-run")
    assert plan
    life.osteoflow("erase", subject)
    left = [where for where, _ in phi.find([subject], life.workspace, life.home / "certificates")]
    assert not [where for where in left if not where.startswith((".git", ".osteoflow/prefect"))], left
