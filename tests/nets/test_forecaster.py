"""The forecaster that goes into the package: nothing later changes anything earlier, and nulls are no error."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tasks.nets import forecaster
from tasks.nets.forecaster import Ensemble, Member, Residual, with_past

NAMES = ["a", "b", "c", "missing_t1", "missing_fluid"]


def member(seed: int) -> Member:
    rng = np.random.default_rng(seed)
    n = len(NAMES)
    torch.manual_seed(seed)
    residual = Residual(n, 8)
    with torch.no_grad():
        residual.head.weight.normal_(0, 0.5)
    return Member(
        impute=np.zeros(n), centre=rng.normal(size=n), scale=rng.uniform(0.5, 2, n), weight=rng.normal(0, 0.3, 3 * n),
        alpha=np.array([-2.5, -2.0]), spread=rng.normal(0, 0.2, (20, 3 * n + 1)), whiten=np.eye(n),
        residual=residual.eval(), amount=1.0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def ensemble() -> Ensemble:
    facts = {
        "features": NAMES, "calibration": {"intercept": 0.1, "slope": 0.9}, "interval": 0.95, "horizon_days": 365.0,
        "required_roles": ["t1"], "usual": [True] * 5, "max_missing_share": 0.5, "distance_limit": 3.0,
    }  # fmt: skip
    return Ensemble({f"fold{k}": member(k) for k in range(3)}, facts)


def hips(n: int = 12, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    rows = []
    for hip in range(n):
        day = 0.0
        for visit in range(int(rng.integers(1, 7))):
            vector = np.where(rng.random(5) < 0.15, np.nan, rng.normal(size=5))
            vector[3:] = 0.0
            rows.append({"hip": f"S{hip}-L", "hip_visit": f"1.{hip}.{visit}-L", "days": day, "features": vector})
            day += float(rng.integers(20, 400))
    return pd.DataFrame(rows).sample(frac=1, random_state=seed).reset_index(drop=True)


def test_deleting_all_later_visits_changes_no_prediction_by_a_bit(ensemble: Ensemble) -> None:
    frame = hips(40)
    whole = ensemble.predict(frame).set_index("hip_visit")
    for row in frame.itertuples():
        past = frame[(frame["hip"] == row.hip) & (frame["days"] <= row.days)]
        then = ensemble.predict(past).set_index("hip_visit").loc[row.hip_visit]
        for column in ("risk", "risk_low", "risk_high"):
            assert np.float64(then[column]).tobytes() == np.float64(whole.loc[row.hip_visit, column]).tobytes()
        assert then["abstain"] == whole.loc[row.hip_visit, "abstain"]


def test_other_hips_and_the_order_of_rows_change_nothing(ensemble: Ensemble) -> None:
    frame = hips(15)
    whole = ensemble.predict(frame)
    mixed = frame.sample(frac=1, random_state=4)
    again = ensemble.predict(mixed).set_index("hip_visit").loc[frame["hip_visit"]].reset_index()
    pd.testing.assert_frame_equal(whole, again, check_exact=True)
    assert whole["hip_visit"].tolist() == frame["hip_visit"].tolist()


def test_the_past_matters_and_so_does_the_time_between(ensemble: Ensemble) -> None:
    frame = hips(30)
    last = frame.sort_values("days").groupby("hip").tail(1)
    several = frame.groupby("hip")["days"].transform("size")[last.index] > 2
    with_history = ensemble.predict(frame).set_index("hip_visit").loc[last["hip_visit"][several]]
    alone = ensemble.predict(last[several]).set_index("hip_visit")
    assert (with_history["risk"] - alone["risk"]).abs().min() > 1e-6
    slower = ensemble.predict(frame.assign(days=frame["days"] * 3)).set_index("hip_visit").loc[with_history.index]
    assert (slower["risk"] - with_history["risk"]).abs().max() > 1e-6


def test_risks_are_within_their_interval_and_between_0_and_1(ensemble: Ensemble) -> None:
    found = ensemble.predict(hips(30))
    assert ((found["risk_low"] <= found["risk"]) & (found["risk"] <= found["risk_high"])).all()
    assert found[["risk_low", "risk_high"]].stack().between(0, 1).all()
    assert list(found) == ["hip_visit", "risk", "risk_low", "risk_high", "abstain"]


def test_nulls_everywhere_are_no_error(ensemble: Ensemble) -> None:
    frame = pd.DataFrame(
        {
            "hip": ["S-L", None, "S-L", None],
            "hip_visit": ["1-L", "2-L", "3-L", "4-R"],
            "days": [0.0, None, 100.0, None],
            "features": [None, [None] * 5, [0.1, None, 0.2, 0.0, 0.0], [float("nan"), 1.0, 2.0, 0.0, 0.0]],
        }
    )
    found = ensemble.predict(frame)
    assert found["risk"].notna().all()
    assert found["abstain"].tolist()[:2] == ["nothing measured at this visit"] * 2
    assert ensemble.predict(frame.iloc[:0]).empty
    assert list(ensemble.predict(frame.iloc[:0])) == list(found)


def test_it_abstains_and_says_why(ensemble: Ensemble) -> None:
    row = {"hip": "S-L", "hip_visit": "1-L", "days": 0.0, "not_at_risk": ""}
    inside = [0.1, 0.2, 0.1, 0.0, 0.0]

    def reason(**changed: object) -> str:
        return str(ensemble.predict(pd.DataFrame([row | {"features": inside} | changed]))["abstain"].iloc[0])

    assert reason() == ""
    assert "no t1 series" in reason(features=[0.1, 0.2, 0.1, 1.0, 0.0])
    assert reason(features=[0.1, 0.2, 0.1, 0.0, 1.0]) == ""  # fluid is not required here
    assert "60% of the model's inputs" in reason(features=[0.1, np.nan, np.nan, np.nan, 0.0])
    assert "arthroplasty" in reason(not_at_risk="arthroplasty before this visit")
    child = ensemble.predict(pd.DataFrame([row | {"features": inside, "ineligible": "younger than 18 years"}])).iloc[0]
    assert child["abstain"] == "not eligible: younger than 18 years"
    assert np.isnan(child[["risk", "risk_low", "risk_high"]].astype(float)).all()
    far = Ensemble(ensemble.members, ensemble.facts | {"distance_limit": 0.01})
    assert "unlike the training data" in far.predict(pd.DataFrame([row | {"features": inside}]))["abstain"].iloc[0]


def test_a_vector_of_another_length_is_refused(ensemble: Ensemble) -> None:
    frame = pd.DataFrame([{"hip": "S-L", "hip_visit": "1-L", "days": 0.0, "features": [1.0, 2.0]}])
    with pytest.raises(ValueError, match="2 values, the model was trained on 5"):
        ensemble.predict(frame)


def test_the_past_of_a_first_visit_is_zero() -> None:
    past = with_past(np.array([[1.0, 2.0], [3.0, 2.0], [5.0, 5.0]]))
    assert past[0].tolist() == [1, 2, 0, 0, 0, 0]
    assert past[1].tolist() == [3, 2, -1, 0, 2, 0]
    assert past[2].tolist() == [5, 5, -2, -2, 2, 3]


def test_a_new_residual_corrects_nothing() -> None:
    residual = Residual(3, 8)
    x, zero = torch.randn(4, 3).double(), torch.zeros(4, 3).double()
    correction, _ = residual.step(residual.start(4), x, zero, torch.ones(4, 1).double())
    assert (correction == 0).all()


def test_the_file_stands_alone() -> None:
    """It is copied into the package: no import of osteoflow, nor of anything a scoring machine lacks."""
    allowed = {"__future__", "json", "dataclasses", "pathlib", "typing", "numpy", "pandas", "torch", "safetensors"}
    for node in ast.walk(ast.parse(Path(forecaster.__file__).read_text(encoding="utf-8"))):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        assert {name.split(".")[0] for name in names} <= allowed
