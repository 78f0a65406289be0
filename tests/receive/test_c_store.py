"""C-STORE over loopback, with pynetdicom's sender and dcmtk's."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from certificate import certificate
from dicom_files import dataset, dicom
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless
from scanner import associated

from tasks.domain.errors import Unavailable
from tasks.domain.settings import Settings
from tasks.ledger import Ledger
from tasks.receive import Params, accept, recover, settle
from tasks.receive.scp import OUT_OF_RESOURCES, SUCCESS, serving

MR = "1.2.840.10008.5.1.4.1.1.4"
SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]


@pytest.fixture
def settings() -> Settings:
    return Settings(dicom_port=0)


def association(
    port: int, title: str = "MR1", called: str = "OSTEOFLOW", syntaxes: list[str] | None = None, **tls: object
):  # type: ignore[no-untyped-def]
    return associated(port, [(MR, syntaxes or SYNTAXES[:1]), ("1.2.840.10008.1.1", SYNTAXES[:1])], title, called, **tls)


def send(port: int, datasets: list[Dataset], **how: object) -> list[int]:
    sender = association(port, **how)  # type: ignore[arg-type]
    assert sender.is_established
    statuses = [int(sender.send_c_store(ds).Status) for ds in datasets]
    sender.release()
    return statuses


def eventually(what: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def test_a_study_is_received_bit_for_bit(ledger: Ledger, params: Params, settings: Settings) -> None:
    heard: list[str] = []
    datasets = [dataset(number=n) for n in range(1, 6)]
    with serving(ledger, params, settings, on_study=heard.append) as receiver:
        assert send(receiver.port, datasets) == [SUCCESS] * 5
        eventually(lambda: sum(ledger.counts().values()) == 1 and ledger.current()[0].n_files == 5)
        assert send(receiver.port, datasets[:2]) == [SUCCESS] * 2
    [key] = settle(ledger, params, force=True)
    version = ledger.get(key)
    assert version is not None and version.n_files == 5
    assert set(heard) == {key}
    assert accept(dicom(number=1), ledger, "local", "hospital").outcome == "duplicate"
    assert ledger.quarantined() == {}


@pytest.mark.needs("dcmsend")
def test_dcmtk_sends_a_study(ledger: Ledger, params: Params, settings: Settings, tmp_path: Path) -> None:
    for n in range(1, 6):
        (tmp_path / f"{n}.dcm").write_bytes(dicom(number=n))
    with serving(ledger, params, settings) as receiver:
        words = ["dcmsend", "-aec", "OSTEOFLOW", "127.0.0.1", str(receiver.port), "+sd", str(tmp_path)]
        for _ in range(2):  # what it sends again is what came before
            done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
            assert done.returncode == 0, done.stderr
        eventually(lambda: sum(ledger.counts().values()) == 1 and ledger.current()[0].n_files == 5)
    assert ledger.quarantined() == {}


def test_echo_is_answered_and_strangers_are_not(ledger: Ledger, params: Params, settings: Settings) -> None:
    picky = settings.model_copy(update={"dicom_peers": "MR1, MR2@127.0.0.1, MR3@192.0.2.1"})
    with serving(ledger, params, picky) as receiver:
        sender = association(receiver.port)
        assert sender.send_c_echo().Status == SUCCESS
        sender.release()
        assert association(receiver.port, title="STRANGER").is_rejected
        assert association(receiver.port, called="ANOTHER").is_rejected
        assert send(receiver.port, [dataset()], title="MR2") == [SUCCESS]
        assert send(receiver.port, [dataset(number=2)], title="MR3") == [0x0124]


def test_one_more_than_allowed_is_refused_cleanly(ledger: Ledger, params: Params, settings: Settings) -> None:
    with serving(ledger, params.model_copy(update={"max_associations": 2}), settings) as receiver:
        held = [association(receiver.port) for _ in range(2)]
        assert all(one.is_established for one in held)
        assert association(receiver.port).is_rejected
        held[0].release()
        eventually(lambda: association(receiver.port).is_established)
        held[1].abort()


def test_probes_that_say_nothing_hold_no_place(ledger: Ledger, params: Params, settings: Settings) -> None:
    """Load balancers open the port and close it again; 30 s of waiting for each would keep senders out."""
    with serving(ledger, params.model_copy(update={"max_associations": 2}), settings) as receiver:
        for _ in range(6):
            socket.create_connection(("127.0.0.1", receiver.port)).close()
        eventually(lambda: association(receiver.port).is_established)


def test_a_full_disk_is_said_and_recovers_by_itself(ledger: Ledger, params: Params, settings: Settings) -> None:
    with serving(ledger, params, settings) as receiver:
        receiver.params = params.model_copy(update={"disk_reserve_mb": 1e12})
        assert send(receiver.port, [dataset()]) == [OUT_OF_RESOURCES]
        receiver.params = params
        assert send(receiver.port, [dataset()]) == [SUCCESS]
    assert ledger.counts()["receiving"] == 1


def test_what_cannot_be_used_is_acknowledged_and_held(ledger: Ledger, params: Params, settings: Settings) -> None:
    with serving(ledger, params, settings) as receiver:
        assert send(receiver.port, [dataset(StudyInstanceUID=None), dataset(number=2)]) == [SUCCESS] * 2
    assert ledger.quarantined() == {"missing_study_uid": 1}
    assert ledger.counts()["receiving"] == 1


def test_a_hint_that_hangs_or_fails_stops_nothing(ledger: Ledger, params: Params, settings: Settings) -> None:
    hanging = threading.Event()

    def hint(row_key: str) -> None:
        hanging.wait(20)
        raise RuntimeError("Prefect is down")

    with serving(ledger, params, settings, on_study=hint) as receiver:
        assert send(receiver.port, [dataset(study=f"1.{n}") for n in range(6)]) == [SUCCESS] * 6
        eventually(lambda: ledger.counts()["receiving"] == 6)
        hanging.set()


def test_a_ledger_that_is_locked_delays_and_loses_nothing(
    ledger: Ledger, params: Params, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.receive.filer.FILER_RETRY_S", 0.05)
    down = threading.Event()
    down.set()
    original = Ledger.receive

    def sometimes(self: Ledger, *args: object) -> object:
        if down.is_set():
            raise Unavailable("locked")
        return original(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Ledger, "receive", sometimes)
    with serving(ledger, params, settings) as receiver:
        assert send(receiver.port, [dataset(number=n) for n in (1, 2, 3)]) == [SUCCESS] * 3
        time.sleep(0.3)
        assert ledger.counts()["receiving"] == 0
        down.clear()
        eventually(lambda: ledger.counts()["receiving"] == 1)
    assert ledger.current()[0].n_files == 3


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_other_transfer_syntaxes_are_kept_as_sent(
    ledger: Ledger, params: Params, settings: Settings, syntax: str
) -> None:
    ds = dataset()
    ds.file_meta.TransferSyntaxUID = syntax
    with serving(ledger, params, settings) as receiver:
        assert send(receiver.port, [ds], syntaxes=[syntax]) == [SUCCESS]
        assert association(receiver.port, syntaxes=[JPEG2000Lossless]).accepted_contexts
    import pydicom

    [version] = ledger.current()
    read = pydicom.dcmread(version.files[0].path)
    assert read.file_meta.TransferSyntaxUID == syntax
    assert read.PixelData == ds.PixelData


def test_a_port_that_is_taken_is_said(ledger: Ledger, params: Params, settings: Settings) -> None:
    with serving(ledger, params, settings) as receiver:
        taken = settings.model_copy(update={"dicom_port": receiver.port})
        with pytest.raises(Unavailable, match="OSTEOFLOW_DICOM_PORT"), serving(ledger, params, taken):
            pass
        assert receiver._server is not None
        assert receiver._server.server_address[0] == "127.0.0.1"


RECEIVER = """
import time
from tasks.domain.settings import Settings
from tasks.ledger import Ledger
from tasks.receive import Params
from tasks.receive.scp import serving
params = Params(quiet_seconds=1, incomplete_after_seconds=9, gap_tolerance=0.5, stable_seconds=0, poll_seconds=1,
                max_member_mb=1, max_associations=4, disk_reserve_mb=1, dicomweb_days=1,
                keep_originals_days=None)
