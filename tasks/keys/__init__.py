"""One project key, and everything that is derived from it: pseudonyms, UIDs, date shifts, encryption, commitments.

The key file is the whole state: the same file gives the same pseudonyms on every machine and in every run.

    key file ──► current key ──HKDF "encryption"──► wraps the crosswalk's data key (AES-256-GCM)
        │            │
        │            └─ fresh file: master = HKDF(key, "master")
        └─ rotated file: master = AES-256-GCM-unwrap(key, the wrapped master that stands in the same file)
    master ──HKDF, one label each──► "pseudonyms" · "uids" · "dates" · "labels" · "readers" · "commitments" · "id"

Rotation makes a new key, wraps the old master with it and rewraps the crosswalk's data key; pseudonyms, UIDs, shifts
and folds stay, and the old file opens nothing that is written afterwards.

Reads and writes, all inside the identified zone (`OSTEOFLOW_HOME/identified`, mode 0700):
keys/project.key (0600) unless `OSTEOFLOW_KEY_FILE` names another · crosswalk/ (one encrypted record a subject) ·
audit.jsonl (append-only, each line chained to the one before).

Normalization, before anything is keyed: a PatientID and a site lose surrounding spaces and NULs and are taken in
Unicode NFC, case and leading zeros kept; a UID loses surrounding spaces and NULs and is otherwise taken as written.
Dates move into the past by 90 to 3650 whole days, the same for all files of a patient (site, PatientID), never zero.
"""

from tasks.keys.audit import Audit
from tasks.keys.crosswalk import Crosswalk, Person, reidentify, rotate
from tasks.keys.derive import SHIFT_DAYS, Keys

__all__ = ["SHIFT_DAYS", "Audit", "Crosswalk", "Keys", "Person", "reidentify", "rotate"]
