"""Two subjects in every kind of file that a workspace and OSTEOFLOW_HOME hold."""

from pathlib import Path

import pandas as pd
import pytest

from tasks.store import tables
from tasks.store.files import write_bytes, write_json, write_text

GONE, STAYS = "OFGONE", "OFSTAYS"
STUDY = {GONE: "2.25.111", STAYS: "2.25.1112"}  # one is the other's beginning


@pytest.fixture
def frames():
    subjects = [GONE, STAYS]
    studies = pd.DataFrame(
        {
            "subject": subjects,
            "study": [STUDY[s] for s in subjects],
            "batch": "000001",
            "archive": [f"000001/{STUDY[s]}-v1.zip" for s in subjects],
        }
    )
    hips = pd.DataFrame(
        {
            "hip_visit": [f"{STUDY[s]}-L" for s in subjects],
            "subject": subjects,
            "study": [STUDY[s] for s in subjects],
            "side": "L",
            "file": [f"000001/{STUDY[s]}-L.safetensors" for s in subjects],
        }
    )
    series = pd.DataFrame({"study": [STUDY[s] for s in subjects], "series": ["2.25.900", "2.25.901"]})
    sequences = pd.DataFrame({"hip_visit": hips["hip_visit"], "subject": subjects, "fold": ["0", "test"]})
    split = pd.DataFrame({"subject": subjects, "fold": ["0", "test"]})
    return {"studies": studies, "hips": hips, "series": series, "sequences": sequences, "split": split}


@pytest.fixture
def workspace(tmp_path, monkeypatch, frames):
    monkeypatch.chdir(tmp_path)
    home = Path(".osteoflow")
    for name, frame in frames.items():
        tables.write(name, Path(f"data/{name}.parquet"), frame)
    imported = pd.DataFrame(
        {"subject": [GONE, STAYS], "study": list(STUDY.values()), "file": ["masks/a.st", "masks/b.st"]}
    )
    Path("data/imports/0001-abc").mkdir(parents=True)
    imported.to_parquet("data/imports/0001-abc/masks.parquet")
    write_json(Path("data/imports/0001-abc/import.json"), {"counts": {"masks": 2}})
    for name in ("a", "b"):
        write_bytes(Path(f"data/imports/0001-abc/masks/{name}.st"), name.encode())
    for study in STUDY.values():
        write_bytes(Path(f"data/studies/000001/{study}-v1.zip"), study.encode())
        write_bytes(Path(f"data/hips/000001/{study}-L.safetensors"), study.encode())
        write_json(home / "scores" / f"{study}.json", {"study": study})
        write_json(home / "arrived/standardize" / study / "rows.json", {"rows": []})
        write_bytes(home / "arrived/standardize" / study / "files/x.safetensors", b"x")
    write_json(home / "arrived/anonymize/rowkey7/rows.json", {"rows": [{"study": STUDY[GONE]}]})
    write_bytes(home / "arrived/anonymize/rowkey7/files/y.zip", b"y")
    write_text(home / "logs/run.log", f"scored {STUDY[GONE]}-L\nscored {STUDY[STAYS]}-L\n")
    write_text(Path("reports/report.html"), f"<p>{GONE}</p>")
    write_text(Path("reports/effect.csv"), "treatment,n\nnone,2\n")
    write_bytes(home / "identified/ledger.sqlite", GONE.encode())
    write_json(Path("models/package/package.json"), {"name": "m"})
    return home


@pytest.fixture
def facts(frames):
    other = {name: frame[frame["subject"] == STAYS] for name, frame in frames.items() if "subject" in frame}
    return {
        "snapshots": [
            {"commit": "a", "tables": frames},
            {"commit": "b", "tables": other},
            {"commit": "c", "tables": {}},
        ],
        "models": [
            {"name": "m", "version": 1, "commit": "a"},
            {"name": "m", "version": 2, "commit": "b"},
            {"name": "m", "version": 3, "commit": "c"},
        ],
    }
