"""Lineage from plain facts: what a model is made of, and where a patient's data went.

Reads  nothing by itself: flows hand it facts (parsed dvc.lock, tables, model records, scores; see `graph.Facts`).
Writes nothing but what `export` is asked to: PROV-JSON, OpenLineage run events, or an RO-Crate 1.1 folder.

A graph is {"ref", "nodes": [{"id", "kind", "digest", ...}], "edges": [{"from", "to", "how"}]}; edges point the way the
data flows. Kinds: subject, study, batch, annotation, hip_visit, file, stage_run, commit, model, score, published.
Everything in it is a pseudonym or a digest.
"""

from tasks.trace.export import export
from tasks.trace.graph import graph
from tasks.trace.taint import left_training, trained_on
from tasks.trace.taint import reason as taint_reason
from tasks.trace.text import text
from tasks.trace.verify import verify_digests
from tasks.trace.walk import backward, forward, resolve, trace

__all__ = [
    "backward", "export", "forward", "graph", "left_training", "resolve", "taint_reason", "text", "trace", "trained_on",
    "verify_digests",
]  # fmt: skip
