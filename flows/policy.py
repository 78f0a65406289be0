"""When the dataset loop should run, and what is silent: counted from the ledger and from the imports of annotations."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.domain.params import Section, load
from tasks.ledger import Ledger
from tasks.store.files import read_json

if TYPE_CHECKING:
    import pandas as pd

LAST_LABEL = "last label"
"""Note of the ledger: when annotations came last."""
LEARNT = "imports learnt from"
"""Note of the ledger: the imports of annotations that the last finished run had, as a JSON list."""
IMPORTS = Path("data/imports")


class Params(Section):
    """Section `retrain`: how much must be new, and when a run may start."""

    min_new_hips: int
    """Labelled hip-visits with something new, images or labels, before a run is worth it."""
    on_drift: bool
    """A drift alarm makes a run due with any new hips at all."""
    budget_hours: float | None
    """Of runs in any seven days, or null."""
    cool_down_hours: float
    """At least this long after the end of the last run."""
    quiet_hours: tuple[int, int] | None
    """(from, to) local hours in which no run starts, or null."""
    silence_days: float
    """No study, no label or no run for this long is an alarm that `status` shows."""


def due(ledger: Ledger, params: Params | None = None, now: datetime | None = None) -> tuple[bool, str]:
    """Whether a run should start now, and the reason in words."""
    params = params or load("retrain", Params)
    now = now or datetime.now()
    new = new_labelled_hips(ledger)
    text = f"{new} new labelled hips"
    drifted = params.on_drift and ledger.new_hips_since() > 0 and _drift_alarm()
    if new < params.min_new_hips and not drifted:
        return False, f"{text}, {params.min_new_hips} needed"
    last = ledger.last_run()
    if last and last["ended"] and last["status"] == "finished":
        since = (now.timestamp() - last["ended"]) / 3600
        if 0 <= since < params.cool_down_hours:  # an end in the future: the clock was set back since
            return False, f"{text}, but the last run ended {since:.1f} h ago (cool-down {params.cool_down_hours} h)"
    if params.quiet_hours:
        start, end = params.quiet_hours
        inside = start <= now.hour < end if start <= end else now.hour >= start or now.hour < end
        if inside:
            return False, f"{text}, but these are quiet hours ({start} to {end})"
    if params.budget_hours is not None:
        spent = ledger.run_seconds_since(now.timestamp() - 7 * 86400) / 3600
        if spent >= params.budget_hours:
            return False, f"{text}, but runs of the last 7 days took {spent:.1f} of {params.budget_hours} h"
    if drifted and new < params.min_new_hips:
        return True, f"{text} and a drift alarm"
    return True, f"{text}, at least {params.min_new_hips} asked for"


def new_labelled_hips(ledger: Ledger) -> int:
    """Hip-visits that are known, usable and labelled, where the study or an import with a label of it is new since the
    last finished run. A failed run leaves both new."""
    imports = sorted(IMPORTS.glob("*/labels.parquet"))
    learnt = set(json.loads(ledger.recall(LEARNT) or "[]"))
    if not imports or not (ledger.new_hips_since() or {path.parent.name for path in imports} - learnt):
        return 0
    # This is asked every ten minutes by a process of its own, to which nothing is new most of the time.
    import pandas as pd

    from flows import known
    from tasks.annotate.params import Params as Annotate
    from tasks.keys import Keys

    hips = known.hips()
    if hips.empty:
        return 0
    labels = [
        pd.read_parquet(path, columns=["subject", "study", "date", "side"]).assign(source=path.parent.name)
        for path in imports
    ]
    rows = pd.concat(labels, ignore_index=True)
    keys = Keys.open()
    unfinished = {keys.uid(version.study_uid) for version in ledger.current("complete", "claimed")}
    usable = hips.loc[hips["status"] == "ok", ["subject", "study", "side", "date"]]
    named = rows.loc[rows["study"].notna(), ["study", "side", "source"]].merge(usable, on=["study", "side"])
    dated = rows.loc[rows["study"].isna() & rows["date"].notna(), ["subject", "side", "date", "source"]].merge(
        usable, on=["subject", "side"], suffixes=("_said", "")
    )
    if len(dated):
        apart = (_days(dated["date_said"]) - _days(dated["date"])).abs().dt.days
        dated = dated[apart <= load("annotate", Annotate).window_days]
    found = pd.concat([named, dated])
    fresh = found["study"].isin(unfinished) | ~found["source"].isin(learnt)
    return len(found.loc[fresh, ["study", "side"]].drop_duplicates())


def _days(dates: pd.Series) -> pd.Series:
    import pandas as pd

    return pd.to_datetime(dates.astype(str).str.replace("-", ""), format="%Y%m%d", errors="coerce")


def alarms(ledger: Ledger, params: Params | None = None, now: datetime | None = None) -> list[str]:
    """Silence in words: what has not happened for longer than it should. Nothing is silent before a first study."""
    params = params or load("retrain", Params)
    at = (now or datetime.now()).timestamp()
    first, last = ledger.first_study_at(), ledger.last_run() or {}
    if first is None:
        return []
    found = []
    for what, seen in (
        ("study", ledger.last_study_at()),
        ("label", ledger.remembered_at(LAST_LABEL)),
        ("run", at if last.get("status") == "running" else last.get("ended")),
    ):
        silent = (at - (seen or first)) / 86400
        if silent > params.silence_days:
            found.append(f"no {what} for {silent:.0f} days (alarm after {params.silence_days:.0f})")
    return found


def _drift_alarm() -> bool:
    path = Path("reports/drift.json")
    return path.exists() and read_json(path).get("status") == "alarm"
