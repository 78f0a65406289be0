"""A second cohort without images, for the same tables: another disease, written apart from tasks/phantom and sharing no
code and no constant with it.

Here a hip wears out: damage adds up by the week, faster the larger and the more lateral the dead bone and the higher
the marrow pressure, and the head breaks when damage passes the hip's own resistance. Pressure is an average that a hip
returns to plus a trend; the trend is what only a history shows. Patients come when they come (gamma gaps).
`make(patients, seed)` returns {table: frame}, `truth` with the exact state beside what was observed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

WEEKS, NEVER = 330, 10**6
ERRORS = {"lesion_fraction": 0.045, "kerboul_deg": 16.0, "lateral_deg": 7.0, "oedema_index": 0.13,
          "vessel_length_mm": 4.0, "effusion_index": 0.2}  # fmt: skip
"""SD of one visit's measurement."""


@dataclass(frozen=True)
class Lives:
    """What becomes of each hip, one row a hip; weeks since the first visit, NEVER for never."""

    patient: NDArray[np.int64]
    side: NDArray[np.str_]
    habit: NDArray[np.float64]
    size: NDArray[np.float64]
    lateral: NDArray[np.float64]
    pressure: NDArray[np.float64]
    """(hips, weeks)."""
    graft_week: NDArray[np.int64]
    broke: NDArray[np.int64]


def lives(
    patients: int, rng: np.random.Generator, choice: tuple[float, float, float] = (2.2, 4.0, 0.02),
    grafts: NDArray[np.int64] | None = None, relief: float = 0.9,
) -> Lives:  # fmt: skip
    """Who is grafted goes by size and lateral margin (`choice`: log-odds against it, per unit of size and per degree
    for it), unless `grafts` says when each hip is: the same hips in another world.
    `relief`: by how much a graft lowers the log of the speed of wear."""
    both = rng.random(patients) < 0.6
    patient = np.repeat(np.arange(patients), 1 + both)
    n = len(patient)
    side = np.where(np.arange(n) == np.searchsorted(patient, patient), "R", "L")
    habit = rng.normal(0, 0.4, patients)[patient]
    size = rng.beta(2.2, 4.0, n) * 0.7
    lateral = 5 + 22 * rng.standard_t(6, n).clip(-3, 3) * 0.6
    rest = rng.gamma(2.0, 0.4, n)  # the level differs more between hips than it changes in one
    trend = np.where(rng.random(n) < 0.45, rng.gamma(6, 0.09, n), -rng.gamma(2, 0.08, n))  # a year
    week = np.arange(WEEKS)
    years = week / 52.18
    pressure = (rest[:, None] + trend[:, None] * years + _wander(rng, n)).clip(0, 2.5)
    grafted = rng.random(n) < 1 / (1 + np.exp(choice[0] - choice[1] * size - choice[2] * lateral))
    graft_week = np.where(grafted, rng.integers(1, 20, n), NEVER)
    graft_week = graft_week if grafts is None else grafts
    speed = -4.4 + 4.2 * size[:, None] + 0.03 * lateral[:, None] + 0.6 * pressure + 0.35 * habit[:, None]
    speed = speed + 2.2 * (trend > 0)[:, None] - relief * (week >= graft_week[:, None])
    damage = np.cumsum(np.exp(speed) / 52.18, axis=1)
    resistance = rng.gamma(3.0, 0.45, n)
    broke = np.where(damage[:, -1] > resistance, (damage > resistance[:, None]).argmax(axis=1), NEVER)
    return Lives(patient, side, habit, size, lateral, pressure, graft_week, broke)


