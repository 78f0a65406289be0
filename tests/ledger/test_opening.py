from __future__ import annotations

import multiprocessing
import subprocess
import sys
from pathlib import Path

import pytest
from arrivals import open_at_once
from sqlalchemy import inspect, text

from tasks.domain.errors import Unavailable, WrongUse
from tasks.ledger import Ledger
from tasks.ledger.migrations import LATEST
from tasks.ledger.tables import metadata


def test_migrations_make_the_tables_that_queries_use(ledger: Ledger) -> None:
    found = inspect(ledger.engine)
    for table in metadata.sorted_tables:
        assert {column["name"] for column in found.get_columns(table.name)} == {c.name for c in table.columns}
    assert set(found.get_table_names()) == {table.name for table in metadata.sorted_tables} | {"schema_version"}


def test_a_ledger_of_a_newer_osteoflow_is_left_alone(ledger: Ledger) -> None:
    with ledger.engine.connect() as conn, conn.begin():
        conn.execute(text("INSERT INTO schema_version (number) VALUES (:n)"), {"n": LATEST + 1})
    with pytest.raises(WrongUse, match="newer osteoflow"):
        Ledger.open(ledger.engine.url.render_as_string(hide_password=False))


def test_the_default_is_private_and_durable(home: Path) -> None:
    with Ledger.open() as ledger:
        assert (home / "identified").stat().st_mode & 0o777 == 0o700
        assert (home / "identified" / "ledger.sqlite").stat().st_mode & 0o777 == 0o600
        with ledger.engine.connect() as conn:
            pragmas = [conn.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")]
    assert pragmas == ["wal", 2]


def test_the_url_comes_from_the_environment(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OSTEOFLOW_LEDGER_URL", f"sqlite:///{tmp_path}/elsewhere.sqlite")
    Ledger.open().close()
    assert (tmp_path / "elsewhere.sqlite").exists()
    assert not (home / "identified" / "ledger.sqlite").exists()
    with pytest.raises(WrongUse, match="postgresql://"):
        Ledger.open("mysql://somewhere")
    with pytest.raises(Unavailable, match="does not answer"):
        Ledger.open("postgresql://nobody@127.0.0.1:1/none")


def test_two_processes_may_make_it_at_once() -> None:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    workers = [context.Process(target=open_at_once, args=(barrier,)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 2


def test_it_is_imported_without_a_dicom_library() -> None:
    code = "import sys, tasks.ledger; assert not {'pydicom', 'pynetdicom', 'numpy', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
