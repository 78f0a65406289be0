"""The package as MLflow takes it: models from code, no pickle, nulls allowed, nothing of the checkout imported."""

import json
import os
import subprocess
import sys
import textwrap

SCRIPT = """
import json, sys, mlflow, numpy as np, pandas as pd
from pathlib import Path
from mlflow.models import ModelSignature
package, sequences = Path(sys.argv[1]), sys.argv[2]
found = json.loads((package / "signature.json").read_text())
signature = ModelSignature.from_dict({k: None if v is None else json.dumps(v) for k, v in found.items()})
example = pd.DataFrame(json.loads((package / "input_example.json").read_text()))
mlflow.pyfunc.save_model(
    sys.argv[3], python_model=str(package / "model.py"), artifacts={"package": str(package)},
    signature=signature, input_example=example, pip_requirements=["mlflow", "torch"])
model = mlflow.pyfunc.load_model(sys.argv[3])
frame = pd.read_parquet(sequences)
whole = model.predict(frame)
assert list(whole) == ["hip_visit", "risk", "risk_low", "risk_high", "abstain"], list(whole)
assert list(whole["hip_visit"]) == list(frame["hip_visit"])
assert np.isfinite(whole["risk"]).all()
assert (whole.loc[frame["features"].isna(), "abstain"] != "").all()
nulls = frame.assign(label=None, treatment=None, days_since_treatment=None, delta_days=None)
assert np.array_equal(model.predict(nulls)["risk"], whole["risk"])
few = model.predict(frame[["hip", "hip_visit", "days", "features"]])
assert np.array_equal(few["risk"], whole["risk"])
assert len(model.predict(example)) == len(example)
try:
    model.predict(frame.drop(columns="hip_visit"))
except Exception as error:
    assert "hip_visit" in str(error)
else:
    raise AssertionError("a table without hip_visit was taken")
files = [p.name for p in Path(sys.argv[3]).rglob("*") if p.is_file()]
assert files and not [f for f in files if f.endswith((".pkl", ".pickle", ".pt", ".pth", ".joblib"))], files
print(json.dumps(sorted(name for name in sys.modules if name == "tasks" or name.startswith("tasks."))))
"""


def test_it_saves_loads_and_predicts_without_pickle_and_without_the_checkout(package, tmp_path):
    place = tmp_path / "mlflow"
    place.mkdir()
    environment = os.environ | {
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            textwrap.dedent(SCRIPT),
            str(package.resolve()),
            str((tmp_path / "data/sequences.parquet").resolve()),
            str(place / "model"),
        ],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.strip().splitlines()[-1]) == []
