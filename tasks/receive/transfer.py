"""The data phase of C-STORE, read straight from the socket (PS3.7 9.3.1, PS3.8 9.3.5 and annex E).

pynetdicom negotiates, releases, aborts and answers C-ECHO. Between, a sender pushes thousands of C-STORE requests, and
pynetdicom would pass each of their PDUs through two threads that poll and a dozen objects. Here the thread that owns
the socket reads a request whole, hands command and dataset to `keep`, and answers. Whatever is not a C-STORE request is
given back to pynetdicom as if it had not been touched; a request that breaks the protocol aborts the association.
"""

from __future__ import annotations

import logging
import select
import ssl
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pynetdicom.events import Event

log = logging.getLogger("osteoflow.receive")

P_DATA = 0x04
COMMAND, LAST = 0x01, 0x02
"""Bits of a PDV's message control header."""
C_STORE_RQ, C_STORE_RSP = 0x0001, 0x8001
NO_DATASET = 0x0101
PDU_BYTES = 131072
"""What a sender is told that a PDU may hold."""
MOST_PDU_BYTES = 16 << 20
"""Senders that ignore it are borne with up to here."""
LINGER_S = 0.05
"""How long the next request is waited for before pynetdicom's threads get the socket back."""
INVALID_PDU = "Evt19"
"""Of pynetdicom's state machine: answered with A-ABORT."""


@dataclass(frozen=True)
class Request:
    """One C-STORE request: who sends, to whom, what it says it is, and the dataset as encoded."""

    calling: str
    address: str
    called: str
    sop_class: str
    sop_uid: str
    transfer_syntax: str
    dataset: bytes | bytearray


Keep = Callable[[Request], int]
"""Keeps one request; returns the DIMSE status."""


def request_of(assoc: Any, sop_class: str, sop_uid: str, syntax: str, dataset: bytes | bytearray) -> Request:
    who, whom = assoc.requestor, assoc.acceptor
    return Request(who.ae_title, who.address, whom.ae_title, sop_class, sop_uid, syntax, dataset)


def take_over(event: Event, keep: Keep) -> None:
    """Bound to EVT_CONN_OPEN: from here on C-STORE requests on this connection go to `keep`."""
    _Transfer(event.assoc, keep)


class _Broken(Exception):
    """What came is no valid P-DATA-TF of a C-STORE request."""


