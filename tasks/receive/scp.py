"""C-STORE: bytes as they come, on disk before they are acknowledged, never decoded.

    sender → handler: journal, fsync → SUCCESS          (many at once, one thread an association)
                          ↓ queue
                      filer: spool and ledger            (one thread, many files in one transaction)

A file whose process dies between the two is in the journal, and `recover` files it at the next start. What cannot be
used is acknowledged too, and stands in quarantine with its reason: a scanner cannot mend it by sending it again.
"""

from __future__ import annotations

import errno
import logging
import socket
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, _config, evt
from pynetdicom.events import Event
from pynetdicom.transport import ThreadedAssociationServer

from tasks.domain.errors import Unavailable, WrongUse
from tasks.domain.settings import Settings
from tasks.ledger import Ledger
from tasks.receive import tls
from tasks.receive.disk import free_mb
from tasks.receive.filer import Filer, OnStudy
from tasks.receive.intake import Intake
from tasks.receive.params import Params
from tasks.receive.recover import recover
from tasks.receive.transfer import PDU_BYTES, Request, request_of, take_over

log = logging.getLogger("osteoflow.receive")

_config.LOG_HANDLER_LEVEL = "none"  # its log of every message costs time and names patients

SUCCESS, NOT_AUTHORIZED, OUT_OF_RESOURCES, CANNOT_PROCESS = 0x0000, 0x0124, 0xA700, 0xC001

VERIFICATION = "1.2.840.10008.1.1"
STORAGE = (
    "1.2.840.10008.5.1.4.1.1.4",  # MR
    "1.2.840.10008.5.1.4.1.1.4.1",  # Enhanced MR
    "1.2.840.10008.5.1.4.1.1.4.2",  # MR Spectroscopy
    "1.2.840.10008.5.1.4.1.1.4.3",  # Enhanced MR Color
    "1.2.840.10008.5.1.4.1.1.4.4",  # Legacy Converted Enhanced MR
    "1.2.840.10008.5.1.4.1.1.2",  # CT
    "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced CT
    "1.2.840.10008.5.1.4.1.1.2.2",  # Legacy Converted Enhanced CT
    "1.2.840.10008.5.1.4.1.1.7",  # Secondary Capture, and its multi-frame kinds
    "1.2.840.10008.5.1.4.1.1.7.1",
    "1.2.840.10008.5.1.4.1.1.7.2",
    "1.2.840.10008.5.1.4.1.1.7.3",
    "1.2.840.10008.5.1.4.1.1.7.4",
    "1.2.840.10008.5.1.4.1.1.11.1",  # Grayscale Softcopy Presentation State
    "1.2.840.10008.5.1.4.1.1.66.1",  # Spatial Registration
    "1.2.840.10008.5.1.4.1.1.66.4",  # Segmentation
    "1.2.840.10008.5.1.4.1.1.66.5",  # Surface Segmentation
    "1.2.840.10008.5.1.4.1.1.66.7",  # Label Map Segmentation
    "1.2.840.10008.5.1.4.1.1.481.3",  # RT Structure Set
    "1.2.840.10008.5.1.4.1.1.88.11",  # Basic Text SR
    "1.2.840.10008.5.1.4.1.1.88.22",  # Enhanced SR
    "1.2.840.10008.5.1.4.1.1.88.33",  # Comprehensive SR
    "1.2.840.10008.5.1.4.1.1.88.34",  # Comprehensive 3D SR
    "1.2.840.10008.5.1.4.1.1.88.35",  # Extensible SR
    "1.2.840.10008.5.1.4.1.1.88.59",  # Key Object Selection
)
HANDSHAKE_SECONDS = 10
MOST_UNFILED = 20000
"""Files acknowledged and not yet in the ledger; with more, senders are told to come back."""
IMPLEMENTATION_UID = b"2.25.214836049811365216498116217735112463"
"""Of the file meta that is put before a received dataset."""


@contextmanager
def serving(
    ledger: Ledger,
    params: Params,
    settings: Settings,
    origin: str = "hospital",
    on_study: OnStudy | None = None,
    sites: Mapping[str, str] | None = None,
) -> Iterator[Receiver]:
    """Receive until the block ends. `sites` maps a called AE title to its site, as OSTEOFLOW_DICOM_SITES does; what
    comes to our own title is of settings.site.

    `on_study(row_key)` is called beside the receiver, after files of that version are in the ledger; it may be slow or
    fail, and is then skipped for some: it is a hint."""
    recover(ledger)
    with Intake(ledger) as intake:
        receiver = Receiver(
            intake, params, settings, origin, on_study, _sites(settings.dicom_sites) | dict(sites or {})
        )
        receiver.start()
        try:
            yield receiver
        finally:
            receiver.stop()


