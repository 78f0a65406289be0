"""A scanner: C-STORE by pynetdicom, again and again until all of it is acknowledged."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pydicom import Dataset
from pynetdicom import AE

Contexts = Iterable[tuple[str, str | list[str]]]
"""SOP classes, each with the transfer syntaxes that are offered for it."""


def associated(
    port: int, contexts: Contexts, title: str = "SCANNER", called: str = "OSTEOFLOW", seconds: float = 30.0, **tls: Any
) -> Any:
    """An association, established or not; answers are waited for so many `seconds`."""
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)  # it says much of connections that are cut
    ae = AE(ae_title=title)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = seconds
    for sop_class, syntaxes in contexts:
        ae.add_requested_context(sop_class, syntaxes)
    sender = ae.associate("127.0.0.1", port, ae_title=called, **tls)
    if sender.is_established:
        # On a busy machine pynetdicom's own thread takes an answer for a request and drops it: the file is stored, and
        # the sender waits for nothing. That thread is paused.
        sender._reactor_checkpoint.clear()
        while sender.is_alive() and not sender._is_paused:
            time.sleep(0.001)
        sender._reactor_checkpoint.set = lambda: None  # type: ignore[method-assign]
    return sender


def send(
    port: int,
    datasets: Sequence[Dataset],
    acknowledged: Callable[[Dataset], object] = lambda _: None,
    seconds: float = 10.0,
    again_s: float = 0.3,
    between_s: float = 0.0,
) -> int:
    """Send everything; how often a connection was refused or cut and the rest was sent again, after `again_s`."""
    contexts = sorted({(str(one.SOPClassUID), str(one.file_meta.TransferSyntaxUID)) for one in datasets})
    waiting, cuts = list(datasets), 0
    while waiting:
        sender = associated(port, contexts, seconds=seconds)
        while waiting and sender.is_established and _stored(sender, waiting[0]):
            acknowledged(waiting.pop(0))
            time.sleep(between_s)
        if not waiting:
            sender.release()
        else:
            sender.abort()
            cuts += 1
            time.sleep(again_s)
    return cuts


def _stored(sender: Any, dataset: Dataset) -> bool:
    try:
        status = sender.send_c_store(dataset)
    except Exception:  # noqa: BLE001 - whatever pynetdicom says of a cut connection: a scanner tries again
        return False
    return "Status" in status and status.Status == 0
