"""receiving → complete: quiet for a while, no slice missing, and as many files as the sender declared."""

from __future__ import annotations

import time
from collections.abc import Container

from tasks.ledger import Ledger
from tasks.receive.geometry import series_with_gaps
from tasks.receive.params import Params


def settle(
    ledger: Ledger,
    params: Params,
    now: float | None = None,
    force: bool = False,
    only: Container[str] | None = None,
) -> list[str]:
    """Judge every study that is quiet; returns the row keys of those that became complete.

    `force` skips the quiet period only, of all studies or of `only` these: it says that the sender is done (a folder
    was given as a whole), which is not said of what somebody else is sending meanwhile. A study that
    lacks something waits, with the reason in `status`; after `incomplete_after_seconds` it goes to quarantine as
    incomplete_series or fewer_files_than_declared. Nothing is lost by that: a late slice makes a new version with all
    files, and a person may release it as it is. A slice that comes while its study is judged undoes the judgement.
    """
    now = time.time() if now is None else now
    completed: list[str] = []
    quiet_before = now - params.quiet_seconds
    for row in ledger.waiting(now if force else quiet_before):
        forced = force and (only is None or row["row_key"] in only)
        if not forced and quiet_before < row["last_received"] <= now:
            continue
        overdue = row["last_received"] <= now - params.incomplete_after_seconds
        if row["waiting"] and not overdue and not forced:
            continue  # judged before, and nothing came since
        reason, detail = _lacks(ledger, row["row_key"], row["n_files"], row["declared"], params)
        if reason is None:
            if ledger.complete(row["row_key"], row):
                completed.append(row["row_key"])
        elif overdue:
            ledger.give_up(row["row_key"], reason, detail, row)
        elif row["waiting"] != detail:
            ledger.explain(row["row_key"], detail, row)
    return completed


def _lacks(ledger: Ledger, row_key: str, n_files: int, declared: int | None, params: Params) -> tuple[str | None, str]:
    if declared is not None and n_files < declared:
        return "fewer_files_than_declared", f"{n_files} of {declared} declared files"
    lacking, series = series_with_gaps(ledger.geometry(row_key), params.gap_tolerance)
    if lacking:
        return "incomplete_series", f"slices missing in {lacking} of {series} series"
    return None, ""
