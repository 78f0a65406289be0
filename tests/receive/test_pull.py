"""Orthanc's change feed and DICOMweb, against small servers that answer as they do."""

from __future__ import annotations

import hashlib
import json
import threading
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from urllib.parse import parse_qs, urlsplit

import pydicom
import pytest
from dicom_files import dicom, stack

from tasks.domain.errors import Unavailable, WrongUse
from tasks.ledger import Ledger
from tasks.receive import Params, follow_orthanc, poll_dicomweb, settle


class Archive:
    """Files, and what was asked for. `cut` breaks the next answer in the middle."""

    def __init__(self) -> None:
        self.files: list[bytes] = []
        self.changes: list[tuple[str, str]] = []
        self.asked: list[str] = []
        self.cut = False
        self.password: str | None = None

    def add(self, files: list[bytes]) -> None:
        for data in files:
            self.files.append(data)
            self.changes.append(("NewInstance", hashlib.sha1(data).hexdigest()))

    def uid(self, data: bytes) -> str:
        return str(pydicom.dcmread(BytesIO(data)).StudyInstanceUID)

    def series(self, uid: str) -> Counter[str]:
        """Modality → how many files: the archive counts everything that it holds."""
        return Counter(str(pydicom.dcmread(BytesIO(data)).Modality) for data in self.files if self.uid(data) == uid)

    def answer(self, path: str) -> tuple[str, bytes] | None:
        parts = urlsplit(path)
        words = parts.path.strip("/").split("/")
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        if words == ["changes"]:
            since, limit = int(query["since"]), min(int(query["limit"]), 4)
            page = self.changes[since : since + limit]
            last = since + len(page) if page else len(self.changes)
            changes = [{"ChangeType": kind, "ID": key, "Seq": since + n + 1} for n, (kind, key) in enumerate(page)]
            return _json({"Changes": changes, "Done": since + limit >= len(self.changes), "Last": last})
        if words[0] == "instances":
            found = [data for data in self.files if hashlib.sha1(data).hexdigest() == words[1]]
            return ("application/dicom", found[0]) if found else None
        if words[0] == "studies" and words[-1] == "series":
            return _json(
                [
                    {"MainDicomTags": {"Modality": modality}, "Instances": ["…"] * count}
                    for modality, count in self.series(words[1]).items()
                ]
            )
        if words[0] == "studies" and len(words) == 2:
            return _json({"MainDicomTags": {"StudyInstanceUID": words[1]}})
        if words == ["dicom-web", "studies"]:
            uids = [self.uid(data) for data in self.files]
            rows = [
                {"0020000D": {"vr": "UI", "Value": [uid]}, "00201208": {"vr": "IS", "Value": [uids.count(uid)]}}
                for uid in sorted(set(uids))
            ]
            return _json(rows[int(query["offset"]) :][: int(query["limit"])])
        if words[:2] == ["dicom-web", "studies"] and words[-1] == "series":
            return _json(
                [
                    {"00080060": {"vr": "CS", "Value": [modality]}, "00201209": {"vr": "IS", "Value": [count]}}
                    for modality, count in self.series(words[2]).items()
                ]
            )
        if words[:2] == ["dicom-web", "studies"]:
            body = b"".join(
                b"--mark\r\nContent-Type: application/dicom\r\n\r\n" + data + b"\r\n"
                for data in self.files
                if self.uid(data) == words[2]
            )
            return 'multipart/related; type="application/dicom"; boundary=mark', body + b"--mark--\r\n"
        return None


def _json(value: object) -> tuple[str, bytes]:
    return "application/json", json.dumps(value).encode()


