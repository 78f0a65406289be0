"""`osteoflow serve`: everything that runs for ever, in one process group, on loopback.

    receiver      C-STORE and the watched inbox → spool → ledger, and a hint to Prefect that never blocks it
    prefect       server with its own database under OSTEOFLOW_HOME
    deployments   arrive (by hint), sweep (by schedule: what a hint missed), watch and retrain
    mlflow        the registry's UI
    site          the audit site

Each is a child; when one ends, the others are ended too, and Ctrl-C ends all of them.
"""

from __future__ import annotations

import functools
import http.server
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from flows.environment import prepare
from tasks.domain.errors import OsteoflowError, Unavailable
from tasks.domain.settings import Settings

log = logging.getLogger("osteoflow.serve")

PREFECT_PORT, MLFLOW_PORT = 4200, 5000
DEPLOYMENTS = 3
"""How many `deployments` serves."""
START_PATIENCE_S = 300.0
"""A slow machine was seen to need 30 s for a fresh Prefect database; ten times that before giving up."""


@dataclass(frozen=True)
class Child:
    name: str
    command: tuple[str, ...]
    url: str = ""
    """Answers once the child is up; empty: it is up when it is alive."""


def children(settings: Settings) -> list[Child]:
    here = sys.executable
    prefect, mlflow = port("OSTEOFLOW_PREFECT_PORT", PREFECT_PORT), port("OSTEOFLOW_MLFLOW_PORT", MLFLOW_PORT)
    return [
        Child(
            "prefect",
            (here, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(prefect)),
            f"http://127.0.0.1:{prefect}/api/health",
        ),
        Child(
            "mlflow",
            (here, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(mlflow), "--workers", "1",
             "--backend-store-uri", os.environ["MLFLOW_TRACKING_URI"],
             "--artifacts-destination", str(settings.home / "mlartifacts")),
            f"http://127.0.0.1:{mlflow}/health",
        ),
        Child("receiver", (here, "-m", "flows.serve", "receiver")),
        Child("deployments", (here, "-m", "flows.serve", "deployments")),
    ]  # fmt: skip


def port(name: str, default: int) -> int:
    return int(os.environ.get(name, default))


def run(console: Console, check: bool = False) -> None:
    """Start everything and wait. With `check`: wait until all of it answers, say so, and stop."""
    settings = prepare()
    logs = settings.home / "logs"
    logs.mkdir(exist_ok=True)
    site = _site(settings)
    wanted = children(settings)
    environment = os.environ | {"PREFECT_API_URL": wanted[0].url.removesuffix("/health")}
    started: list[tuple[Child, subprocess.Popen[bytes]]] = []
    table = Table("what", "where", title="osteoflow serve")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        for child in wanted:
            log = open(logs / f"{child.name}.log", "ab")  # noqa: SIM115 - lives as long as the child
            process = subprocess.Popen(child.command, stdout=log, stderr=log, env=environment, start_new_session=True)
            started.append((child, process))
            if child.url:
                _wait(child, process)
            table.add_row(child.name, child.url.removesuffix("/health").removesuffix("/api") or f"pid {process.pid}")
        table.add_row("DICOM", f"{settings.ae_title} at 127.0.0.1:{settings.dicom_port}")
        table.add_row("inbox", str(settings.identified / "inbox"))
        table.add_row("audit site", f"http://127.0.0.1:{settings.http_port}")
        _write_state(settings, environment["PREFECT_API_URL"])
        if check:
            _wait_receiver(settings, environment["PREFECT_API_URL"], started)
        console.print(table)
        while not check:
            for child, process in started:
                if process.poll() is not None:
                    raise Unavailable(f"{child.name} ended with {process.returncode}; see {logs / child.name}.log")
            time.sleep(1)
    except KeyboardInterrupt:
        console.print("stopping")
    finally:
        _stop([process for _, process in started])
        site.shutdown()
        (settings.home / "serve.json").unlink(missing_ok=True)


