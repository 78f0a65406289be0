"""kill -9 in the middle: what was acknowledged is not lost, and nothing is there twice."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from dicom_files import dicom, stack, write_tree

from tasks.ledger import Ledger
from tasks.receive import Intake, Params, accept, ingest, recover, settle, watch_once

CHILD = """
import sys
from pathlib import Path
from tasks.ledger import Ledger
from tasks.receive import Intake
ledger = Ledger.open()
with Intake(ledger) as intake:
    print("ready", flush=True)
    waiting = []
    for path in sorted(Path(sys.argv[1]).iterdir()):
        waiting.append(intake.write(path.read_bytes(), "local", "hospital"))
        print(path.name, flush=True)          # acknowledged: it is on disk
        if len(waiting) == 7:
            intake.file(waiting)
            waiting = []
    intake.file(waiting)
"""


@pytest.mark.parametrize("seed", range(2))
def test_what_was_acknowledged_survives_kill_9(seed: int, tmp_path: Path, params: Params) -> None:
    files = {f"{study}-{n:02d}": data for study in range(6) for n, data in enumerate(stack(f"1.{study}", 20))}
    source = write_tree(tmp_path / "in", files)
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(source)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    stop_after = random.Random(seed).randrange(10, len(files) - 10)
    acknowledged = [child.stdout.readline().strip() for _ in range(stop_after)]
    os.kill(child.pid, signal.SIGKILL)
    acknowledged += [line.strip() for line in child.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
    child.wait()
    with Ledger.open() as ledger:
        assert len(acknowledged) < len(files)
        recover(ledger)
        kept = [file.path.read_bytes() for version in ledger.current() for file in version.files]
        assert len(kept) == len(set(kept))
        assert {files[name] for name in acknowledged} <= set(kept)
        assert not list((ledger.identified / "incoming").rglob("*.dcm"))
        assert recover(ledger) == []
        ingest(source, ledger, "local", "hospital", params)
        assert len(settle(ledger, params, force=True)) == 6
        everything = [file.path.read_bytes() for version in ledger.current() for file in version.files]
        assert sorted(everything) == sorted(files.values())
        assert ledger.quarantined() == {}


def test_a_session_that_is_alive_is_left_alone(ledger: Ledger, params: Params, tmp_path: Path) -> None:
    with Intake(ledger) as other:
        waiting = other.write(dicom(number=1), "local", "hospital")
        assert recover(ledger) == []
        write_tree(tmp_path / "in", {"2": dicom(number=2)})
        ingest(tmp_path / "in", ledger, "local", "hospital", params)
        assert waiting.path.exists()
        assert [outcome.outcome for outcome in other.file([waiting])] == ["accepted"]
    [version] = ledger.current()
    assert version.n_files == 2


def test_an_error_of_the_ledger_leaves_everything_in_the_journal(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Cut(Exception):
        pass

    def cut(*_: object) -> None:
        raise Cut

    with Intake(ledger) as intake:
        waiting = [intake.write(data, "local", "hospital") for data in stack()]
        with monkeypatch.context() as patched:
            patched.setattr("tasks.receive.spool.Spool.sync", cut)
            with pytest.raises(Cut):
                intake.file(waiting)
        assert ledger.current() == []
        assert all(item.path.exists() for item in waiting)
    recover(ledger)
    [version] = ledger.current()
    assert version.n_files == 5
    assert [path.name for path in (ledger.identified / "spool").glob("*/*")] == [version.row_key]


def test_a_ledger_restored_from_a_backup_finds_what_came_since(ledger: Ledger, params: Params, tmp_path: Path) -> None:
    accept(dicom("1.1", number=1), ledger, "local", "hospital")
    ledger.compact()
    backup = tmp_path / "backup.sqlite"
    shutil.copy(ledger.identified / "ledger.sqlite", backup)
    accept(dicom("1.1", number=2), ledger, "local", "hospital")
    for data in stack("1.2", 4):
        accept(data, ledger, "Süd", "phantom")
    ledger.close()
    for path in ledger.identified.glob("ledger.sqlite*"):
        path.unlink()
    shutil.copy(backup, ledger.identified / "ledger.sqlite")
    with Ledger.open() as restored:
        assert sum(version.n_files for version in restored.current()) == 1
        recover(restored)
        found = {v.study_uid: (v.n_files, v.site, v.origin) for v in restored.current()}
        assert found == {"1.1": (2, "local", "hospital"), "1.2": (4, "Süd", "phantom")}
        assert all(file.path.exists() for version in restored.current() for file in version.files)
        assert recover(restored) == []


def test_what_was_erased_does_not_come_back_from_bytes_that_are_still_there(ledger: Ledger, params: Params) -> None:
    """The rows of an erased patient are gone, and then the process died before it removed the files."""
    for data in stack("1.1", 3):
        accept(data, ledger, "local", "hospital")
    paths = [file.path for file in ledger.current()[0].files]
    ledger.erase(study_uid="1.1")
    assert all(path.exists() for path in paths)
    assert ledger.unknown_files({paths[0].parent.name: paths[0].parent}, lambda folder: os.listdir(folder)) == {
        paths[0].parent.name: []
    }
    assert recover(ledger) == []
    assert ledger.current() == [] and not any(path.exists() for path in paths)


def test_a_half_written_copy_in_the_inbox_is_not_taken(ledger: Ledger, params: Params, home: Path) -> None:
    inbox = home / "identified" / "inbox"
    inbox.mkdir(parents=True)
    data = dicom()
    with open(inbox / "copying.dcm", "wb") as writer:
        writer.write(data[:300])
        writer.flush()
        assert watch_once(inbox, ledger, "local", "hospital", params).files == 0
        writer.write(data[300:])
    write_tree(inbox, {".hidden": data, "x.part": data, "annotations/seg.dcm": data})
    summary = watch_once(inbox, ledger, "local", "hospital", params)
    assert (summary.files, summary.accepted) == (1, 1)
    assert sorted(path.name for path in inbox.rglob("*") if path.is_file()) == [".hidden", "seg.dcm", "x.part"]
    patient = params.model_copy(update={"stable_seconds": 60.0})
    write_tree(inbox, {"fresh.dcm": dicom(number=2)})
    assert watch_once(inbox, ledger, "local", "hospital", patient).files == 0
    old = time.time() - 120
    os.utime(inbox / "fresh.dcm", (old, old))
    assert watch_once(inbox, ledger, "local", "hospital", patient).accepted == 1
