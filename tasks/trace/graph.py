"""Facts to graph: one node a thing, one edge a step of the data."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from tasks.store.digests import combine
from tasks.trace import taint

Node = dict[str, Any]
Graph = dict[str, Any]
Facts = Mapping[str, Any]
"""What flows hand in; every key may be missing.

snapshots  oldest first, the last is now: {"commit": sha or "", "time": ISO or "", "lock": parsed dvc.lock,
           "tables": {"studies" | "hips" | "annotations" | "sequences" | "split": DataFrame}}
batches    {"batch", "digest", "n"}: manifests, opaque
models     {"name", "version", "aliases": [..], "package_digest", "commit", "inputs": {path: digest}, "run", "origin"}
scores     {"hip_visit", "model": version, "digest", "path"}: one a scored hip-visit
published  {"path", "digest", "model": version or null, "hip_visits": [..]}: reports and files that left the house
"""


class _Builder:
    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.edges: dict[tuple[str, str], str] = {}

    def node(self, key: str, kind: str, digest: str | None = None, **facts: Any) -> str:
        kept = self.nodes.setdefault(key, {"id": key, "kind": kind, "digest": None})
        if digest:
            kept["digest"] = digest
        kept.update({name: value for name, value in facts.items() if not _null(value)})
        return key

    def edge(self, start: str, end: str, how: str) -> None:
        self.edges.setdefault((start, end), how)

    def done(self) -> Graph:
        nodes = [self.nodes[key] for key in sorted(self.nodes)]
        edges = [{"from": a, "to": b, "how": how} for (a, b), how in sorted(self.edges.items())]
        return {"ref": "", "nodes": nodes, "edges": edges}


def graph(facts: Facts) -> Graph:
    """The whole graph of `facts`; `backward`, `forward` and `trace` cut it to one reference."""
    build = _Builder()
    for batch in facts.get("batches", []):
        build.node(f"batch:{batch['batch']}", "batch", batch.get("digest"), n=batch.get("n"))
    for snapshot in facts.get("snapshots", []):
        _snapshot(build, snapshot)
    _corrected(build, facts.get("snapshots", []))
    tables = {snapshot.get("commit") or "": snapshot.get("tables") or {} for snapshot in facts.get("snapshots", [])}
    for model in facts.get("models", []):
        _model(build, model)
        then = tables.get(model.get("commit") or "", {})
        build.node(f"model:{model['name']}/{model['version']}", "model", **taint.facts_of(then, _latest(facts)))
    for score in facts.get("scores", []):
        _score(build, score)
    for one in facts.get("published", []):
        _published(build, one)
    return build.done()


def file_id(path: str, digest: str | None) -> str:
    """A file is its path and content: the same path with other content is another node."""
    return f"file:{path}@{digest[:12]}" if digest else f"file:{path}"


# ---- one state of the workspace -------------------------------------------------------------------------------------


def _snapshot(build: _Builder, snapshot: Mapping[str, Any]) -> None:
    commit = snapshot.get("commit") or ""
    if commit:
        build.node(f"commit:{commit}", "commit", commit, time=snapshot.get("time"))
    current = _lock(build, snapshot.get("lock") or {}, commit)
    tables = snapshot.get("tables") or {}
    _studies(build, tables.get("studies"), current)
    _hips(build, tables.get("hips"), current)
    _annotations(build, tables.get("annotations"), current)
    _rows(build, tables.get("sequences"), tables.get("split"), current)
    for batch in sorted({str(row["batch"]) for row in _records(tables.get("studies")) if not _null(row.get("batch"))}):
        if "data/batches" in current:
            build.edge(f"batch:{batch}", current["data/batches"], "manifest in")


def _lock(build: _Builder, lock: Mapping[str, Any], commit: str) -> dict[str, str]:
    """Stages and files of a dvc.lock; returns path -> node id of what this snapshot holds."""
    current: dict[str, str] = {}
    for name, stage in sorted((lock.get("stages") or {}).items()):
        used = [(entry["path"], _digest(entry)) for entry in stage.get("deps") or []]
        made = [(entry["path"], _digest(entry)) for entry in stage.get("outs") or []]
        params = json.dumps(stage.get("params") or {}, sort_keys=True)
        run = combine(name, str(stage.get("cmd", "")), params, *(f"{path} {digest}" for path, digest in used))
        key = build.node(
            f"stage_run:{name}@{run[:12]}", "stage_run", run, stage=name, cmd=stage.get("cmd"), params=combine(params)
        )
        if commit:
            build.edge(f"commit:{commit}", key, "code and parameters of")
        for entries, inward in ((used, True), (made, False)):
            for path, digest in entries:
                current[path] = build.node(file_id(path, digest), "file", digest, path=path)
                if inward:
                    build.edge(current[path], key, "read by")
                else:
                    build.edge(key, current[path], "wrote")
    return current


def _digest(entry: Mapping[str, Any]) -> str | None:
    return entry.get("md5") or entry.get("etag") or entry.get("checksum")


def _studies(build: _Builder, studies: pd.DataFrame | None, current: Mapping[str, str]) -> None:
    for row in _records(studies):
        key = build.node(
            f"study:{row['study']}", "study", row.get("digest"), version=row.get("version"), status=row.get("status"),
            archive=row.get("archive"), origin=row.get("origin"), days=row.get("days"),
        )  # fmt: skip
        build.edge(build.node(f"subject:{row['subject']}", "subject"), key, "patient of")
        if not _null(row.get("batch")):
            build.edge(build.node(f"batch:{row['batch']}", "batch"), key, "claimed")
        if not _null(row.get("archive")):
            path = _below("data/studies", row["archive"])
            archive = build.node(file_id(path, None), "file", path=path)
            build.edge(key, archive, "archived as")
            if "data/studies" in current:
                build.edge(archive, current["data/studies"], "file in")
        if "data/studies.parquet" in current:
            build.edge(key, current["data/studies.parquet"], "row of")


def _hips(build: _Builder, hips: pd.DataFrame | None, current: Mapping[str, str]) -> None:
    for row in _records(hips):
        key = build.node(
            f"hip_visit:{row['hip_visit']}", "hip_visit", row.get("digest"), subject=row.get("subject"),
            side=row.get("side"), days=row.get("days"), status=row.get("status"), reason=row.get("reason"),
            roles=row.get("roles"), origin=row.get("origin"),
        )  # fmt: skip
        build.edge(build.node(f"study:{row['study']}", "study"), key, "standardized to")
        if not _null(row.get("file")):
            path = _below("data/hips", row["file"])
            volume = build.node(file_id(path, None), "file", path=path)
            build.edge(key, volume, "volumes in")
            if "data/hips" in current:
                build.edge(volume, current["data/hips"], "file in")
        if "data/hips.parquet" in current:
            build.edge(key, current["data/hips.parquet"], "row of")


def _annotations(build: _Builder, annotations: pd.DataFrame | None, current: Mapping[str, str]) -> None:
    """One node a hip-visit (else hip), reader and version of what that reader said: a correction is another node."""
    if annotations is None or not len(annotations):
        return
    said = taint.readings(annotations)
    for (where, reader), rows in annotations.groupby([taint.places(annotations), annotations["reader"].fillna("none")]):
        digest = said[str(where), str(reader)]
        key = build.node(
            f"annotation:{where}/{reader}@{digest[:12]}", "annotation", digest, n=len(rows),
            names="+".join(sorted(set(rows["name"].dropna().astype(str)))),
        )  # fmt: skip
        visit = f"hip_visit:{where}"
        start = visit if visit in build.nodes else build.node(f"subject:{rows['subject'].iloc[0]}", "subject")
        build.edge(start, key, "annotated by")
        if "data/annotations.parquet" in current:
            build.edge(key, current["data/annotations.parquet"], "rows of")


def _corrected(build: _Builder, snapshots: Any) -> None:
    """Say of what readers no longer say so: it was corrected, or taken back, since."""
    today = taint.readings(_latest({"snapshots": snapshots}).get("annotations"))
    said = {f"annotation:{where}/{reader}": digest for (where, reader), digest in today.items()}
    for node in build.nodes.values():
        if node["kind"] == "annotation" and said and said.get(node["id"].split("@")[0]) != node["digest"]:
            node["status"] = "corrected since" if node["id"].split("@")[0] in said else "taken back since"


def _latest(facts: Facts) -> Mapping[str, Any]:
    """The tables as they are now."""
    snapshots = facts.get("snapshots") or [{}]
    return snapshots[-1].get("tables") or {}


def _rows(
    build: _Builder, sequences: pd.DataFrame | None, split: pd.DataFrame | None, current: Mapping[str, str]
) -> None:
    for row in _records(sequences):
        key = build.node(f"hip_visit:{row['hip_visit']}", "hip_visit", fold=row.get("fold"))
        if "data/sequences.parquet" in current:
            build.edge(key, current["data/sequences.parquet"], f"row of, fold {row.get('fold')}")
    for row in _records(split):
        key = build.node(f"subject:{row['subject']}", "subject", fold=row.get("fold"))
        if "data/split.parquet" in current:
            build.edge(key, current["data/split.parquet"], f"row of, fold {row.get('fold')}")


# ---- models and what they said --------------------------------------------------------------------------------------


def _model(build: _Builder, model: Mapping[str, Any]) -> None:
    key = build.node(
        f"model:{model['name']}/{model['version']}", "model", model.get("package_digest"), name=model["name"],
        version=int(model["version"]), aliases=list(model.get("aliases") or []), run=model.get("run"),
        origin=model.get("origin"), commit=model.get("commit"), tainted=model.get("tainted"),
    )  # fmt: skip
    commit = model.get("commit")
    if commit:
        build.edge(build.node(f"commit:{commit}", "commit", commit), key, "recorded at")
    for path, digest in sorted((model.get("inputs") or {}).items()):
        build.edge(build.node(file_id(path, digest), "file", digest, path=path), key, "input of")
    # The package itself, as the register stage of the model's own commit wrote it.
    runs = {e_to for (e_from, e_to) in build.edges if e_from == f"commit:{commit}"} if commit else set()
    for start, end in list(build.edges):
        if start in runs and build.nodes[end].get("path") == "models/package":
            build.edge(end, key, "registered as")


def _score(build: _Builder, score: Mapping[str, Any]) -> None:
    model = _version(build, score.get("model"))
    key = build.node(
        f"score:{score['hip_visit']}@{score.get('model')}", "score", score.get("digest"), path=score.get("path"),
        hip_visit=score["hip_visit"], origin=score.get("origin"),
    )  # fmt: skip
    build.edge(build.node(f"hip_visit:{score['hip_visit']}", "hip_visit"), key, "scored")
    if model:
        build.edge(model, key, "gave")


def _published(build: _Builder, one: Mapping[str, Any]) -> None:
    key = build.node(f"published:{one['path']}", "published", one.get("digest"), path=one["path"])
    model = _version(build, one.get("model"))
    if model:
        build.edge(model, key, "published in")
    visits = set(one.get("hip_visits") or [])
    for node in list(build.nodes.values()):
        if node["kind"] == "score" and node["hip_visit"] in visits and node["id"].endswith(f"@{one.get('model')}"):
            build.edge(node["id"], key, "published in")
        elif node["kind"] == "hip_visit" and node["id"].removeprefix("hip_visit:") in visits:
            build.edge(node["id"], key, "shown in")


def _version(build: _Builder, version: Any) -> str | None:
    if _null(version):
        return None
    wanted = str(version).rsplit("/", 1)[-1]
    return next((k for k, n in build.nodes.items() if n["kind"] == "model" and str(n["version"]) == wanted), None)


# ---- inside ---------------------------------------------------------------------------------------------------------


def _records(table: pd.DataFrame | None) -> Iterable[dict[str, Any]]:
    if table is None:
        return []
    kept = [column for column in table if column != "features"]
    return ({str(k): v for k, v in row.items()} for row in table[kept].to_dict("records"))


def _below(folder: str, path: str) -> str:
    return path if path.startswith("data/") else f"{folder}/{path}"


def _null(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value) or value is pd.NA
