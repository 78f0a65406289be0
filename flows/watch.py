"""When the dataset loop should run: counted from the ledger, with the policy of params.yaml (section `retrain`)."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any

import prefect

from tasks.domain.params import Section, load
from tasks.ledger import Ledger

log = logging.getLogger("osteoflow.watch")


class Params(Section):
    """Section `retrain`: how much must be new, and when a run may start."""

    min_new_hips: int
    """Hips of studies that no dataset run has finished with before a run is worth it."""
    cool_down_hours: float
    """At least this long after the end of the last run."""
    quiet_hours: tuple[int, int] | None
    """(from, to) local hours in which no run starts, or null."""
    silence_days: float
    """No study for this long is an alarm that `status` shows."""


def due(ledger: Ledger, params: Params | None = None, now: datetime | None = None) -> tuple[bool, str]:
    """Whether a run should start now, and the reason in words."""
    params = params or load("retrain", Params)
    now = now or datetime.now()
    new = ledger.new_hips_since()
    if new < params.min_new_hips:
        return False, f"{new} new hips, {params.min_new_hips} needed"
    last = ledger.last_run()
    if last and last["ended"] and last["status"] == "finished":
        since = (now.timestamp() - last["ended"]) / 3600
        if since < params.cool_down_hours:
            return (
                False,
                f"{new} new hips, but the last run ended {since:.1f} h ago (cool-down {params.cool_down_hours} h)",
            )
    if params.quiet_hours:
        start, end = params.quiet_hours
        inside = start <= now.hour < end if start <= end else now.hour >= start or now.hour < end
        if inside:
            return False, f"{new} new hips, but these are quiet hours ({start} to {end})"
    return True, f"{new} new hips, at least {params.min_new_hips} asked for"


@prefect.flow(name="watch", persist_result=False)
def watch() -> dict[str, Any]:
    """Start the dataset loop when it is due."""
    ledger = Ledger.open()
    start, why = due(ledger)
    log.info("%s: %s", "run" if start else "wait", why)
    if not start:
        return {"started": False, "why": why}
    from flows.retrain import run

    return {"started": True, "why": why, "version": run().get("version")}