with serving(Ledger.open(), params, Settings(dicom_port=0)) as receiver:
    print(receiver.port, flush=True)
    time.sleep(60)
"""


def test_kill_9_after_success_loses_no_file(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", RECEIVER], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    port = int(child.stdout.readline())
    sender = association(port)
    good = [n for n in range(1, 30) if sender.send_c_store(dataset(number=n)).Status == SUCCESS]
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    sender.abort()
    assert good
    with Ledger.open() as ledger:
        recover(ledger)
        [version] = ledger.current()
        assert {int(file.sop_uid.rpartition(".")[2]) for file in version.files} == set(good)


def test_tls_is_spoken_when_there_is_a_certificate(
    ledger: Ledger, params: Params, settings: Settings, tmp_path: Path
) -> None:
    import ssl

    cert, key = certificate(tmp_path)
    secure = settings.model_copy(update={"dicom_tls_cert": cert, "dicom_tls_key": key, "dicom_tls_ca": cert})
    client = ssl.create_default_context(cafile=str(cert))
    client.check_hostname = False
    anonymous = ssl.create_default_context(cafile=str(cert))
    anonymous.check_hostname = False
    client.load_cert_chain(cert, key)
    with serving(ledger, params, secure) as receiver:
        assert send(receiver.port, [dataset()], tls_args=(client, None)) == [SUCCESS]
        assert not association(receiver.port, tls_args=(anonymous, None)).is_established
        assert not association(receiver.port).is_established
    assert ledger.counts()["receiving"] == 1
