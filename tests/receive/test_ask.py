"""The declared count by C-FIND: of a PACS of pynetdicom's, whose answers are made here, and of a real Orthanc."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from certificate import certificate
from dicom_files import stack
from pydicom import Dataset
from pynetdicom import AE, evt

from tasks.domain.errors import Unavailable, WrongUse
from tasks.domain.settings import Settings
from tasks.ledger import Ledger
from tasks.receive import Params, accept, settle
from tasks.receive.ask import STUDY_ROOT_FIND, Asking, Pacs
from tasks.receive.tls import to_the_pacs, to_us

STUDY = "1.2.3.1"


def series(modality: str, count: int | None) -> Dataset:
    one = Dataset()
    one.SeriesInstanceUID, one.Modality = f"{STUDY}.{modality}", modality
    if count is not None:
        one.NumberOfSeriesRelatedInstances = count
    return one


@contextmanager
def pacs(
    answers: list[Dataset],
    asked: list[str],
    last: int = 0x0000,
    theirs: ssl.SSLContext | None = None,
    ours: ssl.SSLContext | None = None,
) -> Iterator[Pacs]:
    def find(event: Any) -> Iterator[tuple[int, Dataset | None]]:
        asked.append(event.identifier.StudyInstanceUID)
        assert event.identifier.QueryRetrieveLevel == "SERIES"
        yield from ((0xFF00, one) for one in answers)
        yield last, None

    ae = AE(ae_title="PACS")
    ae.require_called_aet = True
    ae.add_supported_context(STUDY_ROOT_FIND)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_FIND, find)], ssl_context=theirs)
    try:
        yield Pacs.named(f"PACS@127.0.0.1:{server.server_address[1]}", "OSTEOFLOW", ours)
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


def test_a_pacs_that_speaks_tls_is_asked_by_tls_and_only_where_its_certificate_is_known(
    tmp_path: Path,
) -> None:
    for name in ("ours", "theirs", "elsewhere"):
        (tmp_path / name).mkdir()
    ours, our_key = certificate(tmp_path / "ours")
    theirs, their_key = certificate(tmp_path / "theirs", "127.0.0.1")
    elsewhere, their_other_key = certificate(tmp_path / "elsewhere", "pacs.example")
    settings = Settings()
    us = settings.model_copy(update={"dicom_tls_cert": ours, "dicom_tls_key": our_key, "dicom_query_tls_ca": theirs})
    them = {"dicom_tls_cert": theirs, "dicom_tls_key": their_key, "dicom_tls_ca": ours}
    door = to_us(settings.model_copy(update=them))
    with pacs([series("MR", 5)], [], theirs=door, ours=to_the_pacs(us)) as there:
        assert there.counts([STUDY]) == {STUDY: 5}
    with pacs([series("MR", 5)], [], theirs=door) as there, pytest.raises(Unavailable):
        there.counts([STUDY])
    wrong = us.model_copy(update={"dicom_query_tls_ca": ours})
    with pacs([series("MR", 5)], [], theirs=door, ours=to_the_pacs(wrong)) as there:
        with pytest.raises(Unavailable, match="certificate is not of our CA"):
            there.counts([STUDY])
    known = us.model_copy(update={"dicom_query_tls_ca": elsewhere})
    other = to_us(settings.model_copy(update={"dicom_tls_cert": elsewhere, "dicom_tls_key": their_other_key}))
    with pacs([series("MR", 5)], [], theirs=other, ours=to_the_pacs(known)) as there, pytest.raises(Unavailable):
        there.counts([STUDY])  # a certificate of that CA which names another host
    with pytest.raises(WrongUse, match="QUERY_TLS_CA cannot be read"):
        to_the_pacs(us.model_copy(update={"dicom_query_tls_ca": tmp_path / "none.pem"}))
