"""A small workspace of its own: a Git and DVC repository with two real stages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from dvc.repo import Repo

DVC_YAML = """
stages:
  double:
    cmd: python -m tasks.toy_double
    deps: [data/batches]
    params: [double]
    outs:
      - data/doubled: {persist: true}
  total:
    cmd: python -m tasks.toy_total
    deps: [data/doubled]
    params: [total]
    outs: [data/total.txt]
"""

DOUBLE = """
import pathlib, sys, yaml
def main(argv=None, params=None, mapper=None):
    params = params or yaml.safe_load(open("params.yaml"))
    out = pathlib.Path("data/doubled"); out.mkdir(parents=True, exist_ok=True)
    for path in sorted(pathlib.Path("data/batches").iterdir()):
        (out / path.name).write_text(str(int(path.read_text()) * params["double"]["factor"]))
    hook = pathlib.Path("data/hook.py")
    if hook.exists():
        exec(hook.read_text())
if __name__ == "__main__":
    main()
"""
TOTAL = """
import pathlib, yaml
def main(argv=None, params=None, mapper=None):
    params = params or yaml.safe_load(open("params.yaml"))
    numbers = [int(p.read_text()) for p in pathlib.Path("data/doubled").iterdir()]
    pathlib.Path("data/total.txt").write_text(str(sum(numbers) + params["total"]["offset"]))
if __name__ == "__main__":
    main()
"""


def make_workspace(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "tasks").mkdir()
    for name, text in {"toy_double": DOUBLE, "toy_total": TOTAL}.items():
        (folder / "tasks" / name).mkdir()
        (folder / "tasks" / name / "__init__.py").write_text("")
        (folder / "tasks" / name / "__main__.py").write_text(text)
    (folder / "data" / "batches").mkdir(parents=True)
    (folder / "data" / "batches" / "1").write_text("1")
    (folder / "dvc.yaml").write_text(DVC_YAML)
    (folder / "params.yaml").write_text("double: {factor: 2}\ntotal: {offset: 0}\n")
    (folder / ".gitignore").write_text("/data/*\n!/data/*.dvc\n__pycache__/\n.osteoflow/\n")
    (folder / ".dvcignore").write_text("__pycache__/\n.gitignore\n")
    run(folder, "git", "init", "-q")
    Repo.init(str(folder)).close()
    run(folder, "git", "add", "-A")
    run(folder, "git", "-c", "user.name=t", "-c", "user.email=t@t.invalid", "commit", "-qm", "start")
    return folder


def run(folder: Path, *words: str, check: bool = True) -> str:
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(folder),
        "DVC_SITE_CACHE_DIR": str(folder.parent / "site"),
    }
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, env=environment)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done.stdout