class _Transfer:
    def __init__(self, assoc: Any, keep: Keep) -> None:
        self.assoc, self.dul, self.keep = assoc, assoc.dul, keep
        self.wrapped = assoc.dul.socket
        self.back = bytearray()
        self.gone = False
        self.pynetdicom_reads = assoc.dul._read_pdu_data
        self.syntaxes: dict[int, str] = {}
        self.wrapped.recv = self._recv
        assoc.dul._read_pdu_data = self._read

    # ---- called by pynetdicom's thread of the connection ------------------------------------------------------------

    def _recv(self, wanted: int) -> bytearray:
        """What pynetdicom reads: first what was given back, then the socket; a few calls a PDU, not one every 4 kB."""
        if self.back:
            data = self.back[:wanted]
            del self.back[:wanted]
            if len(data) == wanted:
                return data
            return data + self._exactly(wanted - len(data))
        return self._exactly(wanted)

    def _read(self) -> None:
        """The socket has something. In the data phase: requests, one after the other, while they keep coming."""
        ours = self.dul.state_machine.current_state == "Sta6" and self.assoc.is_established
        if not ours or self.assoc.dimse.message is not None:  # it negotiates, or has read part of a message
            self.pynetdicom_reads()
            if self.gone and self.dul.state_machine.current_state == "Sta2":
                # A probe of the port. Who waits for its request would hold one of the associations for 30 s more.
                self.dul.to_user_queue.put(None)
            return
        self.assoc._reactor_checkpoint.clear()  # the association's own thread would poll a thousand times a second
        try:
            while self._request():
                self.dul._idle_timer.restart()
                if self.dul._kill_thread or not self.dul.to_provider_queue.empty() or not self._more():
                    return
            self.pynetdicom_reads()
        except (_Broken, struct.error):
            log.warning("an association is aborted: its sender breaks the protocol")
            self.dul.event_queue.put(INVALID_PDU)
        except OSError as error:
            log.warning("a sender is gone in the middle of a request (%s)", type(error).__name__)
            self.dul.event_queue.put("Evt17")  # transport connection closed
        finally:
            self.dul._idle_timer.restart()
            self.assoc._reactor_checkpoint.set()

    # ---- one request ------------------------------------------------------------------------------------------------

    def _request(self) -> bool:
        """Read, keep and answer one C-STORE request; False when the next PDU is something else, given back whole."""
        head, body = self._pdu()
        length, context, control = struct.unpack_from(">LBB", body) if len(body) >= 6 else (0, 0, 0)
        command = _command(body[6 : 4 + length]) if control == COMMAND | LAST else {}
        if command.get(0x0100) != C_STORE_RQ or command.get(0x0800) in (None, NO_DATASET):
            self.back += head + body
            return False
        syntax = self._syntax(context)
        dataset, at, done = bytearray(), 4 + length, False
        while not done:
            if at >= len(body):
                head, body = self._pdu()
                at = 0
                if len(head) < 6 or head[0] != P_DATA:
                    if not head:
                        raise ConnectionResetError
                    raise _Broken
            length, pdv_context, control = struct.unpack_from(">LBB", body, at)
            end = at + 4 + length
            if length < 2 or end > len(body) or pdv_context != context or control & COMMAND:
                raise _Broken
            dataset += memoryview(body)[at + 6 : end]
            at, done = end, bool(control & LAST)
        if at != len(body):
            raise _Broken
        request = request_of(self.assoc, command.get(0x0002, ""), command.get(0x1000, ""), syntax, dataset)
        self._answer(context, command, self.keep(request))
        return True

    def _syntax(self, context: int) -> str:
        if context not in self.syntaxes:
            accepted = {c.context_id: str(c.transfer_syntax[0]) for c in self.assoc.accepted_contexts}
            if context not in accepted:
                raise _Broken
            self.syntaxes = accepted
        return self.syntaxes[context]

    def _answer(self, context: int, command: dict[int, Any], status: int) -> None:
        body = _uid(0x0002, command.get(0x0002, "")) + _us(0x0100, C_STORE_RSP)
        body += _us(0x0120, command.get(0x0110, 0)) + _us(0x0800, NO_DATASET) + _us(0x0900, status)
        body += _uid(0x1000, command.get(0x1000, ""))
        message = struct.pack("<HHLL", 0, 0, 4, len(body)) + body
        pdv = struct.pack(">LBB", len(message) + 2, context, COMMAND | LAST) + message
        self.wrapped.socket.sendall(struct.pack(">BBL", P_DATA, 0, len(pdv)) + pdv)

    # ---- the socket -------------------------------------------------------------------------------------------------

    def _pdu(self) -> tuple[bytearray, bytearray]:
        """Header and body of the next PDU; shorter than they should be when the sender is gone."""
        head = self._exactly(6)
        if len(head) < 6:
            return head, bytearray()
        length = struct.unpack_from(">L", head, 2)[0]
        if head[0] == P_DATA and length > MOST_PDU_BYTES:
            raise _Broken
        body = self._exactly(length) if head[0] == P_DATA else bytearray()
        if head[0] == P_DATA and len(body) < length:
            raise ConnectionResetError
        return head, body

    def _exactly(self, wanted: int) -> bytearray:
        data = bytearray(wanted)
        at = 0
        with memoryview(data) as view:
            while at < wanted:
                got = self.wrapped.socket.recv_into(view[at:])
                if not got:
                    break
                at += got
        if at < wanted:
            self.gone = True
            del data[at:]
        return data

    def _more(self) -> bool:
        """Whether more comes within LINGER_S."""
        raw = self.wrapped.socket
        if isinstance(raw, ssl.SSLSocket) and raw.pending():
            return True
        poll = select.poll()
        poll.register(raw, select.POLLIN)
        return bool(poll.poll(LINGER_S * 1000))


# ---- command sets: Implicit VR Little Endian, group 0000 (PS3.7 6.3.1 and annex E) ----------------------------------

_TEXT = (0x0002, 0x1000)
_NUMBER = (0x0100, 0x0110, 0x0800)


def _command(data: bytearray) -> dict[int, Any]:
    """Element number → value of the elements that a C-STORE needs."""
    found: dict[int, Any] = {}
    at = 0
    while at + 8 <= len(data):
        group, element, length = struct.unpack_from("<HHL", data, at)
        value = data[at + 8 : at + 8 + length]
        if group or len(value) < length:
            break  # pynetdicom says what is wrong with it
        if element in _TEXT:
            found[element] = value.strip(b" \0").decode("ascii", "replace")
        elif element in _NUMBER and length == 2:
            found[element] = struct.unpack("<H", value)[0]
        at += 8 + length
    return found


def _us(element: int, value: int) -> bytes:
    return struct.pack("<HHLH", 0, element, 2, value)


def _uid(element: int, value: str) -> bytes:
    data = value.encode("ascii", "replace")
    data += b"\0" * (len(data) % 2)
    return struct.pack("<HHL", 0, element, len(data)) + data
