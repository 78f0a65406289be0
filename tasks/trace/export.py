"""A graph in the words of others: PROV-JSON (W3C), OpenLineage run events, RO-Crate 1.1 (Process Run Crate).

Written as plain JSON from the specifications, so that reading one needs no package of ours. Data are named by path and
digest; nothing is copied, so no image leaves with the lineage.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

from tasks.domain.errors import WrongUse
from tasks.domain.hip import RESEARCH_ONLY
from tasks.store.files import write_json, write_text
from tasks.trace.graph import Graph, Node

NAMESPACE = "urn:osteoflow:"
PRODUCER = "urn:osteoflow:trace"
NO_TIME = "1980-01-01T00:00:00Z"
"""OpenLineage and RO-Crate ask for a time; where the facts hold none, this stands for unknown."""
KINDS = ("prov", "openlineage", "crate")


def export(kind: str, graph: Graph, out: Path) -> Path:
    """Write `graph` as `kind` to `out` (for a crate: a folder, which gets ro-crate-metadata.json); returns the file."""
    if kind == "prov":
        write_json(out, prov(graph))
        return out
    if kind == "openlineage":
        import json

        write_text(out, "".join(json.dumps(event, sort_keys=True) + "\n" for event in openlineage(graph)))
        return out
    if kind == "crate":
        target = out if out.suffix == ".json" else out / "ro-crate-metadata.json"
        write_json(target, crate(graph))
        return target
    raise WrongUse(f"'{kind}' is no export; it is one of {', '.join(KINDS)}")


# ---- PROV-JSON, W3C member submission 2013 ---------------------------------------------------------------------------


def prov(graph: Graph) -> dict[str, Any]:
    """Stage runs are activities, everything else is an entity, osteoflow is the agent."""
    nodes = {node["id"]: node for node in graph["nodes"]}
    document: dict[str, Any] = {
        "prefix": {"osteoflow": NAMESPACE, "prov": "http://www.w3.org/ns/prov#"},
        "entity": {},
        "activity": {},
        "agent": {"osteoflow:osteoflow": {"prov:type": {"$": "prov:SoftwareAgent", "type": "prov:QUALIFIED_NAME"}}},
        "used": {},
        "wasGeneratedBy": {},
        "wasDerivedFrom": {},
        "wasAssociatedWith": {},
    }
    for node in graph["nodes"]:
        facts = {f"osteoflow:{key}": _plain(node[key]) for key in sorted(node) if key != "id" and node[key] is not None}
        document["activity" if node["kind"] == "stage_run" else "entity"][_name(node)] = facts
        if node["kind"] == "stage_run":
            document["wasAssociatedWith"][f"_:a{len(document['wasAssociatedWith'])}"] = {
                "prov:activity": _name(node),
                "prov:agent": "osteoflow:osteoflow",
            }
    for edge in graph["edges"]:
        start, end = nodes[edge["from"]], nodes[edge["to"]]
        if end["kind"] == "stage_run":
            kind, roles = "used", {"prov:activity": _name(end), "prov:entity": _name(start)}
        elif start["kind"] == "stage_run":
            kind, roles = "wasGeneratedBy", {"prov:entity": _name(end), "prov:activity": _name(start)}
        else:
            kind, roles = "wasDerivedFrom", {"prov:generatedEntity": _name(end), "prov:usedEntity": _name(start)}
        document[kind][f"_:{kind[0]}{len(document[kind])}"] = roles | {"osteoflow:how": edge["how"]}
    return document


def _name(node: Node) -> str:
    """A PROV qualified name: letters that it may not hold become '_'."""
    return "osteoflow:" + "".join(c if c.isalnum() or c in "-._~" else "_" for c in node["id"])


def _plain(value: Any) -> Any:
    return "+".join(map(str, value)) if isinstance(value, (list, tuple)) else value


# ---- OpenLineage 2-0-2 -----------------------------------------------------------------------------------------------


def openlineage(graph: Graph) -> list[dict[str, Any]]:
    """One COMPLETE event a stage run, with its input and output datasets by path and DVC digest."""
    nodes = {node["id"]: node for node in graph["nodes"]}
    times = [node["time"] for node in graph["nodes"] if node["kind"] == "commit" and node.get("time")]
    events = []
    for node in graph["nodes"]:
        if node["kind"] != "stage_run":
            continue
        inputs = [nodes[e["from"]] for e in graph["edges"] if e["to"] == node["id"]]
        outputs = [nodes[e["to"]] for e in graph["edges"] if e["from"] == node["id"]]
        events.append(
            {
                "eventType": "COMPLETE",
                "eventTime": _time(graph, node, times),
                "producer": PRODUCER,
                "schemaURL": "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent",
                "run": {"runId": str(uuid.uuid5(uuid.NAMESPACE_URL, NAMESPACE + node["digest"])), "facets": {}},
                "job": {"namespace": "osteoflow", "name": node["stage"], "facets": {}},
                "inputs": [_dataset(one) for one in inputs if one["kind"] == "file"],
                "outputs": [_dataset(one) for one in outputs if one["kind"] == "file"],
            }
        )
    return events


def _dataset(node: Node) -> dict[str, Any]:
    version = {
        "_producer": PRODUCER,
        "_schemaURL": "https://openlineage.io/spec/facets/1-0-1/DatasetVersionDatasetFacet.json",
        "datasetVersion": node["digest"] or "unknown",
    }
    return {"namespace": "dvc", "name": node["path"], "facets": {"version": version}}


def _time(graph: Graph, run: Node, otherwise: list[str]) -> str:
    commits = {node["id"]: node.get("time") for node in graph["nodes"] if node["kind"] == "commit"}
    own = [commits[e["from"]] for e in graph["edges"] if e["to"] == run["id"] and commits.get(e["from"])]
    return str(min(own)) if own else (str(max(otherwise)) if otherwise else NO_TIME)


# ---- RO-Crate 1.1 with Process Run Crate 0.5 -------------------------------------------------------------------------


def crate(graph: Graph) -> dict[str, Any]:
    """The metadata file: stage runs are CreateActions of one application; data are named by URN, none is inside."""
    nodes = {node["id"]: node for node in graph["nodes"]}
    data = [node for node in graph["nodes"] if node["kind"] != "stage_run" and node["kind"] != "commit"]
    runs = [node for node in graph["nodes"] if node["kind"] == "stage_run"]
    times = [node["time"] for node in graph["nodes"] if node["kind"] == "commit" and node.get("time")]
    when = str(max(times)) if times else NO_TIME
    profile = "https://w3id.org/ro/wfrun/process/0.5"
    licence = "http://spdx.org/licenses/Apache-2.0"
    root: dict[str, Any] = {
        "@id": "./",
        "@type": "Dataset",
        "name": f"Lineage of {graph['ref'] or 'everything'}",
        "description": f"What was made of what, by pseudonyms and digests; no data inside. {RESEARCH_ONLY}",
        "datePublished": when,
        "license": {"@id": licence},
        "conformsTo": {"@id": profile},
        "hasPart": [{"@id": _urn(node)} for node in data],
        "mentions": [{"@id": _urn(node)} for node in runs],
    }
    entities: list[dict[str, Any]] = [
        {
            "@id": "ro-crate-metadata.json",
            "@type": "CreativeWork",
            "about": {"@id": "./"},
            "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
        },
        root,
        {"@id": licence, "@type": "CreativeWork", "name": "Apache License 2.0"},
        {"@id": profile, "@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"},
        {"@id": "#osteoflow", "@type": "SoftwareApplication", "name": "osteoflow", "url": "urn:osteoflow:software"},
    ]
    for node in data:
        entity = {
            "@id": _urn(node),
            "@type": "File",
            "name": node.get("path") or node["id"],
            "additionalType": node["kind"],
        }
        if node.get("digest"):
            entity["identifier"] = node["digest"]
        sources = [nodes[e["from"]] for e in graph["edges"] if e["to"] == node["id"]]
        derived = [{"@id": _urn(one)} for one in sources if one["kind"] not in ("stage_run", "commit")]
        entities.append(entity | ({"isBasedOn": derived} if derived else {}))
    for node in runs:
        read = [nodes[e["from"]] for e in graph["edges"] if e["to"] == node["id"]]
        wrote = [nodes[e["to"]] for e in graph["edges"] if e["from"] == node["id"]]
        entities.append(
            {
                "@id": _urn(node),
                "@type": "CreateAction",
                "name": f"Run of the stage {node['stage']}",
                "instrument": {"@id": "#osteoflow"},
                "object": [{"@id": _urn(one)} for one in read if one["kind"] != "commit"],
                "result": [{"@id": _urn(one)} for one in wrote],
                "endTime": _time(graph, node, times),
                "actionStatus": "http://schema.org/CompletedActionStatus",
                "identifier": node["digest"],
            }
        )
    return {"@context": "https://w3id.org/ro/crate/1.1/context", "@graph": entities}


def _urn(node: Node) -> str:
    return NAMESPACE + "".join(c if c.isalnum() or c in "-._~:/@" else f"%{ord(c):02X}" for c in node["id"])
