"""What is a model made of; where did a patient's data go."""

import pytest
from rich.console import Console

from tasks.domain.errors import WrongUse
from tasks.trace import backward, forward, graph, resolve, text, trace

KINDS = {
    "subject", "study", "batch", "annotation", "hip_visit", "file", "stage_run", "commit", "model", "score",
    "published",
}  # fmt: skip


def ids(found, kind):
    return {node["id"] for node in found["nodes"] if node["kind"] == kind}


def test_every_node_and_edge_is_of_the_promised_shape(whole):
    assert {node["kind"] for node in whole["nodes"]} == KINDS
    known = {node["id"] for node in whole["nodes"]}
    assert all({"id", "kind", "digest"} <= set(node) for node in whole["nodes"])
    assert all(set(edge) == {"from", "to", "how"} for edge in whole["edges"])
    assert all(edge["from"] in known and edge["to"] in known for edge in whole["edges"])


def test_a_model_is_made_of_the_patients_of_its_own_snapshot(whole):
    first = backward(whole, "model:onfh-progression@champion")
    assert ids(first, "subject") == {"subject:OFA"}
    assert ids(first, "commit") == {"commit:" + "a" * 40}
    assert {node["stage"] for node in first["nodes"] if node["kind"] == "stage_run"} == {
        "anonymize", "standardize", "assemble", "register",
    }  # fmt: skip
    second = backward(whole, "model:onfh-progression/2")
    assert ids(second, "subject") == {"subject:OFA", "subject:OFB"}
    assert ids(second, "batch") == {"batch:000001"}


def test_a_patient_reaches_the_models_made_of_him_and_no_others(whole):
    assert ids(forward(whole, "subject:OFB"), "model") == {"model:onfh-progression/2"}
    assert ids(forward(whole, "subject:OFA"), "model") == {"model:onfh-progression/1", "model:onfh-progression/2"}
    assert ids(forward(whole, "subject:OFB"), "score") == {"score:2.25.OFB-L@1"}
    assert ids(forward(whole, "study:2.25.OFB"), "published") == {"published:reports/report.html"}
    assert "hip_visit:2.25.OFA-L" not in ids(forward(whole, "subject:OFB"), "hip_visit")


@pytest.mark.parametrize(
    ("ref", "found"),
    [
        ("model:onfh-progression/2", "model:onfh-progression/2"),
        ("model:onfh-progression@champion", "model:onfh-progression/1"),
        ("study:2.25.OFA", "study:2.25.OFA"),
        ("subject:OFA", "subject:OFA"),
        ("hip:OFA-L", "hip_visit:2.25.OFA-L"),
        ("hip:2.25.OFA-L", "hip_visit:2.25.OFA-L"),
        ("file:data/hips/000001/2.25.OFA-L.safetensors", "file:data/hips/000001/2.25.OFA-L.safetensors"),
        ("commit:aaaaaa", "commit:" + "a" * 40),
        ("score:2.25.OFB-L", "score:2.25.OFB-L@1"),
    ],
)
def test_references(whole, ref, found):
    assert resolve(whole, ref) == [found]


def test_a_path_stands_for_all_its_contents_and_a_file_inside_for_its_folder(whole):
    assert len(resolve(whole, "file:data/hips.parquet")) == 2
    assert resolve(whole, "file:models/package/model.py")


@pytest.mark.parametrize("ref", ["OFA", "patient:OFA", "subject:OFZ", "model:onfh-progression@nobody", "file:none"])
def test_what_is_not_known_is_said(whole, ref):
    with pytest.raises(WrongUse):
        resolve(whole, ref)


def test_nothing_known_is_an_empty_graph():
    assert graph({}) == {"ref": "", "nodes": [], "edges": []}


def test_a_terminal_shows_both_ways_and_counts_what_is_many(whole, facts):
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(text(trace(whole, "subject:OFB"), "subject:OFB"))
    shown = console.export_text()
    assert "went into" in shown and "onfh-progression/2" in shown
    console.print(text(whole, "model:onfh-progression@champion"))
    assert "made of" in console.export_text()
