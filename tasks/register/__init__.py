"""The self-contained package that the registry takes: weights, the forecaster's code, parameters, signature, card.

Reads  models/classify, models/segment, models/forecast (safetensors and JSON), tasks/nets/forecaster.py,
       data/sequences.parquet, data/hips.parquet, data/series.parquet (vendors), reports/evaluate.json, and the sections
       of params.yaml that scoring needs.
Writes models/package/:
       package.json        what it is: origin, horizon_days (days), features, counts, scores, sha256 of every other file
       model.py            MLflow model from code (text of `model.py.txt` here; nothing under tasks imports MLflow)
       forecaster.py, forecast/, classify/, segment/, params.json, signature.json, input_example.json, card.md

It holds no run id, no time and no row of any patient: the same inputs are the same bytes, and the example's values are
medians over training hip-visits. Research use only, not for diagnosis.
"""

from tasks.register.package import differences, package_digest, read_package
from tasks.register.register import run
from tasks.register.signature import input_example, signature_json

__all__ = ["differences", "input_example", "package_digest", "read_package", "run", "signature_json"]
