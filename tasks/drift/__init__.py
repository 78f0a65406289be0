"""Drift: are recent hip-visits still like those that the model was trained on?

Reads  two tables that the flow hands in, one row a hip-visit: QC of the images (hips.parquet), measurements, the
       encoder's features as `feature_<i>`, and the score; `rows` joins them.
Writes nothing: `drift` returns plain numbers, which the flow keeps and `status` shows.

Numbers are compared by the population stability index (PSI, bins by the reference's quantiles, no unit) and the
two-sample Kolmogorov-Smirnov distance with its p-value; words (vendor, roles, abstention) by PSI over their levels.
Hips of one patient are alike, so p-values are computed for the number of patients, not of rows. An alarm is a reason to
look, not a finding. Research use only, not for diagnosis.
"""

from tasks.drift.compare import drift, ks, psi, psi_words
from tasks.drift.params import Params
from tasks.drift.rows import rows

__all__ = ["Params", "drift", "ks", "psi", "psi_words", "rows"]
