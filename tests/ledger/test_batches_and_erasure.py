from __future__ import annotations

import pytest
from arrivals import PaperSpool, arrival, arrive
from sqlalchemy import select

from tasks.domain.errors import WrongUse
from tasks.ledger import Ledger
from tasks.ledger.batches import commitment_of
from tasks.ledger.tables import studies


def test_a_batch_claims_all_that_is_complete_and_commits_to_it(ledger: Ledger) -> None:
    keys = arrive(ledger, "1.1", "1.2", "1.3")
    arrive(ledger, "1.4", complete=False)
    batch = ledger.claim_batch("one")
    assert batch == "batch-000001"
    rows = ledger.batch_rows(batch)
    assert [set(row) for row in rows] == [{"commitment", "version", "batch", "origin"}] * 3
    assert rows == sorted(rows, key=lambda row: row["commitment"])
    found = [ledger.resolve(row["commitment"]) for row in rows]
    assert {version.row_key for version in found if version} == set(keys)
    with ledger.engine.connect() as conn:
        for row in conn.execute(select(studies).where(studies.c.batch == batch)):
            salt = bytes.fromhex(row.salt)
            assert len(salt) == 32
            assert row.commitment == commitment_of(salt, row.site, row.study_uid, row.version, row.digest)
    assert ledger.resolve("0" * 64) is None


def test_a_batch_whose_manifest_was_never_written_is_found_again(ledger: Ledger) -> None:
    arrive(ledger, "1.1")
    batch = ledger.claim_batch("one who died")
    arrive(ledger, "1.2")
    assert ledger.claim_batch("the next") == batch
    assert ledger.batches(unfinished=True) == [batch]
    ledger.batch_written(str(batch))
    assert ledger.claim_batch("the next") == "batch-000002"
    for name in ledger.batches():
        ledger.finish_batch(name)
    assert ledger.batches(unfinished=True) == []
    assert ledger.claim_batch("the next") is None
    assert ledger.batches() == ["batch-000001", "batch-000002"]


def test_a_number_that_stands_on_disk_is_not_given_twice(ledger: Ledger) -> None:
    arrive(ledger, "1.1")
    assert ledger.claim_batch("restored", after=7) == "batch-000008"


def test_an_unknown_batch_is_wrong_use(ledger: Ledger) -> None:
    with pytest.raises(WrongUse, match="no batch"):
        ledger.finish_batch("batch-000099")


def test_erasure_takes_rows_salts_and_names_the_files(ledger: Ledger) -> None:
    [kept] = arrive(ledger, "1.1", patient="PAT-1")
    [gone] = arrive(ledger, "1.2", patient="PAT-2")
    batch = str(ledger.claim_batch("one"))
    ledger.receive([arrival("1.2", 9, patient="PAT-2")], PaperSpool())
    ledger.quarantine(gone, "burned_in_text")
    for n, site in enumerate(("local", "local", "elsewhere")):
        ledger.hold_file(
            "bad_archive", "", f"{n:064d}", lambda key: f"quarantine/{key}.zip", site=site, origin="folder"
        )
    version = ledger.get(gone)
    assert version is not None and version.commitment is not None
    plan = ledger.erase(patient_id="PAT-2", site="local", dry_run=True)
    assert ledger.get(gone) is not None
    erased = ledger.erase(patient_id="PAT-2", site="local")
    assert erased == plan
    assert len(erased.row_keys) == 2
    assert (erased.commitments, erased.batches) == ((version.commitment,), (batch,))
    assert len(erased.paths) == 5
    assert len(erased.quarantine) == 1
    assert erased.unnamed == 2  # zips that nobody could open: nobody knows whose they are
    assert ledger.resolve(version.commitment) is None
    assert ledger.find("1.2") == []
    assert ledger.get(kept) is not None
    assert ledger.pending_purges() == list(erased.paths)
    ledger.purged(list(erased.paths))
    assert ledger.pending_purges() == []
    assert ledger.erase(patient_id="PAT-2").row_keys == ()
    assert ledger.erase(patient_id="PAT-2").unnamed == 3
    with pytest.raises(WrongUse):
        ledger.erase()


def test_an_erased_salt_is_not_left_in_the_file() -> None:
    with Ledger.open() as ledger:
        [key] = arrive(ledger, "1.2.999", patient="ERASE-ME-7")
        ledger.claim_batch("one")
        with ledger.engine.connect() as conn:
            salt = str(conn.execute(select(studies.c.salt).where(studies.c.row_key == key)).scalar())
        files = [ledger.identified / name for name in ("ledger.sqlite", "ledger.sqlite-wal")]
        before = b"".join(path.read_bytes() for path in files)
        assert salt.encode() in before and b"ERASE-ME-7" in before
        ledger.erase("1.2.999")
        after = b"".join(path.read_bytes() for path in files if path.exists())
        assert salt.encode() not in after
        assert b"ERASE-ME-7" not in after
