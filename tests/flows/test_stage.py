"""run_stage leaves what `dvc repro` leaves, and never records what it did not use."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from toy_workspace import make_workspace, run

from flows.graph import ordered
from flows.mended import mend
from flows.stage import run_stage


def test_the_lock_is_byte_identical_to_that_of_dvc_repro(workspace: Path, tmp_path: Path) -> None:
    for node in ordered():
        assert run_stage(node.name).ran
    oracle = make_workspace(tmp_path / "oracle")
    run(oracle, sys.executable, "-m", "dvc", "repro", "-q")
    assert (workspace / "dvc.lock").read_bytes() == (oracle / "dvc.lock").read_bytes()


def test_after_a_flow_dvc_status_is_clean_and_repro_does_nothing(workspace: Path) -> None:
    for node in ordered():
        run_stage(node.name)
    before = (workspace / "dvc.lock").read_bytes()
    assert "up to date" in run(workspace, sys.executable, "-m", "dvc", "status")
    run(workspace, sys.executable, "-m", "dvc", "repro")
    assert (workspace / "dvc.lock").read_bytes() == before
    assert not any(run_stage(node.name).ran for node in ordered())


def test_a_file_that_arrives_during_a_stage_is_picked_up_by_the_next_run(workspace: Path) -> None:
    (workspace / "data" / "hook.py").write_text('pathlib.Path("data/batches/2").write_text("20")\n')
    run_stage("double")
    (workspace / "data" / "hook.py").unlink()
    assert not (workspace / "data" / "doubled" / "2").exists()
    assert run_stage("double").ran, "the late file was recorded as used though it was not"
    assert (workspace / "data" / "doubled" / "2").read_text() == "40"
    assert not run_stage("double").ran


def test_dvc_repro_itself_misses_the_late_file(workspace: Path) -> None:
    """The negative control: the fault that run_stage avoids is there in `dvc repro`."""
    (workspace / "data" / "hook.py").write_text('pathlib.Path("data/batches/2").write_text("20")\n')
    run(workspace, sys.executable, "-m", "dvc", "repro", "-q", "double")
    (workspace / "data" / "hook.py").unlink()
    assert not run_stage("double").ran
    assert not (workspace / "data" / "doubled" / "2").exists()


def test_parameters_are_those_read_before_the_run(workspace: Path) -> None:
    (workspace / "data" / "hook.py").write_text(
        'pathlib.Path("params.yaml").write_text("double: {factor: 3}\\ntotal: {offset: 0}\\n")\n'
    )
    run_stage("double")
    (workspace / "data" / "hook.py").unlink()
    assert "factor: 2" in (workspace / "dvc.lock").read_text()
    assert run_stage("double").ran
    assert (workspace / "data" / "doubled" / "1").read_text() == "3"


def test_a_stage_that_fails_leaves_no_record(workspace: Path) -> None:
    (workspace / "data" / "hook.py").write_text("raise ValueError('planted')\n")
    with pytest.raises(ValueError, match="planted"):
        run_stage("double")
    assert not (workspace / "dvc.lock").exists()


def test_a_truncated_rwlock_left_by_a_crash_is_survived(workspace: Path) -> None:
    run_stage("double")
    (workspace / ".dvc" / "tmp" / "rwlock").write_text('{"a": ')
    (workspace / "data" / "batches" / "3").write_text("5")
    assert run_stage("double").ran


def test_a_dvc_lock_cut_anywhere_by_a_crash_is_mended(workspace: Path) -> None:
    inputs = (Path("data/batches"),)
    for node in ordered():
        run_stage(node.name)
    lock = Path("dvc.lock")
    whole = lock.read_bytes()
    assert mend(Path("."), inputs) == []
    broken = 0
    for cut in range(0, len(whole), len(whole) // 9):
        lock.write_bytes(whole[:cut])
        broken += bool(mend(Path("."), inputs))
        for node in ordered():
            run_stage(node.name)
        assert lock.read_bytes() == whole
    assert broken > 3, "most cuts leave what DVC itself cannot read"


def test_an_input_recorded_by_half_is_recorded_again(workspace: Path) -> None:
    from dvc.repo import Repo

    folder = Path("data/extra")
    folder.mkdir()
    (folder / "1").write_text("1")
    Repo(".").add([str(folder)])
    pointer = folder.with_suffix(".dvc")
    whole = pointer.read_bytes()
    for cut in (0, 10, len(whole) // 2):
        pointer.write_bytes(whole[:cut])
        assert mend(Path("."), (folder,)) == ["data/extra.dvc"]
        Repo(".").add([str(folder)])
        assert pointer.read_bytes() == whole


def test_new_content_of_the_same_size_is_never_taken_for_the_old(workspace: Path) -> None:
    """DVC knows a file by inode, size and time, and the files of the de-identified zone have no real time."""
    hook = (
        "import shutil\n"
        "from tasks.store.files import write_text\n"
        "out = pathlib.Path('data/doubled')\n"
        "shutil.rmtree(out)\n"
        "for name in 'abcdefgh':\n"
        "    write_text(out / name, str({number}))\n"
    )
    for number in (11, 22, 33):
        (workspace / "data" / "hook.py").write_text(hook.format(number=number))
        (workspace / "params.yaml").write_text(f"double: {{factor: {number}}}\ntotal: {{offset: 0}}\n")
        assert run_stage("double").ran
        assert run_stage("total").ran
        assert (workspace / "data" / "total.txt").read_text() == str(8 * number)
        lock = (workspace / "dvc.lock").read_text()
        run(workspace, sys.executable, "-m", "dvc", "commit", "-f", "-q")
        assert (workspace / "dvc.lock").read_text() == lock, "recorded digests are not those of the bytes"
    from flows.verify import dvc_digest

    assert dvc_digest(workspace / "data" / "doubled") in lock
