"""The forecaster: a time-aware LSTM over a hip's visits, residual on a logistic baseline of the last visit.

    log-odds of progression in interval j after visit t  =  alpha_j + w.x_t + u.(mean of x so far, change of x) + v.h_t

x is the visit's standardized vector, h the state of an LSTM whose memory fades with the true time between visits. v
starts at zero and is used as far as it helps patients left out, so that a small cohort has the logistic part and no
less. Risk is 1 - prod(1 - hazard_j), then calibrated. Research use only, not for diagnosis: what comes out is an
estimated risk.

This file is copied into the model package and imports nothing of osteoflow. Inference goes hip by hip, visit by visit,
in float64 on tensors of fixed shape: later visits cannot change an earlier prediction by a single bit.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

YEAR = 365.25
CLIP = 4.0  # standardized values are cut here: one wild measurement must not decide
COLUMNS = ["hip_visit", "risk", "risk_low", "risk_high", "abstain"]


class Residual(nn.Module):
    """The correction to the logistic part: an LSTM whose memory fades with time. It starts at zero."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(2 * inputs + 1, hidden)
        self.fade = nn.Parameter(torch.zeros(hidden))
        self.head = nn.Linear(hidden, 1, bias=False)
        nn.init.zeros_(self.head.weight)
        self.double()

    def start(self, hips: int) -> tuple[Tensor, Tensor]:
        """(hidden, memory) before the first visit."""
        zeros = torch.zeros(hips, self.fade.numel(), dtype=self.fade.dtype)
        return zeros, zeros

    def step(
        self, state: tuple[Tensor, Tensor], x: Tensor, change: Tensor, years: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """One visit: (B, F) vectors, their change and (B, 1) years since the visit before -> (B,) correction, state."""
        hidden, memory = state
        memory = memory * torch.exp(-nn.functional.softplus(self.fade) * years)
        hidden, memory = self.cell(torch.cat([x, change, torch.log1p(years)], dim=1), (hidden, memory))
        return self.head(hidden).squeeze(1), (hidden, memory)


def with_past(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """(T, F) standardized vectors of one hip in time order -> (T, 3 F): each beside the difference of its running mean
    from it and its change since the visit before (both 0 at the first). Row t depends on rows up to t alone."""
    out = np.zeros((len(x), 3 * x.shape[1]))
    if not len(x):
        return out
    n, mean = x.shape[1], x[0]
    for t, row in enumerate(x):
        mean = mean + (row - mean) / (t + 1)
        out[t, :n] = row
        if t:
            out[t, n : 2 * n] = mean - row
            out[t, 2 * n :] = row - x[t - 1]
    return out


@dataclass
class Member:
    """One fold's forecaster: everything in it was fitted without the patients of that fold."""

    impute: NDArray[np.float64]
    centre: NDArray[np.float64]
    scale: NDArray[np.float64]
    weight: NDArray[np.float64]
    """(3 F,) weights on the standardized vector and its past (`with_past`)."""
    alpha: NDArray[np.float64]
    """(J,) log-odds of the hazard in each interval of the horizon."""
    spread: NDArray[np.float64]
    """(B, 3 F + 1) what refits on resampled patients add to the weights and to alpha."""
    whiten: NDArray[np.float64]
    """(F, F) from standardized vectors to uncorrelated ones, for the distance to the training data."""
    residual: Residual
    amount: float
    """Share of the residual that is used: 0 where it did not help patients it had not seen."""

    def standardize(self, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        filled = np.where(np.isfinite(vectors), vectors, self.impute)
        return np.clip((filled - self.centre) / self.scale, -CLIP, CLIP)

    def scores(self, vectors: NDArray[np.float64], years: NDArray[np.float64]) -> NDArray[np.float64]:
        """(T, F) vectors of one hip in time order, (T,) years since the visit before -> (T,) baseline + residual."""
        x = self.standardize(vectors)
        past = with_past(x)
        out = np.empty(len(x))
        with torch.no_grad():
            state = self.residual.start(1)
            for t in range(len(x)):
                row, change = (torch.from_numpy(part[None].copy()) for part in (x[t], past[t, 2 * x.shape[1] :]))
                correction, state = self.residual.step(state, row, change, torch.full((1, 1), float(years[t])).double())
                out[t] = float((past[t] * self.weight).sum()) + self.amount * float(correction)
        return out

    def draws(self, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        """(T, B) what resampled patients would add to each score."""
        past = with_past(self.standardize(vectors))
        return np.stack([(self.spread[:, :-1] * row).sum(axis=1) + self.spread[:, -1] for row in past])

    def risks(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scores of any shape -> estimated risk of progression within the horizon, not yet calibrated."""
        hazard = 1 / (1 + np.exp(-np.clip(scores[..., None] + self.alpha, -40, 40)))
        return 1 - np.prod(1 - hazard, axis=-1)

    def distance(self, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        """(T,) Mahalanobis distance to the training data, per root of dimension: about 1 inside."""
        x = self.standardize(vectors)
        return np.array([np.sqrt(((self.whiten * row).sum(axis=1) ** 2).mean()) for row in x])


def load_member(folder: Path, name: str) -> Member:
    tensors = load_file(str(folder / f"{name}.safetensors"))
    facts = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    arrays = {key: value.numpy() for key, value in tensors.items() if not key.startswith("residual.")}
    residual = Residual(len(arrays["centre"]), int(facts["hidden"]))
    residual.load_state_dict({k.removeprefix("residual."): v for k, v in tensors.items() if k.startswith("residual.")})
    residual.eval()
    return Member(residual=residual, amount=float(facts["amount"]), **arrays)


class Ensemble:
    """The members of all folds, calibrated on predictions for patients that the member had not seen."""

    def __init__(self, members: dict[str, Member], facts: dict[str, Any]) -> None:
        self.members = members
        self.facts = facts

    @classmethod
    def load(cls, folder: str | Path) -> Ensemble:
        """From models/forecast/ or the package's forecast/: ensemble.json and the members it names."""
        folder = Path(folder)
        facts = json.loads((folder / "ensemble.json").read_text(encoding="utf-8"))
        return cls({name: load_member(folder, name) for name in facts["members"]}, facts)

    def predict(self, frame: pd.DataFrame, members: list[str] | None = None) -> pd.DataFrame:
        """Estimated risk for each row of a sequences table, in the order of the table.

        Columns used: hip_visit, hip (else subject and side), days, features; not_at_risk and ineligible when they are
        there (an ineligible hip-visit gets no number). Nulls are allowed everywhere. `members`: by default all.
        """
        chosen = [self.members[name] for name in (members or sorted(self.members))]
        vectors = self._vectors(frame)
        days = pd.to_numeric(frame["days"], errors="coerce").to_numpy(dtype=np.float64)
        numbers = np.full((len(frame), 3), np.nan)
        reasons = [""] * len(frame)
        for places in _by_hip(frame, days):
            *found, far = self._hip(chosen, vectors[places], days[places])
            numbers[places] = np.stack(found, axis=1)
            for place, distance in zip(places, far, strict=True):
                row = frame.iloc[int(place)]
                reasons[place] = self._abstain(row, vectors[place], float(distance))
                if _said(row, "ineligible"):
                    numbers[place] = np.nan
        out = pd.DataFrame(numbers, columns=COLUMNS[1:4])
        out.insert(0, "hip_visit", frame["hip_visit"].to_numpy())
        out["abstain"] = pd.Series(reasons, dtype=object)
        return out

    def _vectors(self, frame: pd.DataFrame) -> NDArray[np.float64]:
        width = len(self.facts["features"])
        vectors = np.full((len(frame), width), np.nan)
        for place, vector in enumerate(frame["features"]):
            if vector is None or np.ndim(vector) == 0:
                continue
            if len(vector) != width:
                raise ValueError(f"features of row {place}: {len(vector)} values, the model was trained on {width}")
            vectors[place] = [np.nan if value is None else float(value) for value in vector]
        return vectors

    def _hip(
        self, chosen: list[Member], vectors: NDArray[np.float64], days: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], ...]:
        years = np.zeros(len(days))
        years[1:] = np.nan_to_num(np.maximum(np.diff(days), 0.0)) / YEAR
        level = float(self.facts["interval"])
        risks, spread, far = [], [], []
        for member in chosen:
            scores = member.scores(vectors, years)
            risks.append(self.calibrate(member.risks(scores)))
            spread.append(self.calibrate(member.risks(scores[:, None] + member.draws(vectors))))
            far.append(member.distance(vectors))
        risk = np.stack(risks).mean(axis=0)
        pool = np.concatenate(spread, axis=1)
        # One visit at a time: a quantile over a table of another shape must not round otherwise.
        low = np.array([min(np.quantile(row, (1 - level) / 2), r) for row, r in zip(pool, risk, strict=True)])
        high = np.array([max(np.quantile(row, (1 + level) / 2), r) for row, r in zip(pool, risk, strict=True)])
        return risk, low, high, np.stack(far).mean(axis=0)

    def calibrate(self, risk: NDArray[np.float64]) -> NDArray[np.float64]:
        """Platt: a line on the log-odds."""
        a, b = self.facts["calibration"]["intercept"], self.facts["calibration"]["slope"]
        clipped = np.clip(risk, 1e-6, 1 - 1e-6)
        return 1 / (1 + np.exp(-(a + b * np.log(clipped / (1 - clipped)))))

    def _abstain(self, row: pd.Series, vector: NDArray[np.float64], far: float) -> str:
        """Why this row should have no score, or ''."""
        if _said(row, "ineligible"):
            return f"not eligible: {row['ineligible']}"
        if _said(row, "not_at_risk"):
            return f"not at risk: {row['not_at_risk']}"
        if not np.isfinite(vector).any():
            return "nothing measured at this visit"
        flags = dict(zip(self.facts["features"], vector, strict=True))
        missing = [role for role in self.facts["required_roles"] if flags.get(f"missing_{role}") == 1.0]
        if missing:
            return f"no {'+'.join(missing)} series at this visit"
        absent = float(np.mean(~np.isfinite(vector[np.array(self.facts["usual"])])))
        if absent > float(self.facts["max_missing_share"]):
            return f"{absent:.0%} of the model's inputs are missing at this visit"
        if far > float(self.facts["distance_limit"]):
            return f"unlike the training data (distance {far:.2f}, limit {self.facts['distance_limit']:.2f})"
        return ""


def _said(row: pd.Series, column: str) -> bool:
    reason = row.get(column)
    return isinstance(reason, str) and bool(reason)


def _by_hip(frame: pd.DataFrame, days: NDArray[np.float64]) -> list[NDArray[np.intp]]:
    """Row places of each hip in order of days; a row of no known hip stands alone."""
    if "hip" in frame:
        hips = frame["hip"].astype(object)
    elif {"subject", "side"} <= set(frame.columns):
        hips = frame["subject"].astype(object) + "-" + frame["side"].astype(object)
    else:
        hips = pd.Series([None] * len(frame), dtype=object)
    found: dict[object, list[int]] = {}
    for place, hip in enumerate(hips):
        found.setdefault(hip if isinstance(hip, str) else place, []).append(place)
    return [np.array(p, dtype=np.intp)[np.argsort(days[p], kind="stable")] for p in found.values()]