@pytest.fixture
def archive() -> Iterator[tuple[Archive, str]]:
    held = Archive()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            held.asked.append(self.path)
            if held.password and self.headers["Authorization"] != "Basic " + b64encode(held.password.encode()).decode():
                self.send_error(401)
                return
            found = held.answer(self.path)
            if found is None:
                self.send_error(404)
                return
            kind, body = found
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if held.cut and kind.startswith(("multipart", "application/dicom")):
                held.cut = False
                body = body[: len(body) // 2]
                self.close_connection = True
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield held, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_orthanc_is_followed_from_where_it_was_left(
    archive: tuple[Archive, str], ledger: Ledger, params: Params
) -> None:
    held, url = archive
    first, second = stack("1.7", 6), stack("1.8", 3)
    held.add(first)
    assert follow_orthanc(url, ledger, "local", "hospital").accepted == 6
    held.asked.clear()
    assert follow_orthanc(url, ledger, "local", "hospital").files == 0
    assert not [path for path in held.asked if path.startswith("/instances")]
    held.changes.append(("StableStudy", "1.7"))
    held.add(second)
    held.changes.append(("NewInstance", "0" * 40))  # deleted since
    assert follow_orthanc(url, ledger, "local", "hospital").accepted == 3
    versions = {version.study_uid: version for version in ledger.current()}
    assert (versions["1.7"].declared, versions["1.7"].n_files) == (6, 6)
    assert len(settle(ledger, params, force=True)) == 2
    del held.changes[:5]  # its database was made anew
    assert follow_orthanc(url, ledger, "local", "hospital").accepted == 0


def test_an_answer_cut_in_the_middle_is_asked_for_again(
    archive: tuple[Archive, str], ledger: Ledger, params: Params
) -> None:
    held, url = archive
    held.add(stack("1.7", 3))
    held.cut = True
    with pytest.raises(Unavailable):
        follow_orthanc(url, ledger, "local", "hospital")
    follow_orthanc(url, ledger, "local", "hospital")
    held.add(stack("1.9", 5))
    held.cut = True
    with pytest.raises(Unavailable):
        poll_dicomweb(url + "/dicom-web", ledger, "local", "hospital", params)
    poll_dicomweb(url + "/dicom-web", ledger, "local", "hospital", params)
    files = [file.path.read_bytes() for version in ledger.current() for file in version.files]
    assert sorted(files) == sorted(held.files)
    assert ledger.quarantined() == {}


def test_dicomweb_is_polled_and_only_what_changed_is_fetched(
    archive: tuple[Archive, str], ledger: Ledger, params: Params
) -> None:
    held, url = archive
    base = url + "/dicom-web/"
    held.add(stack("1.7", 4) + stack("1.8", 2))
    assert poll_dicomweb(base, ledger, "local", "hospital", params).accepted == 6
    assert [version.declared for version in ledger.current()] == [4, 2]
    held.asked.clear()
    assert poll_dicomweb(base, ledger, "local", "hospital", params).files == 0
    assert len(held.asked) == 1
    held.add(stack("1.8", 3)[2:])
    assert poll_dicomweb(base, ledger, "local", "hospital", params).accepted == 1
    assert len(settle(ledger, params, force=True)) == 2


def test_what_readers_drew_is_counted_by_an_archive_and_waited_for_by_nobody(
    archive: tuple[Archive, str], ledger: Ledger, params: Params
) -> None:
    """An archive's count of a study has its SEG and SR in it; here these go to inbox/annotations."""
    held, url = archive
    drawn = dicom("1.7", series="9", SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4", Modality="SEG")
    held.add([*stack("1.7", 4), drawn])
    held.changes.append(("StableStudy", "1.7"))
    taken = follow_orthanc(url, ledger, "local", "hospital")
    assert (taken.accepted, taken.annotations) == (4, 1)
    assert ledger.current()[0].declared == 4
    held.add([*stack("1.8", 4), dicom("1.8", series="9", SOPClassUID="1.2.840.10008.5.1.4.1.1.88.33", Modality="SR")])
    poll_dicomweb(url + "/dicom-web", ledger, "local", "hospital", params)
    assert [version.declared for version in ledger.current()] == [4, 4]
    assert len(settle(ledger, params, force=True)) == 2


def test_credentials_are_used_and_never_shown(archive: tuple[Archive, str], ledger: Ledger) -> None:
    held, url = archive
    held.password = "user:geheim7"
    held.add(stack("1.7", 2))
    with pytest.raises(Unavailable, match="401"):
        follow_orthanc(url, ledger, "local", "hospital")
    known = url.replace("http://", "http://user:geheim7@")
    assert follow_orthanc(known, ledger, "local", "hospital").accepted == 2
    held.password = "user:other"
    with pytest.raises(Unavailable) as told:
        follow_orthanc(known, ledger, "local", "hospital")
    assert "geheim7" not in str(told.value)
    with pytest.raises(WrongUse):
        follow_orthanc("file:///etc/passwd", ledger, "local", "hospital")
    with pytest.raises(Unavailable):
        follow_orthanc("http://127.0.0.1:1", ledger, "local", "hospital")
