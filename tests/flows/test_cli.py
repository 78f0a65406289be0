"""Exit codes and messages of the command, without a traceback for what is raised on purpose."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent / "osteoflow"
ROOT = Path(__file__).resolve().parents[2]
COMMANDS = [
    "demo",
    "phantom",
    "anonymize",
    "ingest",
    "annotate",
    "retrain",
    "score",
    "serve",
    "status",
    "trace",
    "verify",
    "promote",
    "rollback",
    "erase",
    "reidentify",
    "rotate-key",
    "quarantine",
]


def osteoflow(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(BIN), *words], cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with what commands need to know of a checkout."""
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    return tmp_path


def test_every_command_is_there_and_explains_itself() -> None:
    from typer.main import get_command

    from flows.cli import app

    commands = get_command(app).commands  # type: ignore[attr-defined]
    assert set(COMMANDS) <= set(commands)
    assert all(command.help or command.callback.__doc__ for command in commands.values())


def test_a_named_key_that_is_missing_weak_or_open_to_others_is_refused(checkout: Path) -> None:
    (checkout / "src").mkdir()
    assert osteoflow(checkout, "anonymize", "src", "dst", "--key-file", "none.key").returncode == 3
    weak = checkout / "weak.key"
    weak.write_bytes(b"0" * 32)
    weak.chmod(0o600)
    assert osteoflow(checkout, "anonymize", "src", "dst", "--key-file", "weak.key").returncode == 3
    loose = checkout / "loose.key"
    loose.write_bytes(os.urandom(32))
    loose.chmod(0o644)
    done = osteoflow(checkout, "anonymize", "src", "dst", "--key-file", "loose.key")
    assert done.returncode == 3 and "Traceback" not in done.stderr


def test_anonymize_reports_one_row_for_each_file(checkout: Path) -> None:
    from pydicom.data import get_testdata_file

    source = checkout / "src"
    source.mkdir()
    (source / "a.dcm").write_bytes(Path(str(get_testdata_file("MR_small.dcm"))).read_bytes())
    (source / "b.txt").write_text("no image")
    done = osteoflow(checkout, "anonymize", "src", "dst", "--report", "r.json", "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads((checkout / "r.json").read_text())
    assert [row["outcome"] for row in rows] == ["released", "quarantined"]
    assert set(rows[0]) == {"source", "outcome", "reason", "target", "digest_source", "sha256_target", "pixels"}
    assert (checkout / "dst" / rows[0]["target"]).exists()
    assert "a.dcm" not in json.dumps(rows)


def test_wrong_use_exits_2_and_says_what_to_do(checkout: Path) -> None:
    assert osteoflow(checkout, "-C", "nowhere", "status").returncode == 2
    assert osteoflow(checkout, "ingest", "nowhere").returncode == 2
    assert osteoflow(checkout, "ingest", ".", "--origin", "martian").returncode == 2
    assert osteoflow(checkout, "no-such-command").returncode == 2


def test_status_of_a_new_workspace_is_empty_and_true(checkout: Path) -> None:
    done = osteoflow(checkout, "status", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["studies"] == {"receiving": 0, "complete": 0, "claimed": 0, "done": 0, "quarantined": 0}
    assert found["models"] == {"champion": None, "challenger": None, "previous": None}
    assert found["quarantine"] == {} and found["last_run"] == {} and isinstance(found["waiting_for"], str)
    assert found["text_engine"] is (shutil.which("tesseract") is not None)
