"""How many files a study has, asked of the PACS that sends it: C-FIND at the level of its series (PS3.4 annex C).

The PACS counts everything. What goes to the readers' inbox here (SEG, RTSTRUCT, SR) is no file of a study, so its
series are left out. A PACS that does not count, or does not answer, leaves the count unknown: positions and quiet
decide then.
"""

from __future__ import annotations

import logging
import ssl
import time
from dataclasses import dataclass

from pydicom import Dataset
from pynetdicom import AE

from tasks.domain.errors import Unavailable, WrongUse
from tasks.ledger import Ledger
from tasks.receive.judge import images_in
from tasks.receive.params import Params

log = logging.getLogger("osteoflow.receive")

STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
PENDING, SUCCESS = (0xFF00, 0xFF01), 0x0000
TIMEOUT_S, PAUSE_S = 5.0, 60.0
"""A PACS that does not answer is asked again after a pause: the inbox is not kept waiting for it."""


@dataclass(frozen=True)
class Pacs:
    title: str
    host: str
    port: int
    calling: str
    tls: ssl.SSLContext | None = None

    @classmethod
    def named(cls, text: str, calling: str, tls: ssl.SSLContext | None = None) -> Pacs:
        """`AET@host:port`."""
        title, _, place = text.partition("@")
        host, _, port = place.rpartition(":")
        if not (title and host and port.isdigit()):
            raise WrongUse("OSTEOFLOW_DICOM_QUERY is AET@host:port, the PACS that is asked by C-FIND")
        return cls(title, host.strip("[]"), int(port), calling, tls)

    def counts(self, study_uids: list[str]) -> dict[str, int]:
        """Files of each study that the PACS counts; the others are left out. Raises Unavailable."""
        ae = AE(ae_title=self.calling)
        ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = TIMEOUT_S
        ae.add_requested_context(STUDY_ROOT_FIND)
        secure = None if self.tls is None else (self.tls, self.host)
        association = ae.associate(self.host, self.port, ae_title=self.title, tls_args=secure)
        if not association.is_established:
            why = "" if secure is None else f", or its certificate is not of our CA or does not name {self.host}"
            raise Unavailable(
                f"{self.title} does not answer at {self.host}:{self.port}, or refuses {self.calling}{why}"
            )
        found = {}
        try:
            for uid in study_uids:
                query = Dataset()
                query.QueryRetrieveLevel, query.StudyInstanceUID = "SERIES", uid
                query.SeriesInstanceUID = query.Modality = ""
                query.NumberOfSeriesRelatedInstances = None
                answers = list(association.send_c_find(query, STUDY_ROOT_FIND))
                if not answers or answers[-1][0].get("Status") != SUCCESS:
                    raise Unavailable(f"{self.title} did not answer a C-FIND to its end")
                series = [one for status, one in answers if status.Status in PENDING and one is not None]
                if (count := images_in(map(_said, series))) is not None:
                    found[uid] = count
        finally:
            association.release() if association.is_established else association.abort()
        return found


def _said(series: Dataset) -> tuple[str, int | None]:
    count = series.get("NumberOfSeriesRelatedInstances")
    return str(series.get("Modality", "")), int(count) if count not in (None, "") else None


class Asking:
    """Call it again and again: each study is asked for once after its last file, half of the quiet period later."""

    def __init__(self, pacs: Pacs, ledger: Ledger, params: Params) -> None:
        self.pacs, self.ledger, self.params = pacs, ledger, params
        self.asked: dict[str, float] = {}
        """Row key → when the last file had come."""
        self.silent_until = 0.0

    def __call__(self, now: float | None = None) -> int:
        """How many studies have a count now that they did not have."""
        now = time.time() if now is None else now
        waiting = {row["row_key"]: row for row in self.ledger.waiting(now - self.params.quiet_seconds / 2)}
        self.asked = {key: at for key, at in self.asked.items() if key in waiting}
        fresh = [key for key, row in waiting.items() if self.asked.get(key) != row["last_received"]]
        if not fresh or time.monotonic() < self.silent_until:
            return 0
        versions = [version for version in map(self.ledger.get, fresh) if version is not None]
        try:
            counts = self.pacs.counts(sorted({version.study_uid for version in versions}))
        except (Unavailable, ValueError, RuntimeError):  # whatever pynetdicom makes of an answer: asked again
            self.silent_until = time.monotonic() + PAUSE_S
            raise
        told = 0
        for version in versions:
            count = counts.get(version.study_uid)
            if count is not None and count != version.declared:
                self.ledger.declare(version.row_key, count)
                told += 1
        self.asked |= {key: waiting[key]["last_received"] for key in fresh}
        return told
