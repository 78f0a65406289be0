"""A real Orthanc with its DICOMweb plugin, over loopback: sent to by C-STORE, followed and polled."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pydicom
import pytest
from dicom_files import dataset, encoded, stack

from tasks.domain.errors import Unavailable
from tasks.ledger import Ledger
from tasks.receive import Params, follow_orthanc, poll_dicomweb, settle
from tasks.receive.ask import Pacs

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
pytestmark = pytest.mark.needs("Orthanc", str(PLUGIN))
DAY = datetime(2024, 3, 20)


class Orthanc:
    def __init__(self, place: Path) -> None:
        self.place = place
        self.http, self.dicom = free_port(), free_port()
        text = (ROOT / "infra" / "orthanc.json").read_text(encoding="utf-8")
        lines = [line for line in text.splitlines() if not line.strip().startswith("//")]
        config = json.loads("\n".join(lines)) | {
            "StorageDirectory": str(place / "db"),
            "IndexDirectory": str(place / "db"),
            "Plugins": [str(PLUGIN)],
            "HttpPort": self.http,
            "DicomPort": self.dicom,
            "StableAge": 1,
        }
        (place / "orthanc.json").write_text(json.dumps(config), encoding="utf-8")
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://osteoflow:change-me@127.0.0.1:{self.http}"

    def start(self) -> None:
        command = ["Orthanc", str(self.place / "orthanc.json")]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.http}/system", timeout=1)
            except urllib.error.HTTPError:
                return  # it asks for a password
            except OSError:
                time.sleep(0.1)
        raise TimeoutError("Orthanc did not start")

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def send(self, files: list[bytes]) -> None:
        for data in files:
            request = urllib.request.Request(
                f"http://127.0.0.1:{self.http}/instances", data=data, headers={"Authorization": BASIC}
            )
            urllib.request.urlopen(request, timeout=20).close()


BASIC = "Basic b3N0ZW9mbG93OmNoYW5nZS1tZQ=="


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    server = Orthanc(tmp_path_factory.mktemp("orthanc"))
    server.start()
    yield server
    server.stop()


def received(ledger: Ledger, study: str) -> dict[str, bytes]:
    [version] = [version for version in ledger.find(study) if version.current]
    return {file.sop_uid: pydicom.dcmread(file.path).PixelData for file in version.files}


def test_its_changes_are_followed_from_a_stored_position(orthanc: Orthanc, ledger: Ledger, params: Params) -> None:
    orthanc.send(stack("1.7.1", 6))
    assert follow_orthanc(orthanc.url, ledger, "local", "hospital").accepted == 6
    assert follow_orthanc(orthanc.url, ledger, "local", "hospital").files == 0
    sent = {ds.SOPInstanceUID: ds.PixelData for ds in map(reread, stack("1.7.1", 6))}
    assert received(ledger, "1.7.1") == sent
    [key] = settle(ledger, params, force=True)
    orthanc.send([encoded(dataset(study="1.7.1", number=7))])  # a late slice
    assert follow_orthanc(orthanc.url, ledger, "local", "hospital").accepted == 1
    [late] = [version for version in ledger.find("1.7.1") if version.current]
    assert (late.version, late.n_files, late.row_key != key) == (2, 7, True)


def test_what_it_says_when_stable_is_the_declared_count(orthanc: Orthanc, ledger: Ledger, params: Params) -> None:
    orthanc.send(stack("1.7.2", 5))
    deadline = time.monotonic() + 20
    while True:
        follow_orthanc(orthanc.url, ledger, "local", "hospital")
        [version] = ledger.find("1.7.2")
        if version.declared == 5:
            break
        assert time.monotonic() < deadline, "Orthanc never said that the study is stable"
        time.sleep(0.2)
    assert settle(ledger, params, force=True)
    asked = Pacs.named(f"ORTHANC@127.0.0.1:{orthanc.dicom}", "OSTEOFLOW")
    assert asked.counts(["1.7.2", "1.7.99"]) == {"1.7.2": 5}


def test_dicomweb_finds_and_fetches_the_same_bytes_of_pixels(orthanc: Orthanc, ledger: Ledger, params: Params) -> None:
    orthanc.send(stack("1.7.3", 5))
    url = f"{orthanc.url}/dicom-web"
    poll_dicomweb(url, ledger, "local", "hospital", params, DAY)
    sent = {ds.SOPInstanceUID: ds.PixelData for ds in map(reread, stack("1.7.3", 5))}
    assert received(ledger, "1.7.3") == sent
    assert poll_dicomweb(url, ledger, "local", "hospital", params, DAY).files == 0, "nothing is fetched twice"
    orthanc.send([encoded(dataset(study="1.7.3", number=6))])
    assert poll_dicomweb(url, ledger, "local", "hospital", params, DAY).accepted == 1
    assert len(received(ledger, "1.7.3")) == 6
    late = poll_dicomweb(url, ledger, "local", "hospital", params, datetime(2025, 1, 1))
    assert late.files == 0, "studies older than dicomweb_days are not asked for"


def test_both_ways_bring_one_study(orthanc: Orthanc, ledger: Ledger, params: Params) -> None:
    orthanc.send(stack("1.7.4", 4))
    follow_orthanc(orthanc.url, ledger, "local", "hospital")
    before = sum(version.n_files for version in ledger.find("1.7.4"))
    summary = poll_dicomweb(f"{orthanc.url}/dicom-web", ledger, "local", "hospital", params, DAY)
    assert summary.accepted == 0 and not summary.quarantined
    assert before == sum(version.n_files for version in ledger.find("1.7.4")) == 4


def test_a_wrong_password_is_said_without_it(orthanc: Orthanc, ledger: Ledger) -> None:
    with pytest.raises(Unavailable, match="401") as told:
        follow_orthanc(orthanc.url.replace("change-me", "Secret7"), ledger, "local", "hospital")
    assert "Secret7" not in str(told.value)


def test_killed_in_the_middle_and_started_again_nothing_is_lost(ledger: Ledger, params: Params, tmp_path: Path) -> None:
    own = Orthanc(tmp_path)
    own.start()
    try:
        own.send(stack("1.8.1", 4))
        follow_orthanc(own.url, ledger, "local", "hospital")
        own.send(stack("1.8.2", 4))
        own.stop()
        with pytest.raises(Unavailable):
            follow_orthanc(own.url, ledger, "local", "hospital")
        own.start()
        assert follow_orthanc(own.url, ledger, "local", "hospital").accepted == 4
    finally:
        own.stop()


def reread(data: bytes) -> pydicom.Dataset:
    from io import BytesIO

    return pydicom.dcmread(BytesIO(data))
