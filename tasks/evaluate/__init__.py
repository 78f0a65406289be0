"""How good the estimated risk is: discrimination and calibration, with intervals that resample patients.

Reads  data/sequences.parquet (labels, folds), data/predictions.parquet (risks, and one column `risk_<baseline>` a
       baseline), data/measures.parquet, data/annotations.parquet, data/hips.parquet, data/series.parquet (vendors).
Writes reports/evaluate.json, and reports/evaluate/: tables (CSV) and figures (SVG).

The primary set is the frozen test patients' hip-visits with a known label. When they hold no event (or nothing but
events), the out-of-fold predictions of the other patients stand in, and `population` says so. A hip-visit is a
landmark: its label is progression within `horizon_days` after it; censored ones are counted, never scored.
Risks are probabilities 0 to 1, times are days. Every number has its n, unit (hip-visit, hip or patient) and 95%
interval. Research use only, not for diagnosis.
"""

from tasks.evaluate.evaluate import run
from tasks.evaluate.versus import versus

__all__ = ["run", "versus"]
