"""A run of the dataset loop is one commit on `lineage`; the user's branch, index and files stay as they are."""

from __future__ import annotations

from pathlib import Path

from toy_workspace import run

from flows import lineage


def test_the_users_branch_index_and_files_are_untouched(workspace: Path) -> None:
    (workspace / "params.yaml").write_text("double: {factor: 7}\ntotal: {offset: 0}\n")
    (workspace / "private.txt").write_text("never commit me")
    (workspace / "staged.txt").write_text("staged")
    run(workspace, "git", "add", "staged.txt")
    before = (run(workspace, "git", "status", "--porcelain"), run(workspace, "git", "rev-parse", "HEAD"))
    index = (workspace / ".git" / "index").read_bytes()
    commit = lineage.commit("a run", workspace)
    assert (run(workspace, "git", "status", "--porcelain"), run(workspace, "git", "rev-parse", "HEAD")) == before
    assert (workspace / ".git" / "index").read_bytes() == index
    assert "factor: 7" in lineage.show(commit, "params.yaml", workspace), "uncommitted edits belong to the run"
    files = run(workspace, "git", "ls-tree", "-r", "--name-only", commit)
    assert "private.txt" not in files


def test_the_lock_is_in_the_commit_and_manifests_are_not(workspace: Path) -> None:
    (workspace / "dvc.lock").write_text("schema: '2.0'\n")
    (workspace / "data" / "batches.dvc").write_text("outs: []\n")
    files = run(workspace, "git", "ls-tree", "-r", "--name-only", lineage.commit("a run", workspace)).split()
    assert "dvc.lock" in files and "data/batches.dvc" in files
    assert not any(name.startswith("data/batches/") for name in files)


def test_the_same_tree_is_the_same_commit_and_each_new_one_follows(workspace: Path) -> None:
    first = lineage.commit("one", workspace)
    assert lineage.commit("again", workspace) == first
    (workspace / "dvc.lock").write_text("schema: '2.0'\n")
    second = lineage.commit("two", workspace)
    assert run(workspace, "git", "rev-parse", f"{second}^").strip() == first
