"""One database, SQLite or Postgres, seen the same way: `reading` is a snapshot, `writing` is alone.

Writers are one at a time in both (BEGIN IMMEDIATE, an advisory lock), so that a decision made from what was read
inside a write transaction still holds when it commits.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, OperationalError

from tasks.domain.errors import Unavailable, WrongUse
from tasks.ledger.migrations import LATEST, migrate, version

BUSY_SECONDS = 60
_LOCK = 0x05FE0F10
"""The advisory lock under which writers of a Postgres ledger take turns."""


def connect(url: str | None, identified: Path) -> Engine:
    """The engine for `url` (postgresql://… or sqlite:///…), or for `identified`/ledger.sqlite; migrated."""
    if url is None:
        identified.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = identified / "ledger.sqlite"
        if not path.exists():
            path.touch(mode=0o600)
        url = f"sqlite:///{path}"
    for scheme in ("postgresql://", "postgres://"):
        if url.startswith(scheme):  # SQLAlchemy 2.1 would take psycopg 3, which is not installed
            url = "postgresql+psycopg2://" + url.removeprefix(scheme)
    if url.startswith("sqlite"):
        engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS})
        event.listen(engine, "connect", _sqlite_connection)
        event.listen(engine, "begin", _sqlite_begin)
    elif url.startswith("postgresql+"):
        engine = create_engine(url, pool_pre_ping=True)
    else:
        raise WrongUse("OSTEOFLOW_LEDGER_URL: use postgresql://user@host/name, or leave it out for SQLite")
    with reading(engine) as conn:
        fresh = version(conn) == LATEST
    if not fresh:
        with writing(engine) as conn:
            migrate(conn)
    return engine


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    with _translated(), engine.connect() as conn, conn.begin():
        yield conn


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that no other writer overlaps; committed durably when the block ends without an error."""
    with _translated(), engine.connect().execution_options(writing=True) as conn, conn.begin():
        if engine.dialect.name == "postgresql":
            conn.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
        yield conn


@contextmanager
def _translated() -> Iterator[None]:
    """A database that is not there is Unavailable; its message, which may hold values, is not passed on."""
    try:
        yield
    except OperationalError as error:
        raise Unavailable(f"the ledger does not answer ({type(error.orig).__name__}); is its disk full?") from None
    except DBAPIError as error:
        raise WrongUse(f"the ledger refused a change ({type(error.orig).__name__}): {_first_line(error)}") from None


def _first_line(error: DBAPIError) -> str:
    """What the trigger says; anything else may quote a row, and a row may hold PHI."""
    text = str(error.orig).splitlines()[0]
    return text if "only moves forward" in text else "see the database's own log"


def _sqlite_connection(connection: sqlite3.Connection, record: Any) -> None:
    connection.isolation_level = None  # transactions are begun below, not by the driver
    for pragma in (
        f"busy_timeout={BUSY_SECONDS * 1000}",
        "journal_mode=WAL",
        "synchronous=FULL",  # a row that was committed is there after power fails
        "foreign_keys=ON",
        "secure_delete=ON",  # an erased salt is overwritten in the file
    ):
        connection.execute(f"PRAGMA {pragma}").close()


def _sqlite_begin(conn: Connection) -> None:
    conn.exec_driver_sql("BEGIN IMMEDIATE" if conn.get_execution_options().get("writing") else "BEGIN")
