"""A file that two runs wrote alike does not join their histories."""

from __future__ import annotations

import pandas as pd

from tasks.trace import backward, forward, graph


def snapshot(commit: str, batch: str, studies: str) -> dict:
    lock = {
        "stages": {
            "anonymize": {
                "cmd": "a",
                "deps": [{"path": "data/batches", "md5": f"{batch}.dir"}],
                "outs": [{"path": "data/studies.parquet", "md5": studies}],
            },
            "assemble": {
                "cmd": "b",
                "deps": [{"path": "data/studies.parquet", "md5": studies}],
                "outs": [{"path": "data/sequences.json", "md5": "same"}, {"path": "data/x.parquet", "md5": commit}],
            },
        }
    }
    table = pd.DataFrame(
        {"subject": [f"S{batch}"], "study": [f"2.25.{batch}"], "batch": [batch], "status": ["released"]}
    )
    return {"commit": commit, "time": "", "lock": lock, "tables": {"studies": table}}


FACTS = {
    "snapshots": [snapshot("aaa", "1", "s1"), snapshot("bbb", "2", "s2")],
    "batches": [{"batch": "1", "digest": "x", "n": 1}, {"batch": "2", "digest": "y", "n": 1}],
    "models": [
        {"name": "m", "version": 1, "aliases": [], "commit": "aaa", "inputs": {"data/sequences.json": "same"}},
        {"name": "m", "version": 2, "aliases": [], "commit": "bbb", "inputs": {"data/sequences.json": "same"}},
    ],
}


def test_the_first_model_is_not_made_of_what_came_later() -> None:
    made_of = {node["id"] for node in backward(graph(FACTS), "model:m/1")["nodes"]}
    assert "batch:1" in made_of and "study:2.25.1" in made_of
    assert "batch:2" not in made_of and "study:2.25.2" not in made_of


def test_a_late_study_does_not_reach_the_first_model() -> None:
    reached = {node["id"] for node in forward(graph(FACTS), "study:2.25.2")["nodes"]}
    assert "model:m/2" in reached and "model:m/1" not in reached
