from __future__ import annotations

import itertools
import time

import pytest
from arrivals import PaperSpool, arrival, arrive
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tasks.ledger import STATES, Ledger
from tasks.ledger.tables import FORWARD


def test_a_study_goes_through_its_life_and_is_counted_in_one_state(ledger: Ledger) -> None:
    [key] = arrive(ledger, "1.2.3", complete=False)
    assert ledger.counts() == {"receiving": 1, "complete": 0, "claimed": 0, "done": 0, "quarantined": 0}
    assert ledger.complete(key)
    assert ledger.counts()["complete"] == 1
    batch = ledger.claim_batch("test")
    assert batch == "batch-000001"
    assert ledger.counts()["claimed"] == 1
    ledger.finish_batch(batch)
    ledger.finish_batch(batch)
    assert ledger.counts() == {"receiving": 0, "complete": 0, "claimed": 0, "done": 1, "quarantined": 0}
    version = ledger.get(key)
    assert version is not None
    assert (version.state, version.batch, version.version, version.current) == ("done", batch, 1, True)
    assert "PAT-1" not in repr(version)
    assert "1.2.3" not in repr(version)


def test_no_state_goes_back_whoever_asks(ledger: Ledger) -> None:
    """Held by a trigger: not even SQL past this code can do it."""
    for before, after in itertools.product(STATES, STATES):
        [key] = arrive(ledger, f"1.{STATES.index(before)}.{STATES.index(after)}", complete=False)
        path = {"receiving": (), "complete": ("complete",), "claimed": ("complete", "claimed")}
        path |= {"done": ("complete", "claimed", "done"), "quarantined": ("quarantined",)}
        for state in path[before]:
            _force(ledger, key, state)
        if after == before or after in FORWARD[before]:
            _force(ledger, key, after)
        else:
            with pytest.raises(DBAPIError, match="only moves forward"):
                _force(ledger, key, after)


def _force(ledger: Ledger, key: str, state: str) -> None:
    with ledger.engine.connect().execution_options(writing=True) as conn, conn.begin():
        conn.execute(text("UPDATE studies SET state = :state WHERE row_key = :key"), {"state": state, "key": key})


def test_what_was_judged_of_a_study_is_undone_by_a_file_that_came_meanwhile(ledger: Ledger) -> None:
    [key] = arrive(ledger, "1.2.3", complete=False)
    [before] = ledger.waiting(time.time())
    ledger.receive([arrival(number=9)], PaperSpool())
    assert not ledger.complete(key, before)
    assert not ledger.explain(key, "slices missing in 1 of 1 series", before)
    assert not ledger.give_up(key, "incomplete_series", "slices missing in 1 of 1 series", before)
    assert ledger.waiting_for() == "the quiet period of 1 study"
    assert ledger.quarantined() == {}
    [after] = ledger.waiting(time.time())
    assert ledger.complete(key, after)
    assert not ledger.complete(key)


def test_what_was_judged_of_a_study_is_undone_by_a_count_that_was_told_meanwhile(ledger: Ledger) -> None:
    [key] = arrive(ledger, "1.2.3", complete=False)
    ledger.declare(key, 9)
    [before] = ledger.waiting(time.time())
    ledger.declare(key, 3)
    assert not ledger.explain(key, "3 of 9 declared files", before)
    [after] = ledger.waiting(time.time())
    assert after["waiting"] is None
    assert ledger.give_up(key, "incomplete_series", "slices missing in 1 of 1 series", after)
    assert ledger.quarantined() == {"incomplete_series": 1}
    assert ledger.counts()["quarantined"] == 1


def test_the_digest_is_of_the_files_in_any_order(ledger: Ledger) -> None:
    files = [arrival(number=number) for number in (1, 2, 3)]
    [a] = {verdict.row_key for verdict in ledger.receive(files, PaperSpool())}
    other = [arrival(number=number, site="elsewhere") for number in (3, 1, 2)]
    [b] = {verdict.row_key for verdict in ledger.receive(other, PaperSpool())}
    for key in (a, b):
        ledger.complete(str(key))
    first, second = ledger.get(str(a)), ledger.get(str(b))
    assert first is not None and second is not None
    assert first.digest == second.digest
    assert first.digest is not None and len(first.digest) == 64
    assert a != b


