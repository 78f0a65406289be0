"""`Ledger`: the database opened, and everything that can be asked of it or told to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine

from tasks.domain.settings import Settings
from tasks.ledger import arrivals, purges, runs, studies
from tasks.ledger import batches as claims
from tasks.ledger import quarantine as holds
from tasks.ledger.engine import connect


@dataclass(frozen=True)
class Ledger:
    """Safe to share between threads; another process opens its own. `identified` is the absolute identified zone."""

    engine: Engine
    identified: Path

    @staticmethod
    def open(url: str | None = None) -> Ledger:
        """The ledger at `url`, else at OSTEOFLOW_LEDGER_URL, else in OSTEOFLOW_HOME; made and migrated on first use."""
        settings = Settings().ensure()
        identified = settings.identified.resolve()
        return Ledger(connect(url or settings.ledger_url, identified), identified)

    def close(self) -> None:
        self.engine.dispose()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def relative(self, path: Path) -> str:
        """`path` as the database holds it: relative to the identified zone when it is inside."""
        return path.relative_to(self.identified).as_posix() if path.is_relative_to(self.identified) else str(path)

    def compact(self) -> None:
        """Leave no deleted content in SQLite's write-ahead log. (Postgres: autovacuum.)"""
        if self.engine.dialect.name == "sqlite":
            with self.engine.connect() as conn:
                raw = conn.connection.driver_connection
                if raw is not None:
                    raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()

    # Arrival
    receive = arrivals.receive
    get = studies.get
    resolve = studies.resolve
    find = studies.find
    of_patient = studies.of_patient
    current = studies.current
    counts = studies.counts
    waiting = studies.waiting
    geometry = studies.geometry
    unknown_files = studies.unknown_files
    explain = studies.explain
    declare = studies.declare
    complete = studies.complete

    # The arrival loop
    ready = studies.ready
    lease = studies.lease
    extend_lease = studies.extend_lease
    release_lease = studies.release_lease
    release_leases = studies.release_leases
    mark_arrived = studies.mark_arrived
    mark_scored = studies.mark_scored
    not_scored = studies.not_scored
    mark_purged = studies.mark_purged
    purged_studies = studies.purged_studies
    done_before = studies.done_before
    unscored = studies.unscored

    # Quarantine
    quarantine = holds.quarantine_
    give_up = holds.give_up
    hold_file = holds.hold_file
    quarantined = holds.quarantined
    quarantine_entries = holds.quarantine_entries
    quarantine_entry = holds.quarantine_entry
    release = arrivals.release
    discard = holds.discard
    withdraw = arrivals.withdraw

    # The dataset loop
    claim_batch = claims.claim_batch
    batch_written = claims.batch_written
    batch_rows = claims.batch_rows
    batches = claims.batch_ids
    finish_batch = claims.finish_batch
    erase = claims.erase
    pending_purges = purges.pending_purges
    purged = purges.purged

    # Runs, notes and words
    start_run = runs.start_run
    end_run = runs.end_run
    last_run = runs.last_run
    run_seconds_since = runs.run_seconds_since
    remember = runs.remember
    recall = runs.recall
    remembered_at = runs.remembered_at
    new_hips_since = runs.new_hips_since
    oldest_waiting = runs.oldest_waiting
    first_study_at = runs.first_study_at
    last_study_at = runs.last_study_at
    waiting_for = runs.waiting_for
