"""Arrivals for tests of the ledger alone: no file behind them."""

from __future__ import annotations

from typing import Any

from tasks.ledger import Arrival, Ledger, Verdict


class PaperSpool:
    """A spool that only says where a file would be."""

    def __init__(self, same: bool = False) -> None:
        self.is_same = same

    def put(self, index: int, row_key: str) -> str:
        return f"spool/hospital@local/{row_key}/{index}.dcm"

    def carry(self, path: str, row_key: str) -> str | None:
        return f"spool/hospital@local/{row_key}/carried-{path.rpartition('/')[2]}"

    def same(self, index: int, path: str) -> bool:
        return self.is_same

    def sync(self) -> None:
        """Nothing is on disk."""


def arrival(study: str = "1.2.3", number: int = 1, patient: str = "PAT-1", **changes: object) -> Arrival:
    values: dict[str, object] = {
        "site": "local",
        "origin": "hospital",
        "study_uid": study,
        "patient_id": patient,
        "series_uid": f"{study}.1",
        "sop_uid": f"{study}.1.{number}",
        "sha256": f"{number:064x}",
        "size": 100,
        "geometry": "{}",
    }
    return Arrival(**(values | changes))  # type: ignore[arg-type]


def arrive(ledger: Ledger, *studies: str, files: int = 2, complete: bool = True, **changes: object) -> list[str]:
    """Row keys of small studies that have come, in order; complete unless told otherwise."""
    keys = []
    for study in studies:
        arrivals = [arrival(study, number, **changes) for number in range(1, files + 1)]
        verdicts: list[Verdict] = ledger.receive(arrivals, PaperSpool())
        assert {verdict.outcome for verdict in verdicts} == {"accepted"}
        keys.append(str(verdicts[0].row_key))
        if complete:
            assert ledger.complete(keys[-1])
    return keys


# ---- what other processes do; here, because they import it by name ----


def lease_all(url: str, owner: str, taken: Any) -> None:
    """Lease three at a time until nothing is left; put the row keys, then None."""
    with Ledger.open(url) as ledger:
        while leased := ledger.lease(limit=3, owner=owner, seconds=60):
            taken.put([version.row_key for version in leased])
        taken.put(None)


def open_at_once(barrier: Any) -> None:
    barrier.wait(60)
    Ledger.open().counts()
