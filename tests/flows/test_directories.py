"""The directory object brought up to date from what changed is the one that DVC makes by walking everything."""

from __future__ import annotations

import os
import random
import shutil
import sys
from pathlib import Path

import pytest
from dvc.repo import Repo
from toy_workspace import make_workspace, run

from flows import directories
from flows.directories import _Directory, _Unusual, forget
from flows.stage import load, locked, run_stage


@pytest.fixture(autouse=True)
def _a_new_process() -> None:
    directories._listings.clear()
    directories._whole.clear()


def directory(repo: Repo) -> _Directory:
    out = load(repo, "total").deps[0]
    found = out.get_hash.__self__
    assert isinstance(found, _Directory)
    return found


def agrees(repo: Repo) -> None:
    one = directory(repo)
    one.seen = None
    ours, dvc = one.get_hash(), one.dvc["get_hash"]()
    assert ours.value == dvc.value
    one.save()
    assert one.out.meta.nfiles == len([p for p in one.path.rglob("*") if p.is_file()])
    assert one.out.meta.size == sum(p.stat().st_size for p in one.path.rglob("*") if p.is_file())


def test_after_any_change_the_digest_is_that_of_dvc(workspace: Path) -> None:
    dice = random.Random(5)
    top = workspace / "data" / "doubled"
    for number in range(30):
        path = top / f"batch-{number % 3}" / "ä b" / f"{number}.zip"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(dice.randbytes(20))
    repo = Repo(".")
    agrees(repo)
    for round_ in range(25):
        paths = sorted(path for path in top.rglob("*") if path.is_file())
        victim = dice.choice(paths)
        what = dice.randrange(7)
        if what == 0:
            victim.unlink()
        elif what == 1:
            victim.rename(victim.with_name(f"moved{round_}"))
        elif what == 2:
            victim.with_name("x.part").write_bytes(dice.randbytes(20))
            os.replace(victim.with_name("x.part"), victim)
        elif what == 3:
            (top / f"new-{round_}").mkdir()
            (top / f"new-{round_}" / "1").write_text(str(round_))
        elif what == 4:
            shutil.rmtree(victim.parent)
        elif what == 5:
            (top / "__pycache__").mkdir(exist_ok=True)  # .dvcignore names it
            (top / "__pycache__" / "no.pyc").write_text(str(round_))
            one = directory(repo)
            one.seen = None
            assert one.get_hash().value == one.dvc["get_hash"]().value
            shutil.rmtree(top / "__pycache__")
        else:
            victim.write_bytes(dice.randbytes(20))  # in place: no folder says so
            forget()
        if dice.random() < 0.2:
            directories._listings.clear()  # another process, which reads what this one stored
        if not any(path.is_file() for path in top.rglob("*")):
            (top / "last").write_text("1")
        agrees(repo)


def test_a_file_changed_in_place_is_seen_by_the_next_run(workspace: Path) -> None:
    run_stage("double")
    run_stage("total")
    (workspace / "data" / "doubled" / "1").write_text("7")
    forget()  # what half a minute does
    assert run_stage("total").ran
    assert (workspace / "data" / "total.txt").read_text() == "7"


def test_an_object_that_left_the_cache_is_missed(workspace: Path) -> None:
    run_stage("double")
    assert not run_stage("double").ran
    [cached] = (
        path for path in (workspace / ".dvc" / "cache").rglob("*") if path.is_file() and path.stat().st_size == 1
    )
    cached.unlink()
    assert run_stage("double").ran
    assert cached.read_text() == "2"


def test_a_link_in_the_tree_is_left_to_dvc(workspace: Path) -> None:
    run_stage("double")
    (workspace / "data" / "doubled" / "link").symlink_to(workspace / "params.yaml")
    repo = Repo(".")
    one = directory(repo)
    with pytest.raises(_Unusual):
        one._listing()
    assert one.get_hash().value == one.dvc["get_hash"]().value


def test_links_as_cache_type_are_left_to_dvc(workspace: Path) -> None:
    run(workspace, "dvc", "config", "cache.type", "symlink")
    repo = Repo(".")
    assert "get_hash" not in vars(load(repo, "total").deps[0])
    assert run_stage("double").ran


def test_what_was_cached_can_be_pushed_and_pulled_elsewhere(workspace: Path, tmp_path: Path) -> None:
    run_stage("double")
    (workspace / "data" / "batches" / "2").write_text("20")
    assert run_stage("double").ran, "an addition to a directory that is there"
    run_stage("total")
    repo = Repo(".")
    with locked(repo):
        assert repo.status() == {}
    remote = tmp_path / "remote"
    run(workspace, "dvc", "remote", "add", "-q", "-d", "far", str(remote))
    assert Repo(".").push() == 4, "two files, the object of their directory, and the total"
    other = make_workspace(tmp_path / "other")
    shutil.copy(workspace / "dvc.lock", other)
    run(other, "dvc", "remote", "add", "-q", "-d", "far", str(remote))
    run(other, sys.executable, "-m", "dvc", "pull", "-q")
    assert {p.name: p.read_text() for p in (other / "data" / "doubled").iterdir()} == {"1": "2", "2": "40"}


def test_an_import_that_sets_its_folders_time_back_is_seen(workspace: Path) -> None:
    """As data/imports does, so that the same input is the same folder."""
    top = workspace / "data" / "doubled"
    top.mkdir()
    repo = Repo(".")
    for name in ("0001-a", "0002-b", "0003-c"):
        building = top / f".{name}.part"
        building.mkdir()
        (building / "import.json").write_text(name)
        building.rename(top / name)
        os.utime(top, (1e9, 1e9))
        agrees(repo)


def test_an_import_that_is_being_written_is_no_part_of_the_folder(workspace: Path) -> None:
    rules = Path(__file__).resolve().parents[2] / ".dvcignore"
    shutil.copy(rules, workspace / ".dvcignore")
    (workspace / "data" / "doubled" / "0001-a").mkdir(parents=True)
    (workspace / "data" / "doubled" / "0001-a" / "import.json").write_text("1")
    before = directory(Repo(".")).get_hash().value
    building = workspace / "data" / "doubled" / ".0002-b.part"
    building.mkdir()
    (building / "import.json").write_text("2")
    agrees_without = directory(Repo("."))
    assert agrees_without.get_hash().value == before == agrees_without.dvc["get_hash"]().value
