"""The declared count by C-FIND: of a PACS of pynetdicom's, whose answers are made here, and of a real Orthanc."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from dicom_files import stack
from pydicom import Dataset
from pynetdicom import AE, evt

from tasks.domain.errors import Unavailable, WrongUse
from tasks.ledger import Ledger
from tasks.receive import Params, accept, settle
from tasks.receive.ask import STUDY_ROOT_FIND, Asking, Pacs

STUDY = "1.2.3.1"


def series(modality: str, count: int | None) -> Dataset:
    one = Dataset()
    one.SeriesInstanceUID, one.Modality = f"{STUDY}.{modality}", modality
    if count is not None:
        one.NumberOfSeriesRelatedInstances = count
    return one


@contextmanager
def pacs(answers: list[Dataset], asked: list[str], last: int = 0x0000) -> Iterator[Pacs]:
    def find(event: Any) -> Iterator[tuple[int, Dataset | None]]:
        asked.append(event.identifier.StudyInstanceUID)
        assert event.identifier.QueryRetrieveLevel == "SERIES"
        yield from ((0xFF00, one) for one in answers)
        yield last, None

    ae = AE(ae_title="PACS")
    ae.require_called_aet = True
    ae.add_supported_context(STUDY_ROOT_FIND)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_FIND, find)])
    try:
        yield Pacs.named(f"PACS@127.0.0.1:{server.server_address[1]}", "OSTEOFLOW")
    finally:
        server.shutdown()


def received(ledger: Ledger, slices: int) -> float:
    for data in stack(slices=slices):
        accept(data, ledger, "local", "hospital")
    [row] = ledger.current("receiving")
    return row.last_received


def test_what_the_pacs_counts_is_waited_for(ledger: Ledger, params: Params) -> None:
    answers, asked = [series("MR", 5), series("SEG", 1), series("SR", None)], []  # type: ignore[var-annotated]
    at = received(ledger, 4)
    with pacs(answers, asked) as there:
        asking = Asking(there, ledger, params)
        assert asking(at + 4) == 0 and asked == []  # more may come at any moment
        assert asking(at + 6) == 1 and asking(at + 7) == 0
        assert asked == [STUDY]  # once, while nothing more comes
        assert settle(ledger, params, now=at + 11) == []
        assert ledger.current("receiving")[0].declared == 5
        at = received(ledger, 5)
        asking(at + 6)
        assert asked == [STUDY] * 2
    assert len(settle(ledger, params, now=at + 11)) == 1


@pytest.mark.parametrize("answers", [[], [series("MR", None), series("MR", 3)], [series("SR", 1)]])
def test_a_pacs_that_does_not_count_holds_no_study(answers: list[Dataset], ledger: Ledger, params: Params) -> None:
    at = received(ledger, 4)
    with pacs(answers, []) as there:
        assert Asking(there, ledger, params)(at + 6) == 0
    assert len(settle(ledger, params, now=at + 11)) == 1


def test_a_pacs_that_fails_or_is_away_is_asked_again_after_a_pause(ledger: Ledger, params: Params) -> None:
    at, asked = received(ledger, 4), []  # type: ignore[var-annotated]
    with pacs([], asked, last=0xA700) as there:
        asking = Asking(there, ledger, params)
        with pytest.raises(Unavailable, match="PACS did not answer a C-FIND to its end"):
            asking(at + 6)
        assert asking(at + 7) == 0 and len(asked) == 1
    asking.silent_until = 0.0
    with pytest.raises(Unavailable, match="does not answer"):
        asking(at + 8)
    assert len(settle(ledger, params, now=at + 11)) == 1


@pytest.mark.parametrize("text", ["PACS", "PACS@host", "@host:104", "PACS@host:dicom"])
def test_what_names_no_pacs_is_said(text: str) -> None:
    with pytest.raises(WrongUse, match="AET@host:port"):
        Pacs.named(text, "OSTEOFLOW")
