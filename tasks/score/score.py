"""From a hip's rows to its score."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from tasks.domain.errors import Refused, WrongUse
from tasks.domain.hip import RESEARCH_ONLY
from tasks.score.params import Params
from tasks.store.digests import sha256_file
from tasks.store.files import read_json, write_json

MODEL = "onfh-progression"


def process(
    package: Path,
    frame: pd.DataFrame,
    params: Params,
    *,
    version: str | int | None = None,
    hip_visits: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """Score rows for `hip_visits` (default: all rows) of `frame`, sequences rows with each hip's history.

    Raises Refused when a package of phantom origin is asked about a row that is not of phantom origin, and WrongUse
    when the package is not one or was trained on another vector.
    """
    facts = _facts(package)
    wanted = frame if hip_visits is None else frame[frame["hip_visit"].isin(list(hip_visits))]
    origins = set(wanted["origin"].fillna("hospital")) if "origin" in wanted else {"hospital"}
    if facts.get("origin") != "hospital" and origins - {str(facts.get("origin"))}:
        raise Refused(
            f"the model package {_short(facts)} was made of {facts.get('origin') or 'unknown'} data and never scores a "
            "hospital's study; retrain on the hospital's own studies first"
        )
    try:
        ensemble = _ensemble(package.resolve(), _mark(package))
        predicted = ensemble.predict(frame)
    except ValueError as error:
        raise WrongUse(f"the model package {_short(facts)} does not fit these rows: {error}") from None
    rows = []
    keys = set(wanted["hip_visit"])
    merged = frame.reset_index(drop=True).join(predicted.drop(columns="hip_visit"))
    for row in merged[merged["hip_visit"].isin(keys)].to_dict("records"):
        abstain = str(row["abstain"] or "")
        withheld = bool(abstain) and params.withhold
        scored: dict[str, Any] = {
            name: None if withheld or pd.isna(row[name]) else round(float(row[name]), params.decimals)
            for name in ("risk", "risk_low", "risk_high")
        }
        scored |= {
            "hip_visit": row["hip_visit"],
            "subject": row["subject"],
            "study": str(row["hip_visit"]).rpartition("-")[0],
            "side": row["side"],
            "days": float(row["days"]),
            "abstain": abstain,
            "horizon_days": ensemble.facts["horizon_days"],
            "model": MODEL,
            "version": None if version is None else str(version),
            "digest": facts.get("digest"),
            "origin": row.get("origin") or "hospital",
        }
        rows.append(scored | {"sentence": sentence(scored), "notice": RESEARCH_ONLY})
    return rows


def sentence(row: Mapping[str, Any]) -> str:
    """The one sentence that may be shown to a clinician."""
    where = {"L": "left", "R": "right"}.get(str(row["side"]), str(row["side"]))
    if row["risk"] is None:
        return f"No estimated risk for the {where} hip: {row['abstain'] or 'not computed'}. {RESEARCH_ONLY}"
    text = (
        f"Estimated risk of progression of the {where} hip within {row['horizon_days']:.0f} days: {row['risk']:.0%} "
        f"(95 % interval {row['risk_low']:.0%} to {row['risk_high']:.0%})."
    )
    return f"{text}{' Uncertain: ' + row['abstain'] + '.' if row['abstain'] else ''} {RESEARCH_ONLY}"


def write(home: Path, study: str, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write `home`/scores/<study>.json, whole or not at all, with a fixed time. The same score is the same bytes."""
    path = _path(home, study)
    write_json(path, {"study": study, "scores": sorted((dict(r) for r in rows), key=lambda r: r["hip_visit"])})
    return path


def read(home: Path, study: str) -> list[dict[str, Any]]:
    """The rows that were written for a study; none when it was not scored."""
    path = _path(home, study)
    return list(read_json(path)["scores"]) if path.exists() else []


def withdraw(home: Path, study: str) -> None:
    """What was written for a study counts no longer."""
    _path(home, study).unlink(missing_ok=True)


def _path(home: Path, study: str) -> Path:
    if not study or not all(c.isdigit() or c == "." for c in study) or ".." in study:
        raise WrongUse("a score belongs to a de-identified StudyInstanceUID (digits and dots)")
    return home / "scores" / f"{study}.json"


def _facts(package: Path) -> dict[str, Any]:
    if not (package / "package.json").exists():
        raise WrongUse("there is no model package (package.json) to score with; run osteoflow retrain first")
    return dict(read_json(package / "package.json"))


def _short(facts: Mapping[str, Any]) -> str:
    return str(facts.get("digest") or "without digest")[:12]


def _mark(package: Path) -> str:
    return sha256_file(package / "forecast" / "ensemble.json")


@lru_cache(maxsize=4)
def _ensemble(package: Path, mark: str) -> Any:
    """The package's own forecaster, in the code that it was registered with. `mark` renews it when it changes."""
    name = f"osteoflow_package_{mark[:16]}"
    spec = importlib.util.spec_from_file_location(name, package / "forecaster.py")
    if spec is None or spec.loader is None or not (package / "forecaster.py").exists():
        raise WrongUse("the model package has no forecaster.py; register it again")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up by name
    spec.loader.exec_module(module)
    return module.Ensemble.load(package / "forecast")
