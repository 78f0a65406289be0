"""When a dataset run is due: counted from the ledger, debounced by the policy."""

from __future__ import annotations

from datetime import datetime, timedelta
from types import SimpleNamespace

import pytest

from flows.watch import Params, due

NOW = datetime(2026, 11, 23, 14, 0)
POLICY = Params(
    min_new_hips=10, on_drift=True, budget_hours=None, cool_down_hours=12, quiet_hours=None, silence_days=14
)


def ledger(new: int, ended_hours_ago: float | None = None, status: str = "finished") -> SimpleNamespace:
    ended = None if ended_hours_ago is None else (NOW - timedelta(hours=ended_hours_ago)).timestamp()
    last = None if ended is None else {"ended": ended, "status": status}
    return SimpleNamespace(new_hips_since=lambda: new, last_run=lambda: last)


@pytest.mark.parametrize(
    ("new", "ago", "status", "policy", "expected"),
    [
        (9, None, "finished", POLICY, False),
        (10, None, "finished", POLICY, True),
        (10, 3, "finished", POLICY, False),
        (10, 13, "finished", POLICY, True),
        (10, 3, "failed", POLICY, True),
        (10, None, "finished", POLICY.model_copy(update={"quiet_hours": (8, 18)}), False),
        (10, None, "finished", POLICY.model_copy(update={"quiet_hours": (22, 6)}), True),
        (10, None, "finished", POLICY.model_copy(update={"quiet_hours": (13, 2)}), False),
    ],
)
def test_a_run_is_due(new: int, ago: float | None, status: str, policy: Params, expected: bool) -> None:
    start, why = due(ledger(new, ago, status), policy, NOW)
    assert start is expected, why
    assert why
