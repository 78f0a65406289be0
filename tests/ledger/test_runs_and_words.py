from __future__ import annotations

import time

from arrivals import PaperSpool, arrival, arrive

from tasks.ledger import Ledger


def test_runs_are_kept_and_a_run_that_vanished_is_crashed(ledger: Ledger) -> None:
    assert ledger.last_run() is None
    dead = ledger.start_run()
    run = ledger.start_run(batch="batch-000001")
    ledger.end_run(run, "finished", "all stages", lineage="abc", model="1")
    last = ledger.last_run()
    assert last is not None
    assert (last["id"], last["status"], last["why"], last["lineage"], last["model"]) == (
        run, "finished", "all stages", "abc", "1",
    )  # fmt: skip
    crashed = ledger.last_run("crashed")
    assert crashed is not None and crashed["id"] == dead


def test_notes_outlive_the_process(ledger: Ledger) -> None:
    assert ledger.recall("orthanc") is None
    ledger.remember("orthanc", "12")
    ledger.remember("orthanc", "13")
    assert ledger.recall("orthanc") == "13"
    at = ledger.remembered_at("orthanc")
    assert at is not None and abs(at - time.time()) < 60


def test_hips_that_no_run_has_finished_with(ledger: Ledger) -> None:
    arrive(ledger, "1.1", "1.2")
    assert ledger.new_hips_since() == 4
    batch = str(ledger.claim_batch("run that fails"))
    ledger.batch_written(batch)
    assert ledger.new_hips_since() == 4
    ledger.finish_batch(batch)
    assert ledger.new_hips_since() == 0
    assert ledger.new_hips_since(0.0) == 4
    assert ledger.new_hips_since(time.time()) == 0


def test_the_ledger_says_what_it_waits_for(ledger: Ledger) -> None:
    assert ledger.waiting_for() == "new studies"
    assert ledger.oldest_waiting() is None
    [key] = arrive(ledger, "1.1", complete=False)
    assert ledger.waiting_for() == "the quiet period of 1 study"
    ledger.explain(key, "slices missing in 1 of 2 series")
    assert ledger.waiting_for() == "the rest of 1 study (slices missing in 1 of 2 series)"
    ledger.receive([arrival("1.1", 7)], PaperSpool())
    assert ledger.waiting_for() == "the quiet period of 1 study"
    ledger.complete(key)
    assert ledger.waiting_for() == "the arrival loop to take 1 study"
    ledger.lease(owner="a", seconds=60)
    assert ledger.waiting_for() == "the arrival loop, which is at 1 study"
    ledger.mark_arrived(key)
    assert ledger.waiting_for() == "a dataset run to claim 1 study"
    oldest = ledger.oldest_waiting()
    assert oldest is not None and oldest["row_key"] == key
    batch = str(ledger.claim_batch("run"))
    assert ledger.waiting_for() == "a dataset run to finish batch-000001"
    ledger.finish_batch(batch)
    assert ledger.waiting_for() == "new studies"
