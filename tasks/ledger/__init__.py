"""The ledger: the truth of arrival. Reads and writes one database in the identified zone, and nothing else.

By default `OSTEOFLOW_HOME/identified/ledger.sqlite` (WAL, synchronous FULL, deleted content overwritten); Postgres when
`OSTEOFLOW_LEDGER_URL` says so. One row per study VERSION under an opaque random row key. Its state only moves forward,
held by the code and by a trigger in the database:

    receiving → complete → claimed → done        and from each of the first three → quarantined

A scan has arrived when its bytes are fsynced in the spool and its row is committed here. A version is superseded
(`current` false) when a later one of the same study exists; counts, claims and leases see current versions only.

Times are UTC seconds since the epoch. They pair a study with the real day on which it came, so they stay in this zone.
Paths in the database are relative to `OSTEOFLOW_HOME/identified`; StudyVersion.files holds them absolute.
No DICOM library is imported here, and no file is touched: `receive` moves files and tells the ledger.
"""

from tasks.ledger.arrivals import Arrival, Spool, Verdict
from tasks.ledger.batches import Erased
from tasks.ledger.ledger import Ledger
from tasks.ledger.quarantine import NEVER_RELEASED, Entry
from tasks.ledger.studies import SpoolFile, StudyVersion
from tasks.ledger.tables import STATES

__all__ = [
    "NEVER_RELEASED",
    "STATES",
    "Arrival",
    "Entry",
    "Erased",
    "Ledger",
    "Spool",
    "SpoolFile",
    "StudyVersion",
    "Verdict",
]
