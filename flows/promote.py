"""The gate, the aliases, and the way back.

The champion and a challenger are compared on the same frozen test patients as they are today: the champion scores
today's images of those patients with its own networks, and the difference gets a paired, patient-clustered interval.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pandas as pd

from flows import taint, tracking
from tasks.domain.errors import WrongUse
from tasks.domain.hip import RESEARCH_ONLY
from tasks.domain.params import Section, load
from tasks.store import tables
from tasks.store.files import read_json, write_json
from tasks.store.items import Mapper
from tasks.training.metrics import auc, brier, none_if_nan, paired_bootstrap

log = logging.getLogger("osteoflow.promote")


class Params(Section):
    """Section `promote`: what a challenger must show. Differences are challenger minus champion."""

    min_events: int
    """Test hip-visits with an event below which no comparison is believed: the champion stays."""
    auc_margin: float
    """The lower 95 % bound of the AUC difference must lie above minus this (non-inferior)."""
    slope_low: float
    slope_high: float
    """Calibration slope of the challenger must lie between these."""
    bootstrap: int
    seed: int


def gate(number: int, mapper: Mapper) -> dict[str, Any]:
    """Decide on version `number`, move the aliases accordingly, and keep the decision. Returns it."""
    params = load("promote", Params)
    version, champion = tracking.version(number), tracking.find("champion")
    if champion is not None and champion.number == number:
        return _kept(number) or _decision(number, "champion", "it is the champion already", {})
    if champion is None:
        facts = tracking.package_facts(number)
        decision = _decision(
            number, "promoted", "first version: there is no champion to beat", {"evaluate": facts["evaluate"]}
        )
        _promote(number, decision["reason"], by="gate")
    else:
        decision = _compare(version, champion, params, mapper)
        if decision["decision"] == "promoted":
            _promote(number, decision["reason"], by="gate")
        else:
            tracking.point("challenger", number)
            tracking.note("kept as challenger", number, decision["reason"], by="gate")
    tracking.tag(number, {"gate": decision["decision"], "gate_reason": decision["reason"]})
    write_json(_file(number), decision)
    return decision


def _compare(version: tracking.Version, champion: tracking.Version, params: Params, mapper: Mapper) -> dict[str, Any]:
    from flows.scoring import score_hips

    sequences = tables.read("sequences", Path("data/sequences.parquet"))
    test = sequences[(sequences["fold"] == "test") & sequences["label"].notna()]
    # Whom the champion learned from before two identities were known to be one cannot judge it.
    test = test[~test["subject"].isin(taint.learned_from(champion))]
    few = _too_few(test, version.number, champion.number, params)
    if few is not None:
        return few  # said before the champion is put to work for nothing
    ours = tables.read("predictions", Path("data/predictions.parquet")).set_index("hip_visit")["risk"]
    hips = tables.read("hips", Path("data/hips.parquet"))
    theirs = score_hips(
        hips[hips["subject"].isin(test["subject"])], tracking.package_of(champion.number), mapper
    ).set_index("hip_visit")["risk"]
    both = test.assign(challenger=test["hip_visit"].map(ours), champion=test["hip_visit"].map(theirs))
    both = both.dropna(subset=["challenger", "champion"])
    return judge(both, read_json(Path("reports/evaluate.json"))["slope"], version.number, champion.number, params)


def judge(both: pd.DataFrame, slope: float | None, number: int, champion: int, params: Params) -> dict[str, Any]:
    """The decision from numbers alone. both: labelled test hip-visits with columns subject, label (0 or 1), and the
    risks `challenger` and `champion`; slope: the challenger's calibration slope.
    """
    few = _too_few(both, number, champion, params)
    if few is not None:
        return few
    numbers: dict[str, Any] = _counts(both, champion)
    label, subjects = both["label"].to_numpy(), both["subject"].to_numpy()
    pair = both["challenger"].to_numpy(), both["champion"].to_numpy()
    settings = {"n": params.bootstrap, "seed": params.seed}
    d_auc = list(paired_bootstrap(label, *pair, subjects, auc, **settings))
    d_brier = list(paired_bootstrap(label, *pair, subjects, brier, **settings))
    if any(v != v for v in (*d_auc, *d_brier)):
        return _decision(number, "kept as challenger", "too few patients for an interval of the difference", numbers)
    numbers |= {
        "auc_challenger": float(auc(label, pair[0])), "auc_champion": float(auc(label, pair[1])),
        "d_auc": [none_if_nan(v) for v in d_auc], "d_brier": [none_if_nan(v) for v in d_brier], "slope": slope,
    }  # fmt: skip
    slope_text = "unknown" if slope is None else f"{slope:.2f}"
    calibrated = slope is not None and params.slope_low <= slope <= params.slope_high
    checks = {
        f"its AUC could be worse by {-d_auc[1]:.3f} (margin {params.auc_margin})": d_auc[1] > -params.auc_margin,
        "neither its Brier score nor its AUC is better with 95 % confidence": d_brier[2] < 0 or d_auc[1] > 0,
        f"its calibration slope is {slope_text}, not within {params.slope_low} to {params.slope_high}": calibrated,
    }
    failed = [text for text, passed in checks.items() if not passed]
    measured = (
        f"AUC difference {d_auc[0]:+.3f} (95 % CI {d_auc[1]:+.3f} to {d_auc[2]:+.3f}), Brier difference "
        f"{d_brier[0]:+.3f} ({d_brier[1]:+.3f} to {d_brier[2]:+.3f}), {len(both)} hip-visits of "
        f"{numbers['n_patients']} patients"
    )
    if failed:
        return _decision(number, "kept as challenger", f"{'; '.join(failed)}. {measured}", numbers)
    return _decision(number, "promoted", measured, numbers)


def _counts(rows: pd.DataFrame, champion: int) -> dict[str, Any]:
    return {
        "n_hip_visits": len(rows), "n_patients": int(rows["subject"].nunique()),
        "n_events": int(rows["label"].sum()), "champion": champion,
    }  # fmt: skip


def _too_few(rows: pd.DataFrame, number: int, champion: int, params: Params) -> dict[str, Any] | None:
    """The decision when `rows` (labelled test hip-visits) cannot carry a comparison, else None."""
    counts = _counts(rows, champion)
    events = counts["n_events"]
    if min(events, len(rows) - events) >= params.min_events:
        return None
    return _decision(
        number, "kept as challenger",
        f"{events} events in {len(rows)} labelled hip-visits of {counts['n_patients']} test patients are too few to "
        f"compare (at least {params.min_events} of each kind needed)", counts,
    )  # fmt: skip


def promote(number: int, reason: str, by: str | None = None) -> str:
    """By hand: `number` becomes champion."""
    tracking.version(number)
    champion = tracking.find("champion")
    if champion is not None and champion.number == number:
        return f"version {number} is the champion already"
    entry = _promote(number, reason, by)
    return f"version {number} is champion (by {entry['by']}: {entry['reason']}). {RESEARCH_ONLY}"


def rollback(reason: str, by: str | None = None) -> str:
    """The previous champion takes its place back."""
    previous, champion = tracking.find("previous"), tracking.find("champion")
    if previous is None:
        raise WrongUse("there is no previous champion to roll back to; osteoflow promote N names one")
    tracking.package_of(previous.number)
    tracking.point("champion", previous.number)
    tracking.point("previous", champion.number if champion else None)
    tracking.note("rolled back to", previous.number, reason, by)
    return f"version {previous.number} is champion again (was {champion.number if champion else 'none'})"


def _promote(number: int, reason: str, by: str | None) -> dict[str, Any]:
    tracking.package_of(number)  # its copy must be here before anything scores with it
    champion, challenger = tracking.find("champion"), tracking.find("challenger")
    if champion is not None:
        tracking.point("previous", champion.number)
    tracking.point("champion", number)
    if challenger is not None and challenger.number == number:
        tracking.point("challenger", None)
    return tracking.note("promoted", number, reason, by)


def _decision(number: int, decision: str, reason: str, numbers: dict[str, Any]) -> dict[str, Any]:
    return {"version": number, "decision": decision, "reason": reason, "numbers": numbers}


def _file(number: int) -> Path:
    from tasks.domain.settings import Settings

    return Settings().home / "models" / tracking.MODEL / f"{number}.gate.json"


def _kept(number: int) -> dict[str, Any] | None:
    return read_json(_file(number)) if _file(number).exists() else None


def decisions() -> pd.DataFrame:
    """Every decision kept on this machine, for the report."""
    kept = [_kept(version.number) for version in tracking.versions()]
    return pd.DataFrame([entry for entry in kept if entry])
