"""Servers that offer: Orthanc's change feed, followed from a stored position, and DICOMweb, polled.

Both are asked once a call (`follow_orthanc`, `poll_dicomweb`), take what is new through the same intake as everything
else, and remember how far they came only after it is filed: a call that dies is repeated, and repeats are duplicates.
"""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.client import HTTPException, HTTPResponse
from typing import Any
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

from tasks.domain.errors import Unavailable, WrongUse
from tasks.ledger import Ledger
from tasks.receive.folder import CHUNK, CHUNK_BYTES, Summary
from tasks.receive.intake import Intake
from tasks.receive.judge import Received, images_in
from tasks.receive.params import Params
from tasks.store.dicom import is_uid

TIMEOUT_S = 60
PAGE = 100
BLOCK = 1 << 16
MOST_PART_BYTES = 4 << 30
STUDY_UID, FILES_IN_STUDY, FILES_IN_SERIES, MODALITY = "0020000D", "00201208", "00201209", "00080060"


class Server:
    """One HTTP origin. Credentials in its URL go into a header, and never into a message."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise WrongUse("a server's URL is http(s)://[user:password@]host[:port]/…")
        place = parts.hostname if parts.port is None else f"{parts.hostname}:{parts.port}"
        self.base = urlunsplit((parts.scheme, place, parts.path.rstrip("/"), "", ""))
        self.headers: dict[str, str] = {}
        if parts.username is not None:
            pair = f"{parts.username}:{parts.password or ''}".encode()
            self.headers["Authorization"] = "Basic " + base64.b64encode(pair).decode()

    def open(self, path: str, accept: str) -> HTTPResponse | None:
        """The response to a GET, or None for 404 and 204. Raises Unavailable."""
        request = urllib.request.Request(self.base + path, headers=self.headers | {"Accept": accept})
        try:
            response: HTTPResponse = urllib.request.urlopen(request, timeout=TIMEOUT_S)
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise Unavailable(f"{self.base} answers {error.code}; is its user allowed to read?") from None
        except (OSError, HTTPException) as error:
            raise Unavailable(f"{self.base} does not answer ({type(error).__name__})") from None
        return None if response.status == 204 else response

    def json(self, path: str, accept: str = "application/json") -> Any:
        response = self.open(path, accept)
        if response is None:
            return None
        with response:
            try:
                return json.loads(response.read())
            except (ValueError, OSError, HTTPException):
                raise Unavailable(f"{self.base} answers something that is not JSON") from None

    def bytes(self, path: str, accept: str) -> bytes | None:
        response = self.open(path, accept)
        if response is None:
            return None
        with response:
            try:
                return response.read()
            except (OSError, HTTPException) as error:
                raise Unavailable(f"{self.base} stopped in the middle ({type(error).__name__})") from None


# ---- Orthanc --------------------------------------------------------------------------------------------------------


def follow_orthanc(url: str, ledger: Ledger, site: str, origin: str) -> Summary:
    """Take the instances that are new in Orthanc since the last call. Its StableStudy says how many files a study has:
    quiet, not complete, so it is one of the three conditions and not the word that ends a study."""
    server = Server(url)
    name = f"orthanc {server.base}"
    summary = Summary()
    with Intake(ledger) as intake:
        while True:
            since = int(ledger.recall(name) or 0)
            page = server.json(f"/changes?since={since}&limit={PAGE}")
            if not isinstance(page, dict) or not isinstance(page.get("Changes"), list):
                raise Unavailable(f"{server.base} is no Orthanc: it has no list of changes")
            last = int(page.get("Last", since))
            if last < since:  # its database was made anew: begin again, what is known is a duplicate
                ledger.remember(name, "0")
                continue
            changes = [(change.get("ChangeType"), str(change.get("ID"))) for change in page["Changes"]]
            found = (
                server.bytes(f"/instances/{quote(key, safe='')}/file", "application/dicom")
                for kind, key in changes
                if kind == "NewInstance"
            )
            _take(intake, (data for data in found if data is not None), site, origin, summary)
            for kind, key in changes:
                if kind == "StableStudy":
                    _declare_orthanc(server, key, ledger, site)
            if last != since:
                ledger.remember(name, str(last))
            if page.get("Done", True):
                return summary


def _declare_orthanc(server: Server, key: str, ledger: Ledger, site: str) -> None:
    study = server.json(f"/studies/{quote(key, safe='')}")
    series = server.json(f"/studies/{quote(key, safe='')}/series")
    if isinstance(study, dict) and isinstance(series, list):
        uid = study.get("MainDicomTags", {}).get("StudyInstanceUID", "")
        counts = [(str(one.get("MainDicomTags", {}).get("Modality", "")), len(one["Instances"])) for one in series]
        _declare(ledger, site, str(uid), images_in(counts))


# ---- DICOMweb -------------------------------------------------------------------------------------------------------


def poll_dicomweb(
    url: str, ledger: Ledger, site: str, origin: str, params: Params, now: datetime | None = None
) -> Summary:
    """Ask QIDO-RS for MR studies of the last `dicomweb_days`, and fetch by WADO-RS those whose number of files has
    changed since the last call."""
    server = Server(url)
    since = (now or datetime.now(UTC)) - timedelta(days=params.dicomweb_days)
    summary = Summary()
    with Intake(ledger) as intake:
        for uid, declared in _studies(server, since):
            name = f"dicomweb {server.base} {uid}"
            if declared is not None and ledger.recall(name) == str(declared):
                continue
            before = summary.files
            _take(intake, _parts(server, f"/studies/{uid}"), site, origin, summary)
            if declared is not None:
                _declare(ledger, site, uid, images_in(_series(server, uid)))
            if declared is not None and summary.files - before >= declared:
                ledger.remember(name, str(declared))
    return summary


def _studies(server: Server, since: datetime) -> Iterator[tuple[str, int | None]]:
    """(StudyInstanceUID, number of instances or None), page by page."""
    offset = 0
    while True:
        query = {
            "ModalitiesInStudy": "MR",
            "StudyDate": f"{since:%Y%m%d}-",
            "includefield": FILES_IN_STUDY,
            "limit": PAGE,
            "offset": offset,
        }
        found = server.json(f"/studies?{urlencode(query)}", "application/dicom+json")
        if found is None:
            return
        if not isinstance(found, list):
            raise Unavailable(f"{server.base} is no DICOMweb server: studies are no list")
        for study in found:
            uid, declared = str(_value(study, STUDY_UID)), _value(study, FILES_IN_STUDY)
            if is_uid(uid):
                yield uid, int(declared) if declared is not None else None
        if len(found) < PAGE:
            return
        offset += len(found)


def _series(server: Server, uid: str) -> list[tuple[str, int | None]]:
    """(modality, number of instances or None) of each series of a study."""
    found = server.json(f"/studies/{uid}/series?includefield={FILES_IN_SERIES}", "application/dicom+json")
    counts = [(str(_value(one, MODALITY)), _value(one, FILES_IN_SERIES)) for one in found or []]
    return [(modality, int(count) if count is not None else None) for modality, count in counts]


def _value(study: Any, tag: str) -> Any:
    values = study.get(tag, {}).get("Value") if isinstance(study, dict) else None
    return values[0] if isinstance(values, list) and values else None


def _parts(server: Server, path: str) -> Iterator[bytes]:
    """The DICOM files of a multipart/related answer, one at a time."""
    response = server.open(path, 'multipart/related; type="application/dicom"; transfer-syntax=*')
    if response is None:
        return
    with response:
        boundary = response.headers.get_param("boundary")
        if not boundary:
            raise Unavailable(f"{server.base} answers WADO-RS with no multipart body")
        mark = b"\r\n--" + str(boundary).encode("ascii", "replace")
        rest, ended = b"\r\n", False
        while not ended:
            part, rest, ended = _until(server, response, rest, mark)
            _, blank, body = part.partition(b"\r\n\r\n")
            if blank:
                yield body


def _until(server: Server, response: HTTPResponse, rest: bytes, mark: bytes) -> tuple[bytes, bytes, bool]:
    """Read up to the next boundary: what stood before it, what was read after it, and was it the last?"""
    buffer = bytearray(rest)
    searched = 0
    while (at := buffer.find(mark, searched)) < 0 or len(buffer) < at + len(mark) + 2:
        searched = max(0, len(buffer) - len(mark)) if at < 0 else at
        try:
            block = response.read(BLOCK)
        except (OSError, HTTPException) as error:
            raise Unavailable(f"{server.base} stopped in the middle ({type(error).__name__})") from None
        if not block or len(buffer) > MOST_PART_BYTES:
            raise Unavailable(f"{server.base} stopped in the middle of a multipart answer")
        buffer += block
    after = at + len(mark)
    return bytes(buffer[:at]), bytes(buffer[after:]), buffer[after : after + 2] == b"--"


# ---- both -----------------------------------------------------------------------------------------------------------


def _take(intake: Intake, files: Iterator[bytes], site: str, origin: str, summary: Summary) -> None:
    chunk: list[Received] = []
    spent = 0
    for data in files:
        chunk.append(intake.write(data, site, origin, durable=False))
        spent += len(data)
        if len(chunk) >= CHUNK or spent >= CHUNK_BYTES:
            _flush(intake, chunk, summary)
            spent = 0
    _flush(intake, chunk, summary)


def _flush(intake: Intake, chunk: list[Received], summary: Summary) -> None:
    intake.sync(chunk)
    for outcome in intake.file(chunk):
        summary.add(outcome)
    chunk.clear()


def _declare(ledger: Ledger, site: str, study_uid: str, declared: int | None) -> None:
    for version in ledger.find(study_uid):
        if version.site == site and version.current and version.state == "receiving" and declared:
            ledger.declare(version.row_key, declared)
