"""Exports have the shape that their specifications ask for."""

import json
import uuid

import pytest

from tasks.domain.errors import WrongUse
from tasks.trace import backward, export


def test_prov_json(whole, tmp_path):
    found = backward(whole, "model:onfh-progression@champion")
    document = json.loads(export("prov", found, tmp_path / "prov.json").read_text())
    things = set(document["entity"]) | set(document["activity"])
    assert len(things) == len(found["nodes"])
    for kind, ends in (
        ("used", ("prov:activity", "prov:entity")),
        ("wasGeneratedBy", ("prov:entity", "prov:activity")),
        ("wasDerivedFrom", ("prov:generatedEntity", "prov:usedEntity")),
    ):
        assert document[kind]
        for relation in document[kind].values():
            assert {relation[end] for end in ends} <= things
    total = sum(len(document[kind]) for kind in ("used", "wasGeneratedBy", "wasDerivedFrom"))
    assert total == len(found["edges"])


def test_openlineage(whole, tmp_path):
    path = export("openlineage", backward(whole, "model:onfh-progression@champion"), tmp_path / "events.ndjson")
    events = [json.loads(line) for line in path.read_text().splitlines()]
    assert {event["job"]["name"] for event in events} == {"anonymize", "standardize", "assemble", "register"}
    for event in events:
        assert {"eventType", "eventTime", "producer", "schemaURL", "run", "job"} <= set(event)
        uuid.UUID(event["run"]["runId"])
        assert event["eventTime"] == "2026-01-01T00:00:00Z"
    anonymize = next(event for event in events if event["job"]["name"] == "anonymize")
    assert {one["name"] for one in anonymize["inputs"]} == {"data/batches", "tasks/anonymize"}
    assert {one["facets"]["version"]["datasetVersion"] for one in anonymize["outputs"]} == {"s1"}


def test_crate(whole, tmp_path):
    path = export("crate", backward(whole, "model:onfh-progression@champion"), tmp_path / "crate")
    assert path.name == "ro-crate-metadata.json"
    entities = {one["@id"]: one for one in json.loads(path.read_text())["@graph"]}
    root = entities["./"]
    assert entities["ro-crate-metadata.json"]["about"] == {"@id": "./"}
    assert {"name", "description", "datePublished", "license"} <= set(root)
    for one in [*root["hasPart"], *root["mentions"], root["license"]]:
        assert one["@id"] in entities
    for entity in entities.values():
        if entity["@type"] == "CreateAction":
            for end in (*entity["object"], *entity["result"], entity["instrument"]):
                assert end["@id"] in entities


def test_an_unknown_export_is_refused(whole, tmp_path):
    with pytest.raises(WrongUse, match="prov, openlineage, crate"):
        export("graphml", whole, tmp_path / "x")
