"""What the results could give away: how alike patients are (k), and whether a patient's part in training shows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from tasks.evaluate.params import Params
from tasks.training import metrics

Row = dict[str, Any]
QUASI = ("sex", "age_band", "vendor", "treatment", "visits")


def patients(frame: pd.DataFrame) -> pd.DataFrame:
    """One row a patient: sex, age band at the first visit, makers, treatments, and months of the visits to the nearest
    three: what somebody who knows the patient could know."""
    rows = []
    for subject, own in frame.sort_values("days").groupby("subject"):
        months = sorted({3 * round(days / 30.4375 / 3) for days in own["days"]})
        rows.append(
            {
                "subject": subject,
                "sex": _first(own["sex"]),
                "age_band": _first(own["age_band"]),
                "vendor": "+".join(sorted(set(own["vendor"].dropna().astype(str)))) or "unknown",
                "treatment": "+".join(sorted(set(own["treatment"].dropna()))) or "none recorded",
                "visits": "-".join(map(str, months)),
            }
        )
    return pd.DataFrame(rows, columns=["subject", *QUASI])


def anonymity(frame: pd.DataFrame, params: Params) -> Row:
    """k: the fewest patients that share all of `QUASI`; and how many share theirs with fewer than `suppress_below`."""
    people = patients(frame[frame["fold"].notna()] if "fold" in frame else frame)
    sizes = pd.Series(dtype=int)
    if len(people):
        sizes = people.groupby(list(QUASI), dropna=False)["subject"].transform("size")
    alone = {name: int((people.groupby(name)["subject"].transform("size") == 1).sum()) for name in QUASI if len(people)}
    return {
        "over": list(QUASI), "k": int(sizes.min()) if len(sizes) else None, "n_patients": len(people),
        "below": params.suppress_below, "patients_below": int((sizes < params.suppress_below).sum()),
        "unique": int((sizes == 1).sum()), "unique_by": alone, "unit": "patient",
    }  # fmt: skip


def membership(frame: pd.DataFrame, params: Params) -> Row:
    """AUC of the attack that takes a patient for a training patient the better the model fits the patient's outcomes;
    0.5: the model does not show who it was trained on. Against the ensemble, one value a patient."""
    if "seen_risk" not in frame:
        return {"reason": "the predictions hold no seen_risk"}
    test = frame["fold"] == "test"
    rows = frame.assign(p=np.where(test, frame["risk"], frame["seen_risk"]), member=(~test).astype(float))
    rows = rows[
        rows["label"].isin((0.0, 1.0))
        & np.isfinite(rows["p"].astype(float))
        & ~rows["fold"].fillna("none").isin(["external", "none"])
    ]
    if rows["member"].nunique() < 2:
        return {"reason": "training and test patients with known outcomes are both needed"}
    p = rows["p"].astype(float).clip(1e-6, 1 - 1e-6)
    fit = np.where(rows["label"] == 1, np.log(p), np.log(1 - p))
    people = rows.assign(fit=fit).groupby("subject", as_index=False)[["fit", "member"]].mean()
    found = metrics.clustered_bootstrap(
        (people["member"], people["fit"]), people["subject"], metrics.auc, params.resamples, params.seed, params.level
    )
    counts = {"n_members": int(people["member"].sum()), "n_others": int((1 - people["member"]).sum())}
    return {k: v for k, v in found.as_dict("auc").items() if k.startswith("auc")} | counts | {"unit": "patient"}


def _first(values: pd.Series) -> str:
    known = values.dropna()
    return str(known.iloc[0]) if len(known) else "unknown"