def _wait(child: Child, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_PATIENCE_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise Unavailable(f"{child.name} ended with {process.returncode} while starting; its log is under logs/")
        try:
            with urllib.request.urlopen(child.url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise Unavailable(f"{child.name} did not answer within {START_PATIENCE_S:.0f} s")


def _wait_receiver(settings: Settings, api: str, started: list[tuple[Child, subprocess.Popen[bytes]]]) -> None:
    import socket

    deadline = time.monotonic() + START_PATIENCE_S
    while time.monotonic() < deadline:
        for child, process in started:
            if process.poll() is not None:
                raise Unavailable(
                    f"{child.name} ended with {process.returncode} while starting; its log is under logs/"
                )
        with socket.socket() as probe:
            probe.settimeout(1)
            if (
                probe.connect_ex(("127.0.0.1", settings.dicom_port)) == 0
                and (settings.home / "deployments.up").exists()
            ):
                return
        time.sleep(0.3)
    raise Unavailable(f"the receiver and the deployments were not up within {START_PATIENCE_S:.0f} s")


def _deployed(api: str) -> int:
    """How many deployments the server knows."""
    asked = urllib.request.Request(f"{api}/deployments/count", data=b"{}", headers={"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(asked, timeout=5) as answer:
            return int(answer.read())
    except (urllib.error.URLError, OSError, ValueError):
        return 0


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    """End each child's group: first asked, then told."""
    for sign, patience in ((signal.SIGINT, 5.0), (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        for process in processes:
            if process.poll() is None:
                try:
                    os.killpg(process.pid, sign)
                except ProcessLookupError:
                    continue
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline and any(process.poll() is None for process in processes):
            time.sleep(0.1)


def _site(settings: Settings) -> http.server.ThreadingHTTPServer:
    folder = Path("reports/site").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "index.html").exists():
        (folder / "index.html").write_text("<!doctype html><title>osteoflow</title><p>No dataset run yet.</p>\n")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Requests are nobody's business."""

    handler = functools.partial(Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", settings.http_port), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def _write_state(settings: Settings, api: str) -> None:
    """Other commands of this workspace use the server that is up rather than start their own."""
    state = {"prefect_api_url": api, "pid": os.getpid()}
    (settings.home / "serve.json").write_text(json.dumps(state), encoding="utf-8")


# ---- children -------------------------------------------------------------------------------------------------------


def receiver() -> None:
    """C-STORE, the watched inbox and the feeds, until ended. A complete study is a hint for Prefect, no more."""
    from flows.annotations import take_inbox
    from flows.arrive import hint
    from tasks.domain.params import load
    from tasks.ledger import Ledger
    from tasks.receive import Params, follow_orthanc, poll_dicomweb, settle, watch_once
    from tasks.receive.scp import serving

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    settings = Settings()
    params = load("receive", Params)
    ledger = Ledger.open()
    inbox, site = settings.identified / "inbox", settings.site

    def look() -> None:
        watch_once(inbox, ledger, site, "hospital", params)
        if settings.orthanc_url:
            follow_orthanc(settings.orthanc_url, ledger, site, "hospital")
        if settings.dicomweb_url:
            poll_dicomweb(settings.dicomweb_url, ledger, site, "hospital", params)
        for row_key in settle(ledger, params):
            hint(row_key)
        take_inbox(ledger, params.stable_seconds)

    with serving(ledger, params, settings):
        while True:
            try:
                look()
            except OsteoflowError as error:
                log.warning("%s; trying again", error)
            time.sleep(params.poll_seconds)


def deployments() -> None:
    """Serve the flows: by hint, by schedule."""
    from datetime import timedelta

    import prefect
    from prefect.events import DeploymentEventTrigger

    from flows.arrive import HINT, arrive
    from flows.watch import watch

    trigger = DeploymentEventTrigger(name="a study is complete", expect={HINT})
    made = [
        arrive.to_deployment(
            "arrive", triggers=[trigger], concurrency_limit=1, description="Work on what has arrived, by hint"
        ),
        arrive.to_deployment(
            "sweep", interval=timedelta(minutes=1), concurrency_limit=1, description="What a hint missed"
        ),
        watch.to_deployment(
            "watch", interval=timedelta(minutes=10), concurrency_limit=1, description="Retrain when due"
        ),
    ]
    prefect.serve(*made, pause_on_shutdown=False)  # type: ignore[arg-type]


if __name__ == "__main__":
    prepare()
    {"receiver": receiver, "deployments": deployments}.get(sys.argv[1], lambda: typer.Exit(2))()
