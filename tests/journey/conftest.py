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
    warm: subprocess.Popen[str]

    @property
    def home(self) -> Path:
        return self.workspace / ".osteoflow"

    @property
    def cohort(self) -> Path:
        return self.home / "identified" / "phantom"

    def osteoflow(self, *words: str, code: int = 0) -> str:
        """What the command prints on standard output, run in a fork of a process that has read its imports."""
        out, err = self.home / "scratch" / "journey.out", self.home / "scratch" / "journey.err"
        assert self.warm.stdin and self.warm.stdout
        self.warm.stdin.write(json.dumps({"words": words, "out": str(out), "err": str(err)}) + "\n")
        self.warm.stdin.flush()
        returned = self.warm.stdout.readline().strip()
        printed = out.read_text()
        assert returned == str(code), f"{words}: {returned}\n{printed[-4000:]}\n{err.read_text()[-6000:]}"
        return printed

    def cold(self, *words: str, code: int = 0) -> str:
        """The same as a user's shell runs it."""
        return call([str(BIN / "osteoflow"), "-C", str(self.workspace), *words], ROOT, code)

    def json(self, *words: str, code: int = 0) -> dict:
        return json.loads(self.osteoflow(*words, "--json", code=code))

    def python(self, script: Path) -> str:
        return call([sys.executable, str(script)], self.workspace, 0)

    def dvc(self, *words: str) -> str:
        return call([str(BIN / "dvc"), *words], self.workspace, 0)


def surroundings(**more: str) -> dict[str, str]:
    """The environment of a user who has set nothing."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OSTEOFLOW_", "PREFECT_", "MLFLOW_"))}
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    return clean | {"PATH": path, "COLUMNS": "200", "DVC_NO_ANALYTICS": "1"} | more


def call(words: list[str], folder: Path, code: int, **environment: str) -> str:
    done = subprocess.run(
        words, cwd=folder, capture_output=True, text=True, env=surroundings(**environment), check=False
    )
    assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-6000:]}"
    return done.stdout


@pytest.fixture(scope="session")
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    home = tmp_path_factory.mktemp("life")

    def state() -> str:
        return call(["git", "status", "--porcelain", "--ignored=no"], ROOT, 0)

    before = state()
    command = [str(BIN / "osteoflow"), "demo", "--patients", "6", "--seed", "3"]
    printed = call(command, ROOT, 0, OSTEOFLOW_HOME=str(home / "home"))
    after = state()
    workspace = home / "home" / "demo"
    script = Path(__file__).with_name("warm.py")
    with subprocess.Popen(
        [sys.executable, str(script)], cwd=workspace, env=surroundings(PYTHONPATH=str(ROOT)), text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as warm:  # fmt: skip
        assert warm.stdin and warm.stdout and warm.stdout.readline().strip() == "ready"
        yield Life(workspace, printed, before, after, warm)
        warm.stdin.close()
    shutil.rmtree(home, ignore_errors=True)
