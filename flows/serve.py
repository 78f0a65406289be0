"""`osteoflow serve`: everything that runs for ever, in one process group, on loopback.

    receiver      C-STORE, the watched inbox and the feeds → spool → ledger; needs nothing of the others
    worker        resident and warm: what is complete is anonymized, standardized and scored at once
    prefect       server with its own database under OSTEOFLOW_HOME, unless PREFECT_API_URL names one elsewhere
    deployments   infra/prefect.yaml: the sweep, the watch that retrains, retrain by hand
    mlflow        the registry's UI, unless MLFLOW_TRACKING_URI names a server
    site          the audit site

Each is a child; one that dies is started again, and Ctrl-C ends all of them. The receiver starts first, then the
worker: neither a scanner nor a study waits for Prefect's database.
"""

from __future__ import annotations

import functools
import http.server
import importlib
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from flows.alone import locked
from flows.environment import prepare
from flows.supervise import Child, Supervisor, end_left
from tasks.domain.settings import Settings

PREFECT_PORT, MLFLOW_PORT = 4200, 5000
ROLES = ("receiver", "worker", "deployments")
"""Children that are modules of flows/ with a `run()`."""
FIRST = ("receiver", "prefect")
"""Waited for before the next is started: files come at once, and deployments need Prefect's API."""


def children(settings: Settings) -> list[Child]:
    here = sys.executable
    prefect, mlflow = port("OSTEOFLOW_PREFECT_PORT", PREFECT_PORT), port("OSTEOFLOW_MLFLOW_PORT", MLFLOW_PORT)
    own = Path(os.environ.get("PREFECT_HOME", settings.home / "prefect")) / "prefect.db"  # not there with Postgres
    ledger = None if settings.ledger_url else settings.identified / "ledger.sqlite"
    holding = {"receiver": ledger, "worker": ledger}
    roles = {
        name: Child(
            name, (here, "-m", "flows.serve", name), mark=settings.home / f"{name}.up", file=holding.get(name)
        )
        for name in ROLES
    }  # fmt: skip
    wanted = [
        roles["receiver"],
        roles["worker"],
        Child(
            "prefect",
            (here, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(prefect)),
            f"http://127.0.0.1:{prefect}/api/health",
            works=f"http://127.0.0.1:{prefect}/api/flows/count",  # asks the database, which `health` does not
            file=own,
        ),
        roles["deployments"],
        Child(
            "mlflow",
            (here, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(mlflow), "--workers", "1",
             "--backend-store-uri", os.environ["MLFLOW_TRACKING_URI"],
             "--artifacts-destination", str(settings.home / "mlartifacts")),
            f"http://127.0.0.1:{mlflow}/health",
        ),
    ]  # fmt: skip
    return [child for child in wanted if child.name not in elsewhere()]


def elsewhere() -> dict[str, str]:
    """Servers that the user has: none of our own is started in their place."""
    named = {
        "prefect": os.environ.get("PREFECT_API_URL", ""),
        "mlflow": os.environ.get("MLFLOW_TRACKING_URI", ""),
    }
    return {name: url for name, url in named.items() if url.startswith("http")}


def prefect_api() -> str:
    ours = f"http://127.0.0.1:{port('OSTEOFLOW_PREFECT_PORT', PREFECT_PORT)}/api"
    return elsewhere().get("prefect", ours)


def port(name: str, default: int) -> int:
    return int(os.environ.get(name, default))


def run(console: Console, check: bool = False) -> None:
    """Start everything and wait. With `check`: wait until all of it answers, say so, and stop."""
    settings = prepare()
    with locked(settings.home / "serve.lock", "osteoflow serve is running in this workspace, or is still stopping"):
        end_left(settings)
        supervisor = Supervisor(settings, os.environ | {"PREFECT_API_URL": prefect_api()})
        for one in (signal.SIGTERM, signal.SIGINT):  # a shell's background job ignores the second one
            signal.signal(one, signal.default_int_handler)
        site = _site(settings)
        try:
            _start(supervisor, settings, console)
            if not check:
                supervisor.watch()
        except KeyboardInterrupt:
            console.print("stopping")
        finally:
            supervisor.stop()
            site.shutdown()


def _start(supervisor: Supervisor, settings: Settings, console: Console) -> None:
    wanted, began = children(settings), time.monotonic()

    def up(child: Child) -> None:
        supervisor.wait(child.name)
        console.print(f"{child.name:12} up after {time.monotonic() - began:.0f} s")

    table = Table("what", "where", title="osteoflow serve")
    console.print("starting; the first time in a workspace, Prefect and MLflow make their databases (about a minute)")
    for child in wanted:
        pid = supervisor.start(child, wait=False)
        if child.name in FIRST:
            up(child)
        table.add_row(child.name, child.url.removesuffix("/health").removesuffix("/api") or f"pid {pid}")
    for child in wanted:
        if child.name not in FIRST:
            up(child)
    for name, url in elsewhere().items():
        table.add_row(name, url)
    table.add_row("DICOM", f"{settings.ae_title} at {settings.dicom_host}:{settings.dicom_port}")
    table.add_row("inbox", str(settings.identified / "inbox"))
    table.add_row("audit site", f"http://127.0.0.1:{settings.http_port}")
    console.print(table)


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


if __name__ == "__main__":
    prepare()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    for noisy in ("httpx", "prefect", "alembic", "pynetdicom"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    if sys.argv[1:] == [] or sys.argv[1] not in ROLES:
        sys.exit(f"one of: {', '.join(ROLES)}")
    importlib.import_module(f"flows.{sys.argv[1]}").run()
