"""What a model learned from may be put right, or may turn out to be of the test set: both are known afterwards."""

from __future__ import annotations

import pandas as pd

from tasks.trace import backward, graph, left_training, resolve, trace


def corrected(facts: dict) -> dict:
    """The same facts, after reader r1 said 3A of the first patient's hip and took back nothing else."""
    now = facts["snapshots"][-1]["tables"]
    annotations = now["annotations"].copy()
    annotations.loc[(annotations["reader"] == "r1") & (annotations["subject"] == "OFA"), "value"] = "3A"
    return facts | {
        "snapshots": [*facts["snapshots"][:-1], facts["snapshots"][-1] | {"tables": now | {"annotations": annotations}}]
    }


def test_a_correction_is_another_node_and_leads_to_what_was_trained_on_the_old_one(facts: dict) -> None:
    whole = graph(corrected(facts))
    ref = "annotation:2.25.OFA-L/r1"
    old, new = sorted(resolve(whole, ref), key=lambda key: by_id(whole)[key].get("status") is None)
    assert by_id(whole)[old]["status"] == "corrected since" and "status" not in by_id(whole)[new]
    first = next(n["id"] for n in whole["nodes"] if n["kind"] == "model" and n["version"] == 1)
    assert first in {n["id"] for n in trace(whole, old)["nodes"]}
    assert first not in {n["id"] for n in trace(whole, new)["nodes"]}
    assert by_id(whole)[first]["corrected"] >= 1
    made_of = {n["id"] for n in backward(whole, first)["nodes"]}
    assert old in made_of and new not in made_of


def by_id(whole: dict) -> dict[str, dict]:
    return {node["id"]: node for node in whole["nodes"]}


def test_who_left_training() -> None:
    then = pd.DataFrame({"subject": ["a", "b", "c", "d", "e"], "fold": ["0", "1", "test", "2", "3"]})
    now = pd.DataFrame({"subject": ["a", "b", "c", "d"], "fold": ["0", "test", "test", None]})
    assert left_training(then, now) == {"b": "test", "d": "withdrawn"}
    assert left_training(then, then) == {} == left_training(None, now)


def test_a_model_that_learned_from_a_test_patient_says_so(facts: dict) -> None:
    snapshots = facts["snapshots"]
    subject = snapshots[0]["tables"]["annotations"]["subject"].iloc[0]
    for n, fold in enumerate(("0", "test")):
        split = pd.DataFrame({"subject": [subject], "fold": [fold]})
        snapshots[n] = snapshots[n] | {"tables": snapshots[n]["tables"] | {"split": split}}
    models = {node["version"]: node for node in graph(facts)["nodes"] if node["kind"] == "model"}
    assert models[1]["tainted"] == "trained on patients who are not for training any more: 1 now test"
    assert "tainted" not in models[2]
    facts["models"][1] = facts["models"][1] | {"tainted": "tagged at an erasure"}
    assert {node.get("tainted") for node in graph(facts)["nodes"] if node["kind"] == "model"} == {
        models[1]["tainted"], "tagged at an erasure"
    }  # fmt: skip
