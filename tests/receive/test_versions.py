"""Late slices, files sent again, and the same file sent by another node."""

from __future__ import annotations

from pathlib import Path

import pytest
from dicom_files import dataset, dicom, encoded, stack

from tasks.domain.errors import Refused, WrongUse
from tasks.ledger import Ledger
from tasks.receive import Params, accept, discard, purge_originals, recover, release, settle, show, withdraw


def take(ledger: Ledger, files: list[bytes]) -> list[str]:
    return [accept(data, ledger, "local", "hospital").outcome for data in files]


def test_a_late_slice_makes_a_version_with_all_files(ledger: Ledger, params: Params) -> None:
    files = stack(slices=6)
    assert take(ledger, files[:5]) == ["accepted"] * 5
    [first] = settle(ledger, params, force=True)
    ledger.finish_batch(str(ledger.claim_batch("run")))
    ledger.mark_scored(first, "1")
    assert ledger.unscored("1") == []
    assert take(ledger, files[5:]) == ["accepted"]
    assert take(ledger, files) == ["duplicate"] * 6
    [second] = settle(ledger, params, force=True)
    old, new = ledger.get(first), ledger.get(second)
    assert old is not None and new is not None
    assert (old.version, old.n_files, old.current, old.state) == (1, 5, False, "done")
    assert (new.version, new.n_files, new.current, new.state) == (2, 6, True, "complete")
    assert old.digest != new.digest
    assert ledger.mark_arrived(second) and [one.row_key for one in ledger.unscored("1")] == [second]
    assert sorted(file.path.read_bytes() for file in new.files) == sorted(files)
    assert sorted(file.path.read_bytes() for file in old.files) == sorted(files[:5])
    assert {file.path.stat().st_nlink for file in old.files} == {2}


def test_the_spool_holds_what_came_under_names_of_our_own(ledger: Ledger, home: Path) -> None:
    data = dicom(patient="PAT-SECRET")
    key = accept(data, ledger, "St. Elsewhere / Nord", "hospital").row_key
    version = ledger.get(str(key))
    assert version is not None
    [file] = version.files
    assert file.path.is_absolute() and file.path.read_bytes() == data
    assert file.path.parent.name == key
    assert file.path.parent.parent.parent == (home / "identified" / "spool").resolve()
    assert "SECRET" not in str(file.path) and "1.2.3" not in file.path.name
    assert version.site == "St. Elsewhere / Nord"
    assert file.path.stat().st_mode & 0o777 == 0o600


def test_another_preamble_and_file_meta_is_the_same_file(ledger: Ledger) -> None:
    ds = dataset()
    first = encoded(ds)
    ds.file_meta.ImplementationVersionName = "ANOTHER_NODE"
    ds.file_meta.SourceApplicationEntityTitle = "MR7"
    second = b"preamble".ljust(128, b"\0") + encoded(ds)[128:]
    assert first != second
    assert take(ledger, [first, second]) == ["accepted", "duplicate"]
    ds.SeriesDescription = "edited"
    outcome = accept(encoded(ds), ledger, "local", "hospital")
    assert (outcome.outcome, outcome.reason) == ("quarantined", "duplicate_sop_other_bytes")
    assert ledger.counts()["receiving"] == 1


def test_one_study_uid_at_two_sites_is_two_studies(ledger: Ledger) -> None:
    data = dicom()
    keys = {accept(data, ledger, site, "hospital").row_key for site in ("north", "south")}
    assert len(keys) == 2


def test_a_late_slice_after_the_originals_are_purged_is_held(ledger: Ledger, params: Params) -> None:
    files = stack(slices=4)
    take(ledger, files[:3])
    [key] = settle(ledger, params, force=True)
    with pytest.raises(WrongUse, match="still needed"):
        purge_originals(ledger, key)
    ledger.finish_batch(str(ledger.claim_batch("run")))
    paths = [file.path for file in ledger.get(key).files]  # type: ignore[union-attr]
    assert purge_originals(ledger, key) == 3
    assert not any(path.exists() for path in paths)
    version = ledger.get(key)
    assert version is not None and version.purged and version.state == "done"
    assert accept(files[3], ledger, "local", "hospital").reason == "late_after_purge"
    assert accept(files[0], ledger, "local", "hospital").outcome == "duplicate"


def test_originals_that_were_given_up_are_removed_after_a_crash(ledger: Ledger, params: Params) -> None:
    take(ledger, stack(slices=3))
    [key] = settle(ledger, params, force=True)
    ledger.finish_batch(str(ledger.claim_batch("run")))
    paths = [file.path for file in ledger.get(key).files]  # type: ignore[union-attr]
    assert ledger.mark_purged(key)
    assert all(path.exists() for path in paths)
    recover(ledger)
    assert not any(path.exists() for path in paths)


def test_a_withdrawn_study_that_is_sent_again_begins_anew(ledger: Ledger, params: Params) -> None:
    files = stack(slices=3)
    take(ledger, files)
    [key] = settle(ledger, params, force=True)
    ledger.finish_batch(str(ledger.claim_batch("run")))
    purge_originals(ledger, key)
    assert withdraw(ledger, key, again=True) is None  # nothing to make it from
    assert ledger.current() == [] and ledger.quarantined() == {"privacy": 1}
    assert take(ledger, files) == ["accepted"] * 3
    [again] = settle(ledger, params, force=True)
    assert [(v.row_key, v.version, v.n_files) for v in ledger.current("complete")] == [(again, 2, 3)]


