"""What the pages show, read from the workspace; a missing file is an empty part of the page, never an error."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import yaml

from tasks.store.digests import sha256_bytes, sha256_file
from tasks.store.files import read_json

Row = dict[str, Any]
Facts = Mapping[str, Any]
"""From the flow; every key may be missing.

root       the workspace, default the current folder
models     [{"name", "version", "aliases", "digest", "evaluate": {..}, "tags": {..}}], oldest first
decision   {"version", "decision", "reason", "numbers": {..}} of the gate: the report is about that version
history    [{"action", "version", "reason", "by", "at"}] of the champion's place
lineage    {"commit", "run", "package", "environment", "inputs": {path: digest}}
arrivals   {"studies": {state: n}, "quarantine": {reason: n}}
scores     [{"hip_visit", "risk", "risk_low", "risk_high", "abstain", "version"}]
counts     {kind: n} of the model's lineage graph (default: counted from the tables)
seconds    {stage: seconds} of the run (default: not shown)
"""
FIGURES = {
    "roc": "Receiver operating characteristic of the model and its baselines",
    "calibration": "Estimated risk against observed share",
    "decision": "Decision curve",
    "risk": "Estimated risk by outcome",
}
STATUS = {"released": "released", "superseded": "superseded by a later version", "frozen": "original purged"}


def read_report(facts: Facts) -> Row:
    """All that the report's template needs."""
    root = Path(facts.get("root", "."))
    evaluate = _json(root / "reports/evaluate.json")
    folder = root / "reports/evaluate"
    lineage = dict(facts.get("lineage") or {})
    models = [_model(one) for one in facts.get("models") or []]
    decision = dict(facts.get("decision") or {})
    model = next((one for one in models if str(one["version"]) == str(decision.get("version"))), None)
    model = model or (models[-1] if models else {})
    arrivals = facts.get("arrivals") or {}
    return {
        "model": model,
        "origin": model.get("origin") or evaluate.get("origin") or "unknown",
        "evaluate": evaluate,
        "decision": decision,
        "history": list(facts.get("history") or []),
        "lineage": lineage,
        "inputs": sorted((lineage.get("inputs") or {}).items()),
        "batches": _batches(root),
        "stages": _stages(root, facts.get("seconds") or {}),
        "models": models,
        "arrivals": arrivals.get("studies") or {},
        "quarantine": arrivals.get("quarantine") or {},
        "counts": facts.get("counts") or _counts(root),
        "cohort": _csv(folder / "cohort.csv"),
        "flow": _text(folder / "flow.svg"),
        "survival": evaluate.get("survival") or [],
        "vendors": _csv(folder / "vendors.csv"),
        "required": evaluate.get("required") or [],
        "privacy": evaluate.get("privacy") or {},
        "populations": evaluate.get("populations") or {},
        "checklists": {
            title: rows
            for title, file in (("TRIPOD+AI", "tripod_ai"), ("CLAIM 2024", "claim_2024"))
            if (rows := _csv(root / f"models/package/{file}.csv"))
        },
        "subgroups": _csv(folder / "subgroups.csv"),
        "units": evaluate.get("units") or [],
        "baselines": [{"name": name, **row} for name, row in (evaluate.get("baselines") or {}).items()],
        "figures": [(name, text, svg) for name, text in FIGURES.items() if (svg := _text(folder / f"{name}.svg"))],
        "compare": _compare(root),
        "effect": _csv(root / "reports/effect.csv"),
        "effect_tables": {name: _csv(root / f"reports/effect/{name}.csv") for name in ("paper", "landmark", "models")},
        "effect_figures": [
            svg for name in ("effect", "overlap") if (svg := _text(root / f"reports/effect/{name}.svg"))
        ],
    }


def _compare(root: Path) -> list[Row]:
    """The table of networks, and how many slices a second each reads on the machine that trained it: this differs from
    day to day, so that it is in no table that DVC keeps."""
    speed = _json(root / "reports/speed/compare.json")
    rows = _csv(root / "reports/compare.csv")
    return [row | {"images_per_s": speed.get(row["network"], {}).get("images_per_s")} for row in rows]


def _model(one: Mapping[str, Any]) -> Row:
    """A registered version as one flat row: its scores, the gate's word on it, where it came from."""
    tags, evaluate = one.get("tags") or {}, one.get("evaluate") or {}
    return {
        **{key: value for key, value in evaluate.items() if not isinstance(value, (dict, list))},
        "name": one.get("name"),
        "version": one.get("version"),
        "aliases": list(one.get("aliases") or []),
        "package_digest": one.get("digest") or one.get("package_digest"),
        "commit": tags.get("lineage"),
        "origin": tags.get("origin") or evaluate.get("origin"),
        "decision": tags.get("gate"),
        "reason": tags.get("gate_reason"),
    }


def _batches(root: Path) -> list[Row]:
    """Each manifest with its rows and digest; a manifest holds commitments only."""
    paths = sorted((root / "data/batches").glob("*.parquet"))
    return [{"batch": p.stem, "n": pq.read_metadata(p).num_rows, "digest": sha256_file(p)} for p in paths]


def _stages(root: Path, seconds: Mapping[str, float]) -> list[Row]:
    """Stages of dvc.yaml in its order, with what dvc.lock recorded of the last run of each."""
    described, locked = (_yaml(root / name).get("stages", {}) for name in ("dvc.yaml", "dvc.lock"))
    rows = []
    for name, stage in described.items():
        lock = locked.get(name)
        if lock is not None:
            digest = sha256_bytes(yaml.safe_dump(lock, sort_keys=True).encode())
            rows.append({"name": name, "desc": stage.get("desc", ""), "digest": digest, "seconds": seconds.get(name)})
    return rows


def _counts(root: Path) -> dict[str, int]:
    split, studies, hips, batches = table(root, "split"), table(root, "studies"), table(root, "hips"), _batches(root)
    found = {"subject": len(split), "study": len(studies), "batch": len(batches), "hip_visit": len(hips)}
    return {kind: n for kind, n in found.items() if n}


def _yaml(path: Path) -> Row:
    return (yaml.safe_load(path.read_text(encoding="utf-8")) or {}) if path.exists() else {}


def read_site(facts: Facts) -> Row:
    """What the audit site's pages need beyond the report."""
    root = Path(facts.get("root", "."))
    studies = table(root, "studies")
    hips = table(root, "hips")
    return {
        "studies": studies.drop(columns=["date"], errors="ignore").to_dict("records") if len(studies) else [],
        "hips": hips.groupby("study").size().to_dict() if len(hips) else {},
        "not_measurable": hips.loc[hips["status"] != "ok", ["hip_visit", "status", "reason"]].to_dict("records")
        if len(hips)
        else [],
        "scores": list(facts.get("scores") or []),
        "status_words": STATUS,
    }


def table(root: Path, name: str) -> pd.DataFrame:
    """data/<name>.parquet, or an empty frame."""
    path = root / "data" / f"{name}.parquet"
    return pq.read_table(path).to_pandas() if path.exists() else pd.DataFrame()


def _json(path: Path) -> Row:
    return read_json(path) if path.exists() else {}


def _csv(path: Path) -> list[Row]:
    if not path.exists() or not path.read_text(encoding="utf-8").strip():
        return []  # a table without rows has no columns either
    frame = pd.read_csv(path)
    return [{str(k): None if pd.isna(v) else v for k, v in row.items()} for row in frame.to_dict("records")]


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""
