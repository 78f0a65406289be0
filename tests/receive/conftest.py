from __future__ import annotations

from collections.abc import Iterator

import pytest

from tasks.ledger import Ledger
from tasks.receive import Params


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with Ledger.open() as opened:
        yield opened


@pytest.fixture
def params() -> Params:
    return Params(
        quiet_seconds=10,
        incomplete_after_seconds=1000,
        gap_tolerance=0.5,
        stable_seconds=0,
        poll_seconds=0.05,
        max_member_mb=10,
        max_associations=4,
        disk_reserve_mb=1,
        dicomweb_days=14,
        keep_originals_days=None,
    )