def test_a_late_file_makes_a_version_that_supersedes(ledger: Ledger) -> None:
    [key] = arrive(ledger, "1.2.3", files=3)
    batch = ledger.claim_batch("test")
    [verdict] = ledger.receive([arrival(number=4)], PaperSpool())
    assert verdict.outcome == "accepted"
    old, new = ledger.find("1.2.3")
    assert (old.row_key, old.version, old.current, old.state) == (key, 1, False, "claimed")
    assert (new.row_key, new.version, new.current, new.state, new.n_files) == (verdict.row_key, 2, True, "receiving", 4)
    assert {file.sop_uid for file in old.files} < {file.sop_uid for file in new.files}
    assert ledger.counts() == {"receiving": 1, "complete": 0, "claimed": 0, "done": 0, "quarantined": 0}
    ledger.finish_batch(str(batch))
    assert ledger.complete(new.row_key)
    assert ledger.claim_batch("test") == "batch-000002"


def test_an_older_version_that_no_batch_took_is_not_claimed(ledger: Ledger) -> None:
    arrive(ledger, "1.2.3")
    ledger.receive([arrival(number=9)], PaperSpool())
    assert ledger.claim_batch("test") is None


def test_duplicates_change_nothing_and_other_bytes_are_refused(ledger: Ledger) -> None:
    [key] = arrive(ledger, "1.2.3")
    before = ledger.get(key)
    again, other = ledger.receive([arrival(number=1), arrival(number=2, sha256="f" * 64)], PaperSpool())
    assert (again.outcome, again.row_key) == ("duplicate", key)
    assert (other.outcome, other.reason) == ("refused", "duplicate_sop_other_bytes")
    assert ledger.receive([arrival(number=2, sha256="f" * 64)], PaperSpool(same=True))[0].outcome == "duplicate"
    assert ledger.get(key) == before


@pytest.mark.parametrize("state", ["receiving", "complete"])
def test_two_patients_in_a_study_stop_all_of_it(ledger: Ledger, state: str) -> None:
    [key] = arrive(ledger, "1.2.3", complete=state == "complete")
    verdicts = ledger.receive([arrival(number=7, patient="PAT-2"), arrival(number=8)], PaperSpool())
    assert [verdict.reason for verdict in verdicts] == ["two_patients_in_study"] * 2
    assert ledger.counts()["quarantined"] == 1
    assert ledger.quarantined() == {"two_patients_in_study": 1}
    [entry] = ledger.quarantine_entries()
    assert entry.row_key == key
    ledger.discard(entry.key, "someone", "sent again under one patient")
    [fresh] = ledger.receive([arrival(number=1, patient="PAT-2")], PaperSpool())
    assert fresh.outcome == "accepted"
    versions = ledger.find("1.2.3")
    assert [(v.version, v.n_files) for v in versions] == [(1, 0), (2, 1)]


def test_another_patient_for_a_claimed_study_is_refused_and_the_study_stays(ledger: Ledger) -> None:
    arrive(ledger, "1.2.3")
    ledger.claim_batch("test")
    [verdict] = ledger.receive([arrival(number=7, patient="PAT-2")], PaperSpool())
    assert verdict.reason == "two_patients_in_study"
    assert ledger.counts()["claimed"] == 1


def test_a_phantom_never_joins_a_hospital_study(ledger: Ledger) -> None:
    arrive(ledger, "1.2.3")
    [verdict] = ledger.receive([arrival(number=7, origin="phantom")], PaperSpool())
    assert verdict.reason == "mixed_origin"


def test_a_mark_comes_too_late_for_a_study_that_was_quarantined_or_erased(ledger: Ledger) -> None:
    [key] = arrive(ledger, "1.2.3")
    assert ledger.mark_arrived(key)
    assert not ledger.mark_purged(key)
    ledger.quarantine(key, "burned_in_text")
    assert not ledger.mark_arrived(key)
    ledger.erase("1.2.3")
    assert not ledger.mark_scored(key, "1")


def test_quarantine_of_a_done_study_is_an_entry_and_no_step_back(ledger: Ledger) -> None:
    [key] = arrive(ledger, "1.2.3")
    ledger.finish_batch(str(ledger.claim_batch("test")))
    first = ledger.quarantine(key, "burned_in_text", "seen later")
    assert ledger.quarantine(key, "burned_in_text", "seen later") == first
    assert ledger.counts()["done"] == 1
    assert ledger.quarantined() == {"burned_in_text": 1}
