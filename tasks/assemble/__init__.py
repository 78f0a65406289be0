"""One row for each usable hip-visit, in time order, with its landmark label.

Reads  data/features.parquet, data/measures.parquet, data/annotations.parquet, data/hips.parquet, data/split.parquet.
Writes data/sequences.parquet and data/sequences.json (names of the vector `features`, the horizon). Times are days.

A row uses nothing dated after its visit, except for its label and the columns that describe the label's future:
`event`, `event_in_days`, `followed_days`. Those three are never features.
"""

from tasks.assemble.assemble import feature_names, rows_for, run
from tasks.assemble.params import Params

__all__ = ["Params", "feature_names", "rows_for", "run"]