def test_what_is_withdrawn_comes_back_whole_or_not_at_all(ledger: Ledger, params: Params) -> None:
    take(ledger, stack(slices=3))
    [key] = settle(ledger, params, force=True)
    ledger.finish_batch(str(ledger.claim_batch("run")))
    before = ledger.get(key)
    assert before is not None
    before.files[1].path.unlink()
    with pytest.raises(WrongUse, match="nothing was withdrawn"):
        withdraw(ledger, key, again=True)
    assert ledger.get(key) == before
    before.files[0].path.unlink()


def test_a_reason_found_for_a_superseded_version_asks_nobody(ledger: Ledger, params: Params) -> None:
    files = stack(slices=6)
    take(ledger, files[:5])
    [old] = settle(ledger, params, force=True)
    take(ledger, files[5:])
    entry = ledger.quarantine(old, "verification_failed")
    assert ledger.quarantined() == {}
    assert ledger.quarantine_entry(entry).why == "a later version supersedes it"
    ledger.erase(study_uid="1.2.3.1")
    assert ledger.quarantine(old, "verification_failed") == "" and ledger.quarantine_entries(None) == []


def test_an_incomplete_study_is_released_as_a_new_complete_version(ledger: Ledger, params: Params) -> None:
    files = stack(slices=6)
    take(ledger, files[:2] + files[3:])
    assert settle(ledger, params, force=True) == []
    [row] = ledger.current("receiving")
    assert ledger.waiting_for() == "the rest of 1 study (slices missing in 1 of 1 series)"
    assert settle(ledger, params, now=row.last_received + 2000) == []
    assert ledger.quarantined() == {"incomplete_series": 1}
    [entry] = ledger.quarantine_entries()
    shown = show(ledger, entry.key)
    assert (shown["what"], shown["files"], shown["releasable"]) == ("study version", 5, True)
    assert "PAT-1" not in str(shown) and "1.2.3" not in str(shown)
    new = release(ledger, entry.key, "Dr. Who", "the scanner stopped; the rest will do")
    version = ledger.get(str(new))
    assert version is not None
    assert (version.state, version.version, version.n_files) == ("complete", 2, 5)
    assert all(file.path.exists() for file in version.files)
    [decided] = ledger.quarantine_entries(state="released")
    assert (decided.who, decided.why) == ("Dr. Who", "the scanner stopped; the rest will do")
    assert ledger.counts() == {"receiving": 0, "complete": 1, "claimed": 0, "done": 0, "quarantined": 0}


def test_a_late_slice_completes_a_study_that_went_to_quarantine(ledger: Ledger, params: Params) -> None:
    files = stack(slices=6)
    take(ledger, files[:2] + files[3:])
    [row] = ledger.current("receiving")
    settle(ledger, params, now=row.last_received + 2000)
    take(ledger, files[2:3])
    [key] = settle(ledger, params, force=True)
    assert ledger.get(key).n_files == 6  # type: ignore[union-attr]
    assert ledger.quarantined() == {}
    assert ledger.counts()["complete"] == 1


def test_two_patients_are_never_released_and_a_discard_removes_the_bytes(ledger: Ledger, home: Path) -> None:
    take(ledger, [dicom(number=1, patient="A"), dicom(number=2, patient="B")])
    entries = ledger.quarantine_entries()
    assert len(entries) == 2
    for entry in entries:
        with pytest.raises(Refused, match="cannot be released"):
            release(ledger, entry.key, "someone", "because")
        assert discard(ledger, entry.key, "someone", "sent again under one patient") == 1
    zone = home / "identified"
    assert not list(zone.rglob("*.dcm")) and not list((zone / "quarantine").rglob("original"))
    assert ledger.quarantined() == {} and ledger.pending_purges() == []
    assert [entry.state for entry in ledger.quarantine_entries(state=None)] == ["discarded"] * 2
    assert take(ledger, stack(slices=2, patient="B")) == ["accepted"] * 2


def test_a_file_that_still_fails_is_not_released(ledger: Ledger) -> None:
    key = accept(b"no dicom at all", ledger, "local", "hospital").key
    assert show(ledger, str(key))["releasable"] is False
    with pytest.raises(Refused):
        release(ledger, str(key), "someone", "because")
    assert ledger.quarantined() == {"not_dicom": 1}


def test_annotations_of_other_systems_go_to_the_annotations_inbox(ledger: Ledger, home: Path) -> None:
    seg = dicom(series="77", SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4", Modality="SEG")
    assert accept(seg, ledger, "local", "hospital").outcome == "annotation"
    assert accept(seg, ledger, "local", "hospital").outcome == "duplicate"
    [path] = (home / "identified" / "inbox" / "annotations" / "hospital@local").iterdir()
    assert path.read_bytes() == seg
    assert ledger.counts()["receiving"] == 0
