"""Receive: DICOM files into the identified zone, and studies that are complete.

Reads what is sent (C-STORE), dropped (the watched inbox), given (a folder, a zip) or offered (Orthanc's change feed,
DICOMweb). Writes, all below OSTEOFLOW_HOME/identified (0700, files 0600):

    incoming/<session>/<door>/   the journal: fsynced bytes that are not in the ledger yet
    spool/<door>/<row key>/      the files of one study version, byte for byte as they came; door: <origin>@<site>
    quarantine/<key>/original    a file that cannot be used, byte for byte
    inbox/, inbox/annotations/   watched; SEG, RTSTRUCT and SR objects go to the latter
    ledger.sqlite                through tasks.ledger, one row per study version

Every input ends as accepted, duplicate, quarantined with a reason, annotation, or skipped with a reason (DICOMDIR).
Pixels are never decoded. Times are UTC seconds, positions mm in patient LPS. The section `receive` of params.yaml is
this room's, although it is no DVC stage.
"""

from tasks.receive.complete import settle
from tasks.receive.decisions import discard, purge_originals, release, retain, show, withdraw
from tasks.receive.folder import Summary, accept, ingest, watch_once
from tasks.receive.intake import Intake, Outcome
from tasks.receive.params import Params
from tasks.receive.pull import follow_orthanc, poll_dicomweb
from tasks.receive.purge import purge
from tasks.receive.recover import recover

__all__ = [
    "Intake",
    "Outcome",
    "Params",
    "Summary",
    "accept",
    "discard",
    "follow_orthanc",
    "ingest",
    "poll_dicomweb",
    "purge",
    "purge_originals",
    "recover",
    "release",
    "retain",
    "settle",
    "show",
    "watch_once",
    "withdraw",
]
