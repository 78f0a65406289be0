"""Two more predictions for training patients, which are no estimates but say how far the estimates can be believed:
`seen_risk` by the whole ensemble, most of whose members were trained on the patient (against it an attack on membership
is tried), and `unseen_vendor_risk` by a member trained without any patient who was ever on a scanner of that maker.
The encoder's features are out of fold by patient in both; its networks saw other patients of all makers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from tasks.forecast.hazard import Array, calibrated
from tasks.forecast.member import Table, corrections, train
from tasks.forecast.params import Params
from tasks.nets.forecaster import Ensemble


def seen(ensemble: Ensemble, frame: pd.DataFrame, training: np.ndarray) -> Array:
    out = np.full(len(frame), np.nan)
    if training.any():
        out[training] = ensemble.predict(frame[training])["risk"].to_numpy(dtype=np.float64)
    return out


def unseen_vendor(frame: pd.DataFrame, table: Table, training: np.ndarray, params: Params) -> tuple[Array, Any]:
    """Risk of each training row by a member that knows no scanner of its maker, and what each was trained on."""
    out, facts = np.full(len(frame), np.nan), {}
    makers = frame["vendor"].fillna("").astype(str).to_numpy() if "vendor" in frame else np.full(len(frame), "")
    known = sorted(set(makers[training]) - {""})
    for place, maker in enumerate(known if params.leave_vendor_out and len(known) > 1 else []):
        own = training & (makers == maker)
        inside = training & ~np.isin(table.patients, table.patients[own])
        if not inside.any():
            facts[maker] = {"reason": "every patient was on a scanner of this maker"}
            continue
        result = train((table.rows(inside), params, 1000 + place))
        hips = training & np.isin(table.hips, table.hips[own])  # whole histories, so that the past is there
        rows, member = table.rows(hips), result.member
        past = rows.past(member.standardize(rows.vectors))
        more = member.amount * corrections(member.residual, rows, past) if member.amount else 0.0
        risk = np.full(len(frame), np.nan)
        risk[hips] = calibrated(member.risks(past @ member.weight + more), result.line)
        out[own] = risk[own]
        facts[maker] = result.facts | {"reason": result.reason, "patients": len(set(table.patients[inside]))}
    return out, facts
