"""Nested folders, zip media with a DICOMDIR, the watched inbox."""

from __future__ import annotations

import os
import zipfile
from io import BytesIO
from pathlib import Path

import pydicom.data
import pytest
from dicom_files import dicom, stack, write_tree

from tasks.domain.errors import Refused, Unavailable, WrongUse
from tasks.ledger import Ledger
from tasks.receive import Intake, Params, ingest, release, settle, show, watch_once
from tasks.receive.judge import Received


def zipped(files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


@pytest.fixture
def medium() -> dict[str, bytes]:
    """A CD as viewers burn it: a DICOMDIR, nested folders, a program beside it."""
    index = Path(str(pydicom.data.get_testdata_file("DICOMDIR"))).read_bytes()
    images = {f"DICOM/PAT/ST1/IM{n}": data for n, data in enumerate(stack("1.5", 6))}
    return {"DICOMDIR": index, "VIEWER/START.EXE": b"MZ" + bytes(600), **images}


def test_a_zip_is_a_folder(ledger: Ledger, params: Params, tmp_path: Path, medium: dict[str, bytes]) -> None:
    path = tmp_path / "cd.zip"
    path.write_bytes(zipped(medium))
    summary = ingest(path, ledger, "local", "hospital", params)
    assert (summary.files, summary.accepted) == (8, 6)
    assert summary.skipped == {"dicomdir": 1}
    assert summary.quarantined == {"not_dicom": 1}
    assert path.exists()
    assert len(settle(ledger, params, force=True)) == 1
    tree = write_tree(tmp_path / "cd", medium)
    assert ingest(tree, ledger, "local", "hospital", params).duplicates == 7


def test_names_in_a_zip_lead_nowhere(ledger: Ledger, params: Params, tmp_path: Path) -> None:
    path = tmp_path / "in" / "evil.zip"
    path.parent.mkdir()
    path.write_bytes(zipped({"../../../escaped.dcm": dicom(), "/absolute.dcm": dicom(number=2)}))
    assert ingest(path.parent, ledger, "local", "hospital", params).accepted == 2
    assert not list(tmp_path.rglob("*escaped*")) and not Path("/absolute.dcm").exists()


def test_a_broken_zip_and_a_bomb_are_no_end(ledger: Ledger, params: Params, tmp_path: Path) -> None:
    whole = zipped({"a": dicom()})
    bomb = zipped({"bomb": bytes(20_000_000), "b": dicom(number=2)})
    tree = write_tree(tmp_path / "in", {"cut.zip": whole[: len(whole) // 2], "bomb.zip": bomb, "c": dicom(number=3)})
    summary = ingest(tree, ledger, "local", "hospital", params)
    assert summary.accepted == 2
    assert summary.quarantined == {"bad_archive": 1, "archive_member_too_large": 1}
    assert not summary.skipped


def test_what_is_too_large_to_be_taken_is_kept_and_may_be_released(
    ledger: Ledger, params: Params, tmp_path: Path, home: Path
) -> None:
    large = dicom(number=2, Rows=2400, Columns=2400, PixelData=bytes(2400 * 2400 * 2))
    data = zipped({"small": dicom(number=1), "large": large})
    write_tree(home / "identified" / "inbox", {"cd.zip": data})
    summary = watch_once(home / "identified" / "inbox", ledger, "local", "hospital", params)
    assert (summary.accepted, summary.quarantined) == (1, {"archive_member_too_large": 1})
    assert not (home / "identified" / "inbox" / "cd.zip").exists()
    [entry] = ledger.quarantine_entries()
    assert entry.path is not None and entry.path.read_bytes() == data
    assert show(ledger, entry.key)["releasable"]
    release(ledger, entry.key, "an engineer", "max_member_mb is 4096 now")
    assert ledger.quarantined() == {}
    assert [version.n_files for version in ledger.current()] == [2]


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_member_holds_the_archive(
    compression: int, ledger: Ledger, params: Params, tmp_path: Path, medium: dict[str, bytes]
) -> None:
    whole = bytearray(zipped(medium, compression))
    for at in range(60, 2000, 7):
        whole[at] ^= 0x5A
    (tmp_path / "a.zip").write_bytes(whole)
    (tmp_path / "b.dcm").write_bytes(dicom("1.9"))
    summary = ingest(tmp_path, ledger, "local", "hospital", params, move=True)
    assert summary.quarantined["bad_archive"] == 1 and ledger.find("1.9")
    assert not (tmp_path / "a.zip").exists()


def test_a_zip_that_took_the_name_of_one_that_was_read_stays(
    ledger: Ledger, params: Params, tmp_path: Path, medium: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    place, later = tmp_path / "in" / "export.zip", tmp_path / "later.zip"
    place.parent.mkdir()
    place.write_bytes(zipped(medium))
    later.write_bytes(zipped({"x.dcm": dicom("1.9")}))
    sync = Intake.sync

    def sync_and_replace(self: Intake, received: list[Received]) -> None:
        sync(self, received)
        if later.exists():
            later.replace(place)

    monkeypatch.setattr(Intake, "sync", sync_and_replace)
    ingest(place.parent, ledger, "local", "hospital", params, move=True)
    assert place.exists() and not ledger.find("1.9")
    ingest(place.parent, ledger, "local", "hospital", params, move=True)
    assert not place.exists() and ledger.find("1.9")


def test_an_archive_that_would_be_held_again_is_not_released(ledger: Ledger, params: Params, tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "in", {"cut.zip": zipped({"a": dicom()})[:-30]})
    ingest(tree, ledger, "local", "hospital", params)
    [entry] = ledger.quarantine_entries()
    with pytest.raises(Refused):
        release(ledger, entry.key, "an engineer", "try again")
    assert ledger.quarantined() == {"bad_archive": 1}


def test_with_little_disk_nothing_is_taken_and_nothing_is_lost(
    ledger: Ledger, params: Params, tmp_path: Path, home: Path
) -> None:
    write_tree(home / "identified" / "inbox", {"a": dicom()})
    poor = params.model_copy(update={"disk_reserve_mb": 1e12})
    with pytest.raises(Unavailable, match="reserve"):
        watch_once(home / "identified" / "inbox", ledger, "local", "hospital", poor)
    assert watch_once(home / "identified" / "inbox", ledger, "local", "hospital", params).accepted == 1


def test_moving_empties_the_tree(ledger: Ledger, params: Params, tmp_path: Path, medium: dict[str, bytes]) -> None:
    tree = write_tree(tmp_path / "in", {**medium, "more.zip": zipped({"x": dicom("1.6")}), "text": b"hello"})
    os.symlink(tmp_path, tree / "loop")
    os.symlink(tmp_path / "nowhere", tree / "dangling")
    summary = ingest(tree, ledger, "local", "hospital", params, move=True)
    assert summary.accepted == 7
    assert [path for path in tree.rglob("*") if path.is_file()] == []
    assert sum(version.n_files for version in ledger.current()) == 7
    assert ledger.quarantined() == {"not_dicom": 2}


def test_nothing_at_the_path_is_wrong_use(ledger: Ledger, params: Params, tmp_path: Path) -> None:
    with pytest.raises(WrongUse):
        ingest(tmp_path / "nothing", ledger, "local", "hospital", params)


def test_the_inbox_is_emptied_and_its_folders_go(ledger: Ledger, params: Params, home: Path) -> None:
    inbox = home / "identified" / "inbox"
    write_tree(inbox, {f"ward 7/{n}/slice": data for n, data in enumerate(stack())})
    write_tree(inbox, {"annotations/labels.csv": b"patient_id\n"})
    summary = watch_once(inbox, ledger, "local", "hospital", params)
    assert summary.accepted == 5
    watch_once(inbox, ledger, "local", "hospital", params)
    assert [path.name for path in inbox.iterdir()] == ["annotations"]
    assert watch_once(inbox, ledger, "local", "hospital", params).files == 0
