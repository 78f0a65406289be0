"""De-identify DICOM by PS3.15 Annex E (edition 2026d), and verify every file before it is released.

Reads data/batches/*.parquet (salted commitments) and, through the ledger, the originals in the identified zone.
Writes data/studies/<batch>/<study>-v<version>.zip (stored DICOM Part 10 files named <series>/<sop>.dcm) and
data/studies.parquet: one row a study version with `date` (ISO, the earliest AcquisitionDate, else SeriesDate, else
StudyDate, as released), `days` (since the subject's first released visit), `files` (released) and `refused` (kept back
by policy, kinds in `reason`), `status` released | superseded | frozen | quarantined.

`anonymize_tree` is the same for a folder of files, `release` for the bytes of one. Way of a file: judged
(tasks.store.dicom, release.inspect), rewritten (policy + values + rewrite; lenient puts unusual files in order first),
verified by code of its own (verify, forbidden). A study with one file that is broken or fails is not released.
"""

from tasks.anonymize.params import Params
from tasks.anonymize.recheck import recheck, subject_of
from tasks.anonymize.release import REFUSALS, Released, inspect, release
from tasks.anonymize.stage import finish, item_of, pending, process, quarantined_keys, run
from tasks.anonymize.tree import PRELOAD, anonymize_tree, list_files

__all__ = [
    "PRELOAD",
    "REFUSALS",
    "Params",
    "Released",
    "anonymize_tree",
    "finish",
    "inspect",
    "item_of",
    "list_files",
    "pending",
    "process",
    "quarantined_keys",
    "recheck",
    "release",
    "run",
    "subject_of",
]
