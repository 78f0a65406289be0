"""Measurements of every hip-visit, each with its error.

Reads  data/hips.parquet and data/hips/ (normalized volumes), data/segments/ (predicted head, lesion and vessel masks,
       made by networks that did not see the patient).
Writes data/measures.parquet, one row for each usable hip-visit. Units: mm, mm3, degrees, fractions of 1; `_se` is the
       standard error of measurement in the same unit (of `<name>_change` those of both visits and of their
       registration). What cannot be measured is null, never 0, with the reason in
       `status`/`reason` (masks) or `vessel_status` (vessels: only from a contrast series of fine enough spacing).
"""

from tasks.measure.measure import finish, item_of, pending, process, run
from tasks.measure.params import Params

__all__ = ["Params", "finish", "item_of", "pending", "process", "run"]
