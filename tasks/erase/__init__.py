"""Erasure of one subject from the de-identified zone: the plan, the purge, the proof that nothing is left.

Reads  the workspace (data/, models/, reports/) and OSTEOFLOW_HOME without its identified zone, by pseudonym: the
       subject and all UIDs of his studies and series; and facts of the flow (models, snapshots of their tables).
Writes the same places, less the subject: rows out of tables, files and lines that name him removed; and a certificate
       that holds hashes, counts and model versions only.

The identified zone (ledger, salts, crosswalk, originals), DVC's cache, MLflow and Prefect are the flow's: they are
erased by their own tools, with the ids that the plan names. Models that learned from the subject are named `tainted`.
"""

from tasks.erase.plan import Plan, Taint, plan
from tasks.erase.purge import certificate, purge, remaining

__all__ = ["Plan", "Taint", "certificate", "plan", "purge", "remaining"]
