"""The forecaster: an LSTM over visits, residual on a logistic baseline, one for each fold left out.

Reads  data/sequences.parquet and data/sequences.json (names of the features).
Writes models/forecast/ (fold<k>.safetensors + .json, ensemble.json, inputs.json), data/predictions.parquet (estimated
       risk of progression within the horizon, 0..1, with its interval; out of fold for training patients, the ensemble
       for the rest; the baselines as risk_<name>; seen_risk and unseen_vendor_risk, see checks.py; an
       ineligible hip-visit has none), reports/forecast/ (metrics.json, run.jsonl).

The loss is the discrete-time hazard over intervals of the horizon, so that a hip that was lost before the horizon still
counts for the intervals it was seen in; a loss on known labels alone would throw it away.
Imputation, scaling, baselines, LSTM, distance and the calibration of a fold's out-of-fold predictions are fitted on the
patients outside that fold alone (the last by an inner cross-validation): a label has no way to its own prediction.
"""

from tasks.forecast.forecast import run
from tasks.forecast.params import Params

__all__ = ["Params", "run"]
