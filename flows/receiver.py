"""The receiving child of `osteoflow serve`: C-STORE, the watched inbox, the feeds, annotations, and what is complete.

Nothing of this needs Prefect. A complete study is said to it as an event, which never blocks and may be lost.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from flows.annotations import take_inbox
from flows.hints import Hints
from tasks.domain.errors import OsteoflowError
from tasks.domain.params import load
from tasks.domain.settings import Settings
from tasks.ledger import Ledger
from tasks.receive import Params, follow_orthanc, poll_dicomweb, settle, watch_once
from tasks.receive.ask import Asking, Pacs
from tasks.receive.scp import serving
from tasks.receive.tls import to_the_pacs

log = logging.getLogger("osteoflow.receiver")

AGAIN_S = 60.0
"""A complaint is repeated this often while its cause lasts."""


def run() -> None:
    settings, params, ledger = Settings().ensure(), load("receive", Params), Ledger.open()
    steps = looks(settings, params, ledger, Hints())
    complained: dict[str, float] = {}
    with serving(ledger, params, settings, settings.origin) as receiver:
        (settings.home / "receiver.up").write_text(str(receiver.port), encoding="utf-8")
        while True:
            look(steps, complained)
            time.sleep(params.poll_seconds)


def look(steps: dict[str, Callable[[], object]], complained: dict[str, float]) -> None:
    """Each step has its turn. `complained`: when it was last said of a step that it failed."""
    for name, step in steps.items():
        try:
            step()
        except Exception as error:  # noqa: BLE001 - whatever a server answers or a file holds: the door stays open
            if time.monotonic() - complained.get(name, -AGAIN_S) >= AGAIN_S:
                complained[name] = time.monotonic()
                # What is not ours may quote what it was about, and that may be a patient.
                text = str(error) if isinstance(error, OsteoflowError) else type(error).__name__
                log.warning("%s: %s; trying again", name, text)


def looks(settings: Settings, params: Params, ledger: Ledger, hints: Hints) -> dict[str, Callable[[], object]]:
    """What is looked at in turn; one that fails (a server that is down, a full disk) keeps no other from its turn."""
    inbox, site, origin = settings.identified / "inbox", settings.site, settings.origin
    steps: dict[str, Callable[[], object]] = {
        "inbox": lambda: watch_once(inbox, ledger, site, origin, params),
    }
    if orthanc := settings.orthanc_url:
        steps["orthanc"] = lambda: follow_orthanc(orthanc, ledger, site, origin)
    if dicomweb := settings.dicomweb_url:
        steps["dicomweb"] = lambda: poll_dicomweb(dicomweb, ledger, site, origin, params)
    if query := settings.dicom_query:
        steps["declared"] = Asking(Pacs.named(query, settings.ae_title, to_the_pacs(settings)), ledger, params)
    steps["complete"] = lambda: hints.give(settle(ledger, params))
    steps["annotations"] = lambda: take_inbox(ledger, params.stable_seconds)
    return steps
