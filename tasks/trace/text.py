"""A graph for a terminal: what it is made of above, where it went below; many alike are counted, not listed."""

from __future__ import annotations

from collections import Counter, defaultdict

from rich.tree import Tree

from tasks.trace.graph import Graph, Node
from tasks.trace.walk import backward, forward, resolve

KINDS = (
    "subject", "batch", "study", "hip_visit", "annotation", "file", "commit", "stage_run", "model", "score",
    "published",
)  # fmt: skip
PLURAL = {"study": "studies", "batch": "batches", "hip_visit": "hip-visits", "stage_run": "stage runs"}
SHOWN = 6
"""Of one kind, this many are listed by name; of more, the first few and how many more there are."""


def text(graph: Graph, ref: str) -> Tree:
    """A rich tree of `ref` in `graph` (the whole graph, or what `trace` cut out of it)."""
    start = resolve(graph, ref)
    nodes = {node["id"]: node for node in graph["nodes"]}
    tree = Tree(f"[bold]{ref}[/]")
    for key in start[:SHOWN]:
        tree.add(_line(nodes[key]))
    for title, part in (("made of", backward(graph, ref)), ("went into", forward(graph, ref))):
        others = [node for node in part["nodes"] if node["id"] not in start]
        if others:
            _branch(tree.add(f"[bold]{title}[/]"), others)
    return tree


def _branch(branch: Tree, nodes: list[Node]) -> None:
    by_kind: dict[str, list[Node]] = defaultdict(list)
    for node in nodes:
        by_kind[node["kind"]].append(node)
    counted = Counter(node["kind"] for node in nodes)
    for kind in KINDS:
        if not counted[kind]:
            continue
        plural = PLURAL.get(kind, f"{kind}s" if kind != "published" else "published")
        twig = branch.add(f"{counted[kind]} {plural if counted[kind] > 1 else kind.replace('_', ' ')}")
        wanted = by_kind[kind]
        limit = len(wanted) if kind in ("stage_run", "model", "commit", "published") else SHOWN
        for node in wanted[:limit]:
            twig.add(_line(node))
        if len(wanted) > limit:
            twig.add(f"[dim]and {len(wanted) - limit} more (--json lists all)[/]")


def _line(node: Node) -> str:
    digest = f" [dim]{str(node['digest'])[:12]}[/]" if node.get("digest") else ""
    name = node.get("path") if node["kind"] == "file" else node.get("stage") or node["id"].split(":", 1)[1]
    facts = [f"{key} {node[key]}" for key in ("fold", "status", "origin", "tainted", "corrected") if node.get(key)]
    facts += ["+".join(node["aliases"])] if node.get("aliases") else []
    return f"{name}{digest}{'  ' + ', '.join(facts) if facts else ''}"
