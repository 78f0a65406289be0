from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.ledger import Ledger


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.xdist_group("postgres"))])
def ledger(request: pytest.FixtureRequest) -> Iterator[Ledger]:
    """A fresh ledger, on SQLite and, where it is installed, on Postgres: the same tests hold for both."""
    url = None if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    with Ledger.open(url) as opened:
        yield opened


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """A fresh database."""
    import psycopg2

    name = f"ledger_{time.monotonic_ns()}"
    connection = psycopg2.connect(postgres_server + "postgres")
    connection.autocommit = True
    connection.cursor().execute(f"CREATE DATABASE {name}")
    connection.close()
    return postgres_server + name


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """A Postgres of our own on loopback; skipped where it is not installed."""
    programs = [shutil.which(name) for name in ("initdb", "postgres")]
    if None in programs:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
        programs = [str(found[-1] / name) if found else None for name in ("initdb", "postgres")]
    if programs[0] is None or programs[1] is None or not all(Path(str(program)).exists() for program in programs):
        pytest.skip("PostgreSQL (initdb, postgres) is not installed")
    user = None
    if os.getuid() == 0:  # Postgres refuses to run as root
        try:
            pwd.getpwnam(user := "postgres")
        except KeyError:
            pytest.skip("PostgreSQL does not run as root, and there is no user 'postgres'")
    folder = Path(tempfile.mkdtemp(prefix="osteoflow-postgres-"))  # where that user may go
    if user:
        shutil.chown(folder, user)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = folder / "data"
    server = None
    try:
        quiet = {"user": user, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
        subprocess.run([programs[0], "-D", data, "-U", "ledger", "--auth=trust", "--no-sync"], check=True, **quiet)
        words = [programs[1], "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", folder, "-F"]
        server = subprocess.Popen(words, **quiet)
        _wait(port, server)
        yield f"postgresql://ledger@127.0.0.1:{port}/"
    finally:
        if server is not None:
            server.send_signal(signal.SIGINT)  # "fast": connections are closed, not waited for
            server.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def _wait(port: int, server: subprocess.Popen[bytes]) -> None:
    import psycopg2

    for _ in range(200):
        try:
            psycopg2.connect(host="127.0.0.1", port=port, user="ledger", dbname="postgres").close()
            return
        except psycopg2.OperationalError:
            if server.poll() is not None:
                pytest.fail("PostgreSQL is installed and does not start here")
            time.sleep(0.1)
    pytest.fail("PostgreSQL is installed and did not start within 20 s")