class Receiver:
    """A running SCP. `port` is the one it listens on; `stored` counts acknowledged files, `refused` the others."""

    def __init__(
        self,
        intake: Intake,
        params: Params,
        settings: Settings,
        origin: str,
        on_study: OnStudy | None,
        sites: dict[str, str],
    ) -> None:
        self.intake, self.params, self.settings, self.origin, self.sites = intake, params, settings, origin, sites
        self.peers = _peers(settings.dicom_peers)
        self.stored = self.refused = 0
        self.port = settings.dicom_port
        self.filer = Filer(intake, on_study)
        self._server: ThreadedAssociationServer | None = None

    # ---- life -------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        ae = AE(ae_title=self.settings.ae_title)
        ae.maximum_associations = self.params.max_associations
        ae.maximum_pdu_size = PDU_BYTES
        ae.require_called_aet = True
        if self.peers:
            ae.require_calling_aet = sorted(self.peers)
        ae.add_supported_context(VERIFICATION)
        for sop_class in STORAGE:
            ae.add_supported_context(sop_class, ALL_TRANSFER_SYNTAXES)
        self.filer.start()
        address = (self.settings.dicom_host, self.settings.dicom_port)
        try:
            self._server = ae.make_server(
                address,
                ssl_context=tls.to_us(self.settings),
                evt_handlers=[
                    (evt.EVT_CONN_OPEN, lambda event: take_over(event, self._store)),
                    (evt.EVT_REQUESTED, self._name_called),
                    (evt.EVT_C_STORE, self._store_otherwise),
                    (evt.EVT_C_ECHO, _echo),
                ],
                server_class=_Server,
            )
        except OSError as error:
            self.filer.end()
            raise Unavailable(
                f"DICOM port {address[1]} on {address[0]} cannot be opened ({error.strerror}); set OSTEOFLOW_DICOM_PORT"
            ) from None
        ae._servers.append(self._server)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, name="osteoflow-scp", daemon=True).start()

    def stop(self) -> None:
        """Refuse new senders, let the running ones go, file what was acknowledged."""
        if self._server is not None:
            self._server.shutdown()
            for association in self._server.active_associations:
                association.abort()
        self.filer.end()

    # ---- one file ---------------------------------------------------------------------------------------------------

    def _name_called(self, event: Event) -> None:
        """A title that stands for a site is one of ours; pynetdicom refuses any other than our own."""
        asked: Any = event.assoc.requestor.primitive
        called = asked.called_ae_title.strip()
        if called in self.sites:
            event.assoc.acceptor.ae_title = called

    def _store(self, request: Request) -> int:
        try:
            status = self._keep(request)
        except Exception as error:  # noqa: BLE001 - pynetdicom would abort the association and say nothing
            log.error("a file could not be kept: %s", type(error).__name__)
            status = CANNOT_PROCESS
        if status == SUCCESS:
            self.stored += 1
        else:
            self.refused += 1
        return status

    def _store_otherwise(self, event: Event) -> int:
        """A request in fragments that only pynetdicom puts together."""
        said: Any = event.request
        data = event.encoded_dataset(include_meta=False)
        return self._store(
            request_of(
                event.assoc, said.AffectedSOPClassUID, said.AffectedSOPInstanceUID, event.context.transfer_syntax, data
            )
        )

    def _keep(self, request: Request) -> int:
        hosts = self.peers.get(request.calling)
        if hosts and request.address not in hosts:
            return NOT_AUTHORIZED
        if free_mb(self.intake.zone) < self.params.disk_reserve_mb or self.filer.waiting > MOST_UNFILED:
            return OUT_OF_RESOURCES
        site = self.sites.get(request.called, self.settings.site)
        meta = file_meta(request.sop_class, request.sop_uid, request.transfer_syntax)
        try:
            received = self.intake.write((meta, request.dataset), site, self.origin)
        except OSError as error:
            log.error("a file could not be kept: %s", errno.errorcode.get(error.errno or 0, "?"))
            return OUT_OF_RESOURCES if error.errno in (errno.ENOSPC, errno.EDQUOT) else CANNOT_PROCESS
        self.filer.give(received)
        return SUCCESS


class _Server(ThreadedAssociationServer):
    """Nagle's algorithm off (it costs 45 ms a file), a backlog for a Monday morning, a handshake that cannot hang."""

    request_queue_size = 128

    def get_request(self) -> tuple[socket.socket, Any]:
        assert self.socket is not None
        client, address = self.socket.accept()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.ssl_context is not None:
            client.settimeout(HANDSHAKE_SECONDS)
            try:
                client = self.ssl_context.wrap_socket(client, server_side=True)
            except OSError:
                client.close()
                raise
            client.settimeout(None)
        return client, address


def _echo(event: Event) -> int:
    return SUCCESS


def file_meta(sop_class: str, sop_uid: str, transfer_syntax: str) -> bytes:
    """Preamble, prefix and group 0002 (PS3.10 7.1), Explicit VR Little Endian."""

    def uid(element: int, value: bytes) -> bytes:
        value += b"\0" * (len(value) % 2)
        return struct.pack("<HH2sH", 2, element, b"UI", len(value)) + value

    body = struct.pack("<HH2sHL", 2, 1, b"OB", 0, 2) + b"\0\1"
    body += uid(0x0002, str(sop_class).encode("ascii", "replace"))
    body += uid(0x0003, str(sop_uid).encode("ascii", "replace"))
    body += uid(0x0010, str(transfer_syntax).encode("ascii", "replace"))
    body += uid(0x0012, IMPLEMENTATION_UID)
    return b"\0" * 128 + b"DICM" + struct.pack("<HH2sHL", 2, 0, b"UL", 4, len(body)) + body


def _peers(text: str) -> dict[str, set[str]]:
    """'MR1, MR2@10.0.0.7' → AE title → allowed addresses (none named: any)."""
    peers: dict[str, set[str]] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        title, _, host = part.partition("@")
        try:
            found = {str(info[4][0]) for info in socket.getaddrinfo(host, None)} if host else set()
        except OSError:
            raise WrongUse("OSTEOFLOW_DICOM_PEERS names a host that cannot be resolved") from None
        peers.setdefault(title, set()).update(found)
    return peers


def _sites(text: str) -> dict[str, str]:
    """'KNEE_A=north, KNEE_B=south' → called AE title → site."""
    pairs = [part.partition("=") for part in filter(None, (part.strip() for part in text.split(",")))]
    if not all(title.strip() and site.strip() for title, _, site in pairs):
        raise WrongUse("OSTEOFLOW_DICOM_SITES is a list of AET=site, separated by commas")
    return {title.strip(): site.strip() for title, _, site in pairs}
