"""The tables of the ledger, as queries see them. `migrations` makes them; a test holds the two together.

Booleans are 0 and 1, times are UTC seconds since the epoch: both mean the same in SQLite and in Postgres.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Integer, MetaData, Table, Text

STATES = ("receiving", "complete", "claimed", "done", "quarantined")

FORWARD = {
    "receiving": ("complete", "quarantined"),
    "complete": ("claimed", "quarantined"),
    "claimed": ("done", "quarantined"),
    "done": (),
    "quarantined": (),
}
"""From each state, the states that may follow."""

metadata = MetaData()

studies = Table(
    "studies",
    metadata,
    Column("row_key", Text, primary_key=True),
    Column("site", Text),
    Column("study_uid", Text),
    Column("patient_id", Text),
    Column("version", Integer),
    Column("current", Integer),
    Column("state", Text),
    Column("origin", Text),
    Column("digest", Text),
    Column("n_files", Integer),
    Column("declared", Integer),
    Column("waiting", Text),
    Column("first_received", Float),
    Column("last_received", Float),
    Column("completed_at", Float),
    Column("batch", Text),
    Column("salt", Text),
    Column("commitment", Text),
    Column("purged", Integer),
    Column("lease_owner", Text),
    Column("lease_until", Float),
    Column("arrived_at", Float),
    Column("scored_by", Text),
    Column("scored_at", Float),
)
"""One row per study version. `declared`: files that the sender says the study has (0020,1208). `waiting`: why a
receiving version is not complete yet, without PHI. `salt` goes at erasure; without it a commitment says nothing."""

files = Table(
    "files",
    metadata,
    Column("row_key", Text, primary_key=True),
    Column("sop_uid", Text, primary_key=True),
    Column("series_uid", Text),
    Column("sha256", Text),
    Column("size", BigInteger),
    Column("path", Text),
    Column("geometry", Text),
)
"""`geometry`: what the check for missing slices needs, as `receive` wrote it (JSON)."""

quarantine = Table(
    "quarantine",
    metadata,
    Column("key", Text, primary_key=True),
    Column("row_key", Text),
    Column("site", Text),
    Column("study_uid", Text),
    Column("patient_id", Text),
    Column("origin", Text),
    Column("reason", Text),
    Column("detail", Text),
    Column("path", Text),
    Column("sha256", Text),
    Column("state", Text),
    Column("created", Float),
    Column("decided", Float),
    Column("who", Text),
    Column("why", Text),
)
"""A held file (row_key null) or study version. `state`: held | released | discarded, with who decided and why."""

batches = Table(
    "batches",
    metadata,
    Column("batch", Text, primary_key=True),
    Column("number", Integer),
    Column("owner", Text),
    Column("claimed_at", Float),
    Column("written_at", Float),
    Column("finished_at", Float),
)

runs = Table(
    "runs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("number", Integer),
    Column("started", Float),
    Column("ended", Float),
    Column("status", Text),
    Column("why", Text),
    Column("batch", Text),
    Column("lineage", Text),
    Column("model", Text),
)
"""Runs of the dataset loop. `status`: running, then what the flow says (finished | refused | failed | crashed)."""

notes = Table(
    "notes",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text),
    Column("at", Float),
)
"""Positions of feeds, the time of the last label: small things that must survive a restart."""

purges = Table(
    "purges",
    metadata,
    Column("path", Text, primary_key=True),
    Column("since", Float),
)
"""Folders and files whose rows are erased and whose bytes are still to be removed."""
