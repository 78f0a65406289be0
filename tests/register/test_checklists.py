"""TRIPOD+AI and CLAIM tables: every item, filled from the run or said not to be known."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from tasks.register import checklists

FACTS = {
    "name": "m", "horizon_days": 365.0, "origin": "phantom", "n_patients": 16, "n_hips": 32, "n_hip_visits": 119,
    "vendors": ["A"], "features": ["x"], "networks": {"forecast": ["fold0", "fold1"]}, "n_training_patients": 12,
    "n_test_patients": 4, "n_training_events": 24,
}  # fmt: skip


def rows(name: str, evaluate: dict) -> dict[str, dict[str, str]]:
    text = checklists.tables(FACTS, evaluate, {})[name]
    return {row["item"]: row for row in csv.DictReader(io.StringIO(text))}


def test_every_item_is_there_and_what_nobody_told_is_not_known() -> None:
    evaluate = {"n": 11, "n_patients": 4, "n_events": 4, "auc": 0.857, "auc_low": 0.6, "auc_high": 1.0}
    tripod, claim = rows("tripod_ai.csv", evaluate), rows("claim_2024.csv", evaluate)
    assert {item.rstrip("abcdefg") for item in tripod} == {str(n) for n in range(1, 28)}
    assert set(claim) == {str(n) for n in range(1, 45)}
    for row in (tripod["17"], tripod["18a"], claim["44"], claim["34"]):
        assert (row["answer"], row["known"]) == ("not known", "no")
    assert "AUC 0.86 (0.60 to 1.00), n = 11 hip-visits of 4 patients, 4 events" in tripod["23a"]["answer"]
    assert "12 for training, 4 frozen" in claim["20"]["answer"]
    assert claim["33"]["answer"] == "no external site so far"
    assert claim["31"]["known"] == "yes" and "Grad-CAM" in claim["31"]["answer"]


def test_nothing_evaluated_is_no_error() -> None:
    assert "not defined" in rows("tripod_ai.csv", {})["23a"]["answer"]


def test_every_word_of_the_tables_is_answered_somewhere() -> None:
    words = {word for row in (*checklists.TRIPOD, *checklists.CLAIM) for word in row[3].split()}
    known = set(checklists._answers(FACTS, {"interval": "95%", "populations": {"test": {}}}, {}))
    assert words - known == {"eligibility", "preparation", "size"}  # of the parameters and of the n that is needed


def test_the_package_holds_them(workspace, sections) -> None:
    from tasks.register.__main__ import main

    main([], sections)
    assert Path("models/package/tripod_ai.csv").exists() and Path("models/package/claim_2024.csv").exists()
