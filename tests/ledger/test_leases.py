from __future__ import annotations

import multiprocessing
import time

from arrivals import arrive, lease_all

from tasks.ledger import Ledger


def test_a_lease_is_for_one_and_runs_out(ledger: Ledger) -> None:
    keys = arrive(ledger, "1.1", "1.2", "1.3")
    mine = ledger.lease(limit=2, owner="a", seconds=60)
    assert [version.row_key for version in mine] == keys[:2]
    assert [version.row_key for version in ledger.lease(limit=9, owner="b", seconds=0.01)] == keys[2:]
    time.sleep(0.05)
    assert [version.row_key for version in ledger.lease(limit=9, owner="c", seconds=60)] == keys[2:]
    ledger.release_lease(keys[0], owner="c")
    assert ledger.lease(owner="d", seconds=60) == []
    assert ledger.extend_lease(keys[0], "a", 60)
    assert not ledger.extend_lease(keys[0], "d", 60)
    ledger.release_lease(keys[0])
    assert [version.row_key for version in ledger.lease(owner="d", seconds=60)] == keys[:1]


def test_what_arrived_is_not_leased_again(ledger: Ledger) -> None:
    [key] = arrive(ledger, "1.1")
    ledger.lease(owner="a", seconds=60)
    ledger.mark_arrived(key)
    assert ledger.lease(limit=5, owner="a", seconds=60) == []
    assert [version.row_key for version in ledger.lease(arrived=True, owner="a", seconds=60)] == [key]


def test_scoring_is_asked_for_once_a_model(ledger: Ledger) -> None:
    keys = arrive(ledger, "1.1", "1.2", "1.3")
    for key in keys[:2]:
        ledger.mark_arrived(key)
    assert [version.row_key for version in ledger.unscored("1")] == keys[:2]
    ledger.mark_scored(keys[0], "1")
    assert [version.row_key for version in ledger.unscored("1")] == keys[1:2]
    assert [version.row_key for version in ledger.unscored("2")] == keys[:2]
    ledger.finish_batch(str(ledger.claim_batch("test")))
    assert [version.row_key for version in ledger.unscored("1")] == keys[1:]


def test_two_processes_lease_disjoint_studies(ledger: Ledger) -> None:
    keys = arrive(ledger, *(f"1.{n}" for n in range(40)), files=1)
    url = ledger.engine.url.render_as_string(hide_password=False)
    context = multiprocessing.get_context("spawn")
    taken = context.Queue()
    workers = [context.Process(target=lease_all, args=(url, name, taken)) for name in ("a", "b")]
    for worker in workers:
        worker.start()
    got: list[str] = []
    ended = 0
    while ended < 2:
        item = taken.get(timeout=60)
        ended += item is None
        got += item or []
    for worker in workers:
        worker.join()
    assert sorted(got) == sorted(keys)


def test_a_study_on_which_a_model_failed_too_often_is_left_to_a_person(ledger: Ledger) -> None:
    keys = [arrive(ledger, f"1.{n}")[0] for n in range(3)]
    ledger.claim_batch("one")
    for batch in ledger.batches(unfinished=True):
        ledger.finish_batch(batch)
    ledger.remember("what was learnt from", '["0001-a"]')  # beside a note that is no number
    assert [ledger.not_scored(keys[0], "1") for _ in range(3)] == [1, 2, 3]
    assert ledger.not_scored(keys[1], "1") == 1
    left = {version.row_key for version in ledger.unscored("1", patience=3)}
    assert left == set(keys[1:])
    assert {version.row_key for version in ledger.unscored("1")} == set(keys)
    assert {version.row_key for version in ledger.unscored("2", patience=3)} == set(keys), "another model may try"
    assert len(ledger.unscored("1", limit=1, patience=3)) == 1
