"""Both ways through a graph from one reference."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from tasks.domain.errors import WrongUse
from tasks.trace.graph import Graph, Node

FORMS = (
    "model:NAME@alias, model:NAME/3, study:UID, subject:ID, file:PATH, hip:HIP_VISIT or hip:SUBJECT-SIDE, batch:ID, "
    "commit:SHA, score:HIP_VISIT"
)


def resolve(graph: Graph, ref: str) -> list[str]:
    """Ids of the nodes that `ref` names; raises WrongUse saying which forms there are, or that nothing is known."""
    kind, _, name = ref.partition(":")
    if not name:
        raise WrongUse(f"'{ref}' is no reference; it is one of {FORMS}")
    finders = {
        "model": _is_model,
        "study": lambda node, name: node["id"] == f"study:{name}",
        "subject": lambda node, name: node["id"] == f"subject:{name}",
        "batch": lambda node, name: node["id"] == f"batch:{name}",
        "hip": _is_hip,
        "hip_visit": _is_hip,
        "file": lambda node, name: node["kind"] == "file" and name in (node.get("path"), node["id"][5:]),
        "commit": lambda node, name: node["kind"] == "commit" and node["id"][7:].startswith(name),
        "score": lambda node, name: node["kind"] == "score" and name in (node["hip_visit"], node["id"][6:]),
        "published": lambda node, name: node["id"] == f"published:{name}",
        "annotation": lambda node, name: node["kind"] == "annotation" and name in (node["id"][11:], _said(node)),
        "stage_run": lambda node, name: node["kind"] == "stage_run" and name in (node["stage"], node["id"][10:]),
    }
    if kind not in finders:
        raise WrongUse(f"'{kind}:' is no kind of reference; it is one of {FORMS}")
    found = [node["id"] for node in graph["nodes"] if finders[kind](node, name)]
    if not found and kind == "file":
        # A file inside a folder that DVC tracks as a whole stands for that folder.
        above = [n for n in graph["nodes"] if n["kind"] == "file" and name.startswith(f"{n.get('path')}/")]
        found = [node["id"] for node in above]
    if not found:
        raise WrongUse(f"nothing is known of {ref}; osteoflow status shows what there is")
    return found


def backward(graph: Graph, ref: str) -> Graph:
    """What `ref` was made of."""
    return _cut(graph, ref, _reach(graph, resolve(graph, ref), "to", "from"))


def forward(graph: Graph, ref: str) -> Graph:
    """Where `ref` went."""
    return _cut(graph, ref, _reach(graph, resolve(graph, ref), "from", "to"))


def trace(graph: Graph, ref: str) -> Graph:
    """Both ways: what `ref` was made of and where it went."""
    start = resolve(graph, ref)
    return _cut(graph, ref, _reach(graph, start, "to", "from") | _reach(graph, start, "from", "to"))


def _reach(graph: Graph, start: list[str], here: str, there: str) -> set[str]:
    """Nodes that can be reached from `start` within one history.

    The same file content may be written again by a later run, so a way through the graph carries the commits that it
    can belong to: a stage run or model of another commit is not on it, though it read or wrote the very same bytes.
    """
    neighbours: dict[str, list[str]] = defaultdict(list)
    for edge in graph["edges"]:
        neighbours[edge[here]].append(edge[there])
    commits = _commits(graph)
    first: list[tuple[str, frozenset[str] | None]] = [(key, commits.get(key)) for key in start]
    seen, waiting = set(first), list(first)
    while waiting:
        key, histories = waiting.pop()
        for one in neighbours[key]:
            own = commits.get(one)
            both = histories if own is None else own if histories is None else own & histories
            if both is not None and not both:
                continue
            if (one, both) not in seen:
                seen.add((one, both))
                waiting.append((one, both))
    return {key for key, _ in seen}


def _commits(graph: Graph) -> dict[str, frozenset[str]]:
    """Of each commit, stage run and model: the commits that it belongs to ('' for what is not committed)."""
    kinds = {node["id"]: node["kind"] for node in graph["nodes"]}
    found: dict[str, set[str]] = {key: set() for key, kind in kinds.items() if kind in ("commit", "stage_run", "model")}
    for key, kind in kinds.items():
        if kind == "commit":
            found[key].add(key)
    for edge in graph["edges"]:
        if kinds.get(edge["from"]) == "commit" and edge["to"] in found:
            found[edge["to"]].add(edge["from"])
    return {key: frozenset(commits or {""}) for key, commits in found.items()}


def _cut(graph: Graph, ref: str, kept: set[str]) -> Graph:
    nodes = [node for node in graph["nodes"] if node["id"] in kept]
    edges = [edge for edge in graph["edges"] if edge["from"] in kept and edge["to"] in kept]
    return {"ref": ref, "nodes": nodes, "edges": edges}


def _is_model(node: Node, name: str) -> bool:
    if node["kind"] != "model":
        return False
    if "@" in name:
        wanted, alias = name.rsplit("@", 1)
        return node["name"] == wanted and alias in node["aliases"]
    return node["id"] == f"model:{name}" or (name == node["name"])


def _said(node: Node) -> str:
    """An annotation without its version."""
    return str(node["id"][11:].split("@")[0])


def _is_hip(node: Node, name: str) -> Any:
    return node["kind"] == "hip_visit" and name in (node["id"][10:], f"{node.get('subject')}-{node.get('side')}")
