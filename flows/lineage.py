"""The `lineage` branch: one commit for each run of the dataset loop, made beside the user's branch, index and files.

The tree holds the tracked files as they were, uncommitted edits included, with dvc.lock and the .dvc files; nothing
else that is untracked, and never the rows of a manifest (those are DVC's, so that erasure can reach them).
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from tasks.domain.errors import WrongUse
from tasks.domain.settings import Settings

BRANCH = "refs/heads/lineage"
AUTHOR = {"NAME": "osteoflow", "EMAIL": "lineage@osteoflow.invalid"}


def commit(message: str, root: Path | None = None) -> str:
    """Record the workspace on the lineage branch; returns the commit. The same tree again returns the last commit.

    Raises WrongUse outside a Git repository.
    """
    root = (root or Path.cwd()).resolve()
    if _git(root, "rev-parse", "--show-toplevel", check=False) == "":
        raise WrongUse(f"{root.name} is not a Git repository; lineage is a Git branch (run git init)")
    Settings().ensure()
    with tempfile.TemporaryDirectory(dir=Settings().home, prefix="lineage-") as folder:
        index = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        tracked = _git(root, "ls-files", "-z").split("\0")
        recorded = [path for path in tracked if path and (root / path).is_file()]
        recorded += [path.relative_to(root).as_posix() for path in _dvc_files(root)]
        _git(root, "update-index", "--add", "-z", "--stdin", env=index, stdin="\0".join(sorted(set(recorded))) + "\0")
        tree = _git(root, "write-tree", env=index)
    parent = _git(root, "rev-parse", "--verify", "--quiet", BRANCH, check=False)
    if parent and _git(root, "rev-parse", f"{parent}^{{tree}}") == tree:
        return parent
    who = {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in AUTHOR.items()}
    parents = ["-p", parent] if parent else []
    new = _git(root, "commit-tree", tree, *parents, "-m", message, env=who)
    # The old value is given, so that two runs at once cannot lose each other's commit.
    _git(root, "update-ref", "-m", "lineage", BRANCH, new, parent or "0" * len(new))
    return new


def show(commit: str, path: str, root: Path | None = None) -> str:
    """The content of `path` in a lineage commit, '' when it is not there."""
    return _git((root or Path.cwd()).resolve(), "show", f"{commit}:{path}", check=False)


def _dvc_files(root: Path) -> list[Path]:
    return [path for path in [root / "dvc.lock", *sorted((root / "data").glob("*.dvc"))] if path.is_file()]


def _git(
    root: Path, *words: str, env: dict[str, str] | None = None, stdin: str | None = None, check: bool = True
) -> str:
    done = subprocess.run(
        ["git", "-c", "core.hooksPath=/dev/null", "-c", "commit.gpgSign=false", *words],
        cwd=root,
        env=os.environ | (env or {}),
        input=stdin,
        capture_output=True,
        text=True,
    )
    if done.returncode and check:
        raise WrongUse(f"git {words[0]} failed: {done.stderr.strip() or done.returncode}")
    return done.stdout.strip() if not done.returncode else ""
