"""Facts of two patients, two snapshots and one model, as flows hand them in."""

import pandas as pd
import pytest

from tasks.trace import graph


def entry(path: str, md5: str) -> dict:
    return {"path": path, "hash": "md5", "md5": md5}


def lock(s: str, package: str) -> dict:
    """A dvc.lock of four stages; `s` stands in every digest of data."""
    hips, notes = entry("data/hips.parquet", f"h{s}"), entry("data/annotations.parquet", f"n{s}")
    studies, sequences = entry("data/studies.parquet", s), entry("data/sequences.parquet", f"s{s}")
    stages = {
        "anonymize": {
            "deps": [entry("data/batches", f"b{s}.dir"), entry("tasks/anonymize", "c")],
            "params": {"params.yaml": {"anonymize": {"shift": 1}}},
            "outs": [entry("data/studies", f"{s}.dir"), studies],
        },
        "standardize": {"deps": [studies], "outs": [hips]},
        "assemble": {"deps": [hips, notes], "outs": [sequences]},
        "register": {"deps": [sequences], "outs": [entry("models/package", package)]},
    }
    return {"schema": "2.0", "stages": {k: v | {"cmd": f"python -m tasks.{k}"} for k, v in stages.items()}}


def table(subjects: list[str]) -> dict[str, pd.DataFrame]:
    studies = pd.DataFrame(
        {
            "subject": subjects,
            "study": [f"2.25.{s}" for s in subjects],
            "batch": ["000001"] * len(subjects),
            "archive": [f"data/studies/000001/2.25.{s}-v1.zip" for s in subjects],
            "version": 1.0,
            "status": "released",
            "digest": [f"d{s}" for s in subjects],
        }
    )
    hips = pd.DataFrame(
        {
            "hip_visit": [f"2.25.{s}-L" for s in subjects],
            "subject": subjects,
            "study": [f"2.25.{s}" for s in subjects],
            "side": "L",
            "days": 0.0,
            "file": [f"000001/2.25.{s}-L.safetensors" for s in subjects],
            "status": "ok",
        }
    )
    notes = [(f"2.25.{s}-L", s, reader, "label", "arco", "2") for s in subjects for reader in ("r1", "consensus")]
    notes.append((None, subjects[0], "r1", "outcome", "collapse", "collapse"))
    annotations = pd.DataFrame(notes, columns=["hip_visit", "subject", "reader", "kind", "name", "value"])
    sequences = pd.DataFrame({"hip_visit": hips["hip_visit"], "fold": "0", "features": [[1.0]] * len(subjects)})
    return {"studies": studies, "hips": hips, "annotations": annotations.assign(side="L"), "sequences": sequences}


@pytest.fixture
def facts():
    old = {"commit": "a" * 40, "time": "2026-01-01T00:00:00Z", "lock": lock("s1", "p1"), "tables": table(["OFA"])}
    new = {
        "commit": "b" * 40,
        "time": "2026-01-02T00:00:00Z",
        "lock": lock("s2", "p2"),
        "tables": table(["OFA", "OFB"]),
    }
    model = {"name": "onfh-progression", "origin": "phantom"}
    first = {"version": 1, "aliases": ["champion"], "package_digest": "x1", "commit": "a" * 40, "run": "r1"}
    second = {"version": 2, "aliases": [], "package_digest": "x2", "commit": "b" * 40, "run": "r2"}
    return {
        "snapshots": [old, new],
        "batches": [{"batch": "000001", "digest": "b1", "n": 2}],
        "models": [model | first | {"inputs": {"data/sequences.parquet": "ss1"}}, model | second | {"inputs": {}}],
        "scores": [{"hip_visit": "2.25.OFB-L", "model": 1, "digest": "q", "path": "scores/2.25.OFB.json"}],
        "published": [{"path": "reports/report.html", "digest": "z", "model": 1, "hip_visits": ["2.25.OFB-L"]}],
    }


@pytest.fixture
def whole(facts):
    return graph(facts)