def make(patients: int, seed: int, folds: int = 5, test: float = 0.25, noise: float = 1.0) -> dict[str, pd.DataFrame]:
    rng = np.random.default_rng([seed, 990])
    life = lives(patients, rng)
    patient, side, habit, size, lateral = life.patient, life.side, life.habit, life.size, life.lateral
    pressure, graft_week, broke = life.pressure, life.graft_week, life.broke
    n = len(patient)
    end = rng.integers(80, WEEKS - 20, patients)[patient]

    rows = []
    gaps = rng.gamma(5.0, 6.0, (patients, 7)).round().astype(int) + 3
    for hip in range(n):
        at = np.concatenate([[0], np.cumsum(gaps[patient[hip]])])
        for visit, when in enumerate(at[at <= min(end[hip], WEEKS - 60)]):
            rows.append((hip, visit, int(when)))
    hip, visit, when = (np.array(part) for part in zip(*rows, strict=True))
    days = 7.0 * when
    vessels = 40 + 6 * habit[hip] + np.where(when > graft_week[hip], 9.0, 0.0) + rng.normal(0, 5, n)[hip]
    exact = {
        "lesion_fraction": size[hip], "kerboul_deg": 120 + 330 * size[hip], "lateral_deg": lateral[hip],
        "oedema_index": 0.5 * pressure[hip, when], "vessel_length_mm": vessels,
        "effusion_index": 0.3 * pressure[hip, when] + 0.1,
    }  # fmt: skip
    seen = {name: value + noise * ERRORS[name] * rng.normal(size=len(hip)) for name, value in exact.items()}
    subject = np.array([f"OF2ND{p:011d}" for p in range(patients)])[patient[hip]]
    study = np.array([f"2.25.7{patient[h]:06d}{v:02d}" for h, v in zip(hip, visit, strict=True)])
    keys = pd.DataFrame(
        {"hip_visit": [f"{s}-{x}" for s, x in zip(study, side[hip], strict=True)], "subject": subject, "study": study,
         "side": side[hip], "days": days}
    )  # fmt: skip
    hips = keys.assign(
        center_x_mm=0.0, center_y_mm=0.0, center_z_mm=0.0, roles="t1+fluid+contrast", status="ok", reason=None,
        file=keys["hip_visit"], digest="", date=None, origin="phantom", age_years=50.0, sex="F",
        vendor=np.array(["one", "two"])[patient[hip] % 2],
    )  # fmt: skip
    measures = keys.assign(**seen, collapse_mm=(3.0 * (when >= broke[hip])), vessel_branches=8.0, vessel_status="ok")
    measures["lesion_volume_mm3"] = measures["lesion_fraction"] * 50000
    encoded = np.column_stack([seen["oedema_index"], rng.normal(size=(len(hip), 3))])
    place = rng.permutation(patients)
    fold = {f"OF2ND{p:011d}": "test" if place[p] < test * patients else str(place[p] % folds) for p in range(patients)}
    truth = keys.assign(**{f"true_{k}": v for k, v in exact.items()}, broke_days=7.0 * broke[hip], hip_number=hip)
    return {
        "hips": hips, "measures": measures, "truth": truth,
        "features": keys[["hip_visit", "subject", "side"]].assign(features=list(encoded), fold="0"),
        "split": pd.DataFrame(sorted(fold.items()), columns=["subject", "fold"]),
        "annotations": _notes(keys, hip, when, broke, end, graft_week),
    }  # fmt: skip


def _wander(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """A level that returns to nought within months (first-order, weekly)."""
    out = np.zeros((n, WEEKS))
    for week in range(1, WEEKS):
        out[:, week] = 0.93 * out[:, week - 1] + rng.normal(0, 0.05, n)
    return out


def _notes(
    keys: pd.DataFrame, hip: NDArray, when: NDArray, broke: NDArray, end: NDArray, graft: NDArray
) -> pd.DataFrame:
    rows = []
    base = {"reader": "consensus", "kind": "label", "source": "labels"}
    for key, h, week in zip(keys.to_dict("records"), hip, when, strict=True):
        own = {"hip_visit": key["hip_visit"], "subject": key["subject"], "side": key["side"], "days": key["days"]}
        stage = "3A" if week >= broke[h] else "2"
        rows += [own | base | {"name": "lesion", "value": "1"}, own | base | {"name": "arco", "value": stage}]
    first = pd.DataFrame({"hip": hip}).drop_duplicates("hip").index
    for row in first:
        h, key = int(hip[row]), keys.iloc[row]
        own = {"hip_visit": None, "subject": key["subject"], "side": key["side"], "reader": None, "value": "1"}
        rows.append(own | {"kind": "outcome", "name": "last_follow_up", "source": "outcomes", "days": 7.0 * end[h]})
        if broke[h] <= end[h]:
            rows.append(own | {"kind": "outcome", "name": "collapse", "source": "outcomes", "days": 7.0 * broke[h]})
        if graft[h] <= end[h]:
            name = {"kind": "treatment", "name": "vascularized_bone_graft", "source": "treatments"}
            rows.append(own | name | {"days": 7.0 * graft[h]})
    return pd.DataFrame(rows)
