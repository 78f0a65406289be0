"""Numbered migrations: each is a list of SQL statements, run once, in order, in one transaction. Never edit one that
has been released; append. `{dialect}` blocks say what only one of SQLite and Postgres understands."""

from __future__ import annotations

from sqlalchemy import Connection

from tasks.domain.errors import WrongUse
from tasks.ledger.tables import FORWARD

_ALLOWED = " OR ".join(
    f"(OLD.state = '{before}' AND NEW.state IN ({', '.join(repr(state) for state in after)}))"
    for before, after in FORWARD.items()
    if after
)

MIGRATIONS: tuple[tuple[int, tuple[str | dict[str, str], ...]], ...] = (
    (
        1,
        (
            """CREATE TABLE studies (
                row_key TEXT PRIMARY KEY, site TEXT NOT NULL, study_uid TEXT NOT NULL, patient_id TEXT NOT NULL,
                version INTEGER NOT NULL, current INTEGER NOT NULL, state TEXT NOT NULL, origin TEXT NOT NULL,
                digest TEXT, n_files INTEGER NOT NULL, declared INTEGER, waiting TEXT,
                first_received DOUBLE PRECISION NOT NULL, last_received DOUBLE PRECISION NOT NULL,
                completed_at DOUBLE PRECISION, batch TEXT, salt TEXT, commitment TEXT, purged INTEGER NOT NULL,
                lease_owner TEXT, lease_until DOUBLE PRECISION, arrived_at DOUBLE PRECISION,
                scored_by TEXT, scored_at DOUBLE PRECISION,
                UNIQUE (site, study_uid, version))""",
            "CREATE INDEX studies_state ON studies (state, current)",
            "CREATE INDEX studies_uid ON studies (study_uid)",
            "CREATE INDEX studies_patient ON studies (site, patient_id)",
            "CREATE INDEX studies_batch ON studies (batch)",
            "CREATE UNIQUE INDEX studies_commitment ON studies (commitment)",
            """CREATE TABLE files (
                row_key TEXT NOT NULL, sop_uid TEXT NOT NULL, series_uid TEXT NOT NULL, sha256 TEXT NOT NULL,
                size BIGINT NOT NULL, path TEXT NOT NULL, geometry TEXT, PRIMARY KEY (row_key, sop_uid))""",
            """CREATE TABLE quarantine (
                key TEXT PRIMARY KEY, row_key TEXT, site TEXT, study_uid TEXT, patient_id TEXT, origin TEXT,
                reason TEXT NOT NULL, detail TEXT, path TEXT, sha256 TEXT, state TEXT NOT NULL,
                created DOUBLE PRECISION NOT NULL, decided DOUBLE PRECISION, who TEXT, why TEXT)""",
            "CREATE INDEX quarantine_state ON quarantine (state, reason)",
            "CREATE INDEX quarantine_row ON quarantine (row_key)",
            "CREATE INDEX quarantine_sha256 ON quarantine (sha256)",
            """CREATE TABLE batches (
                batch TEXT PRIMARY KEY, number INTEGER NOT NULL UNIQUE, owner TEXT NOT NULL,
                claimed_at DOUBLE PRECISION NOT NULL, written_at DOUBLE PRECISION, finished_at DOUBLE PRECISION)""",
            """CREATE TABLE runs (
                id TEXT PRIMARY KEY, number INTEGER NOT NULL, started DOUBLE PRECISION NOT NULL,
                ended DOUBLE PRECISION, status TEXT NOT NULL, why TEXT, batch TEXT, lineage TEXT, model TEXT)""",
            "CREATE TABLE notes (name TEXT PRIMARY KEY, value TEXT, at DOUBLE PRECISION NOT NULL)",
            "CREATE TABLE purges (path TEXT PRIMARY KEY, since DOUBLE PRECISION NOT NULL)",
            {
                "sqlite": f"""CREATE TRIGGER studies_forward BEFORE UPDATE OF state ON studies
                    WHEN NEW.state <> OLD.state AND NOT ({_ALLOWED})
                    BEGIN SELECT RAISE(ABORT, 'a study version only moves forward'); END""",
                "postgresql": f"""CREATE FUNCTION studies_forward() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                    IF NEW.state <> OLD.state AND NOT ({_ALLOWED}) THEN
                        RAISE EXCEPTION 'a study version only moves forward' USING ERRCODE = 'check_violation';
                    END IF;
                    RETURN NEW; END $$""",
            },
            {
                "postgresql": """CREATE TRIGGER studies_forward BEFORE UPDATE OF state ON studies
                    FOR EACH ROW EXECUTE FUNCTION studies_forward()""",
            },
        ),
    ),
)

LATEST = MIGRATIONS[-1][0]


def version(conn: Connection) -> int:
    """The number of the last migration that ran, 0 for an empty database."""
    from sqlalchemy import inspect

    if not inspect(conn).has_table("schema_version"):
        return 0
    return conn.exec_driver_sql("SELECT MAX(number) FROM schema_version").scalar() or 0


def migrate(conn: Connection) -> None:
    """Bring the database to LATEST, inside the caller's write transaction."""
    at = version(conn)
    if at > LATEST:
        raise WrongUse(f"the ledger is of a newer osteoflow (schema {at}, this one knows {LATEST}): update osteoflow")
    if at == 0:
        conn.exec_driver_sql("CREATE TABLE schema_version (number INTEGER PRIMARY KEY)")
    for number, statements in MIGRATIONS:
        if number <= at:
            continue
        for statement in statements:
            sql = statement if isinstance(statement, str) else statement.get(conn.dialect.name)
            if sql:
                conn.exec_driver_sql(sql)
        conn.exec_driver_sql(f"INSERT INTO schema_version (number) VALUES ({number})")
