"""dvc.yaml → the order of stages. No stage name is written here."""

from __future__ import annotations

from dataclasses import dataclass

import networkx as nx
from dvc.repo import Repo


@dataclass(frozen=True)
class StageNode:
    name: str
    room: str
    desc: str
    queue: str
    retries: int
    each: str = ""
    """The list in the stage's section of what `cmd --only ITEM` does one of (flows/parts.py)."""


def ordered(repo: Repo | None = None) -> list[StageNode]:
    """Every pipeline stage of dvc.yaml, dependencies first, ties in the order of the file."""
    graph = (repo or Repo(".")).index.graph
    stages = [stage for stage in graph if stage.cmd]
    written = {stage: position for position, stage in enumerate(sorted(stages, key=_line))}
    # DVC's edges run from a stage to what it depends on.
    turned = graph.subgraph(stages).reverse()
    order = nx.lexicographical_topological_sort(turned, key=lambda stage: written[stage])
    return [
        StageNode(
            name=stage.addressing,
            room=stage.addressing.split("@")[0],
            desc=stage.desc or "",
            queue=(stage.meta or {}).get("queue", "cpu"),
            retries=(stage.meta or {}).get("retries", 0),
            each=(stage.meta or {}).get("each", ""),
        )
        for stage in order
    ]


def _line(stage: object) -> int:
    """Where the stage stands in dvc.yaml (a mapping keeps the order of the file)."""
    names = list(stage.dvcfile.resolver.resolve()["stages"])  # type: ignore[attr-defined]
    return names.index(stage.addressing)  # type: ignore[attr-defined]
