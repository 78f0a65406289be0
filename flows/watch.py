"""The flow that starts the dataset loop when the policy says so."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

import prefect

from flows.alone import Busy, alone
from flows.policy import Params, alarms, due
from tasks.domain.params import load
from tasks.ledger import Ledger
from tasks.receive import Params as Receive
from tasks.receive import retain

__all__ = ["Params", "alarms", "due", "watch"]

log = logging.getLogger("osteoflow.watch")


@prefect.flow(name="watch", persist_result=False)
def watch(force: bool = False) -> dict[str, Any]:
    """Start the dataset loop when it is due, or now with `force`; say what is silent; keep the retention."""
    ledger = Ledger.open()
    for alarm in alarms(ledger):
        log.warning("%s", alarm)
    with suppress(Busy), alone():  # a dataset run that is going on may still read them
        retain(ledger, load("receive", Receive).keep_originals_days)
    start, why = (True, "asked for") if force else due(ledger)
    log.info("%s: %s", "run" if start else "wait", why)
    if not start:
        return {"started": False, "why": why}
    from flows.retrain import run  # DVC and what it brings: seconds, every ten minutes, for a run that is not due

    try:
        return {"started": True, "why": why, "version": run(force=force).get("version")}
    except Busy as error:
        if force:
            raise
        return {"started": False, "why": str(error)}
