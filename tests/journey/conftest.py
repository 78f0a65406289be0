"""One small demo, run once as a user would, for all the tests of its life."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Life:
    """A finished demo: its workspace, what it printed, and how to go on in it."""

    workspace: Path
    printed: str
    checkout_before: str
    checkout_after: str

    @property
    def home(self) -> Path:
        return self.workspace / ".osteoflow"

    @property
    def cohort(self) -> Path:
        return self.home / "identified" / "phantom"

    def osteoflow(self, *words: str, code: int = 0) -> str:
        return call([str(BIN / "osteoflow"), "-C", str(self.workspace), *words], ROOT, code)

    def json(self, *words: str, code: int = 0) -> dict:
        return json.loads(self.osteoflow(*words, "--json", code=code))

    def python(self, script: Path) -> str:
        return call([sys.executable, str(script)], self.workspace, 0)

    def dvc(self, *words: str) -> str:
        return call([str(BIN / "dvc"), *words], self.workspace, 0)


def call(words: list[str], folder: Path, code: int, **environment: str) -> str:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OSTEOFLOW_", "PREFECT_", "MLFLOW_"))}
    clean |= {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "200",
        "DVC_NO_ANALYTICS": "1",
        **environment,
    }
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, env=clean, check=False)
    assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-6000:]}"
    return done.stdout


@pytest.fixture(scope="session")
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    home = tmp_path_factory.mktemp("life")

    def state() -> str:
        return call(["git", "status", "--porcelain", "--ignored=no"], ROOT, 0)

    before = state()
    command = [str(BIN / "osteoflow"), "demo", "--patients", "8", "--seed", "3"]
    printed = call(command, ROOT, 0, OSTEOFLOW_HOME=str(home / "home"))
    yield Life(home / "home" / "demo", printed, before, state())
    shutil.rmtree(home, ignore_errors=True)
