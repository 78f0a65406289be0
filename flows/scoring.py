"""A registered package on hips: masks, measures and features by its own networks, then its forecaster.

What a package sees in one hip-visit is kept in OSTEOFLOW_HOME/features/<package digest>/, one small file named by the
digests of the hip and of what stands for the fold, so that a hip is never described twice by the same model.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from flows import known
from tasks import assemble, measure, score
from tasks.classify.reading import encode
from tasks.domain.errors import WrongUse
from tasks.domain.params import S, load
from tasks.domain.settings import Settings
from tasks.segment.predict import predict
from tasks.store import tables
from tasks.store.digests import code_digest, combine
from tasks.store.files import read_json, write_json
from tasks.store.items import Mapper

POLICY = {"assemble": ("eligibility",)}
"""Parameters that say whom an estimate is for, not how it is made: a package from before there were any goes by those
of today. Any other one that a package lacks is a refusal, for a model must see what it was trained on."""


def score_visits(studies: list[str], package: Path, number: int, mapper: Mapper) -> list[dict[str, Any]]:
    """Score the hip-visits of `studies` with their history, and write OSTEOFLOW_HOME/scores/<study>.json. A study
    without a usable hip keeps none of an earlier version of it."""
    hips = known.hips(studies)
    hips = hips[hips["status"] == "ok"]
    wanted = hips[hips["study"].isin(studies)]
    history = hips[hips["subject"].isin(wanted["subject"])].reset_index(drop=True)
    for study in set(studies) - set(wanted["study"]):
        score.withdraw(Settings().home, study)
    if wanted.empty:
        return []
    frame = sequences(history, package, mapper)
    settings = load("score", score.Params)
    rows = score.process(package, frame, settings, version=number, hip_visits=wanted["hip_visit"].tolist())
    digests = dict(zip(wanted["hip_visit"], wanted["digest"], strict=True))
    by_study: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        row["hip_digest"] = digests[row["hip_visit"]]  # which version of the study was looked at
        by_study.setdefault(row["study"], []).append(row)
    for study, its_rows in by_study.items():
        score.write(Settings().home, study, its_rows)
    return rows


def begin(package: Path | None) -> None:
    """A worker that lives on gets ready: it reads the rooms' code for their stamps, and with the champion's package
    describes a hip that is known, of which nothing is kept but the networks in memory."""
    for room in ("anonymize", "standardize"):
        code_digest(room)
    hips = known.hips()
    there = hips[(hips["status"] == "ok") & (hips["path"] != "")]
    if package is None or there.empty:
        return
    with _scratch() as place:
        row = {str(name): value for name, value in there.iloc[-1].to_dict().items()}
        _describe((row, str(package), None, str(place / "hip.json")))


def score_hips(hips: pd.DataFrame, package: Path, mapper: Mapper) -> pd.DataFrame:
    """hip_visit, risk, risk_low, risk_high of every usable hip in `hips` (whole histories), nothing written."""
    usable = known.hips(set(hips["study"])) if "study" in hips else known.hips()
    usable = usable[usable["hip_visit"].isin(hips.loc[hips["status"] == "ok", "hip_visit"])].reset_index(drop=True)
    if usable.empty:
        return pd.DataFrame(columns=["hip_visit", "risk", "risk_low", "risk_high"])
    settings = load("score", score.Params).model_copy(update={"withhold": False, "decimals": 9})
    return pd.DataFrame(score.process(package, sequences(usable, package, mapper), settings))


def sequences(hips: pd.DataFrame, package: Path, mapper: Mapper) -> pd.DataFrame:
    """The rows that the package's forecaster reads: `hips` described by the package's own networks."""
    features, measures = describe(hips, package, mapper)
    params = section(package, "assemble", assemble.Params)
    annotations = known.table("annotations")
    theirs = annotations[annotations["subject"].isin(hips["subject"])]
    return assemble.rows_for(hips, features, measures, theirs, known.table("split"), params)


def section(package: Path, name: str, model: type[S]) -> S:
    """A section of the parameters that the package was made with."""
    own = dict(read_json(package / "params.json").get(name, {}))
    if missing := [key for key in POLICY.get(name, ()) if key not in own]:
        today = load(name, model).model_dump(mode="json")
        own |= {key: today[key] for key in missing}
    try:
        return load(name, model, {name: own})
    except WrongUse as error:
        raise WrongUse(
            f"model package {package.name} was registered by another version of osteoflow, whose parameters do not fit "
            f"this one ({str(error).removeprefix('params.yaml: ')}); train again with this version, or score with the "
            "version that registered it"
        ) from None


def describe(hips: pd.DataFrame, package: Path, mapper: Mapper) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(features, measures) of `hips`; a training patient's hip by the networks that did not see that patient."""
    folds = dict(zip(known.table("split")["subject"], known.table("split")["fold"], strict=True))
    kept = Settings().home / "features" / read_json(package / "package.json")["digest"][:16]
    rows = hips.to_dict("records")
    files = [kept / f"{combine(row['digest'], folds.get(row['subject']) or 'none')[:32]}.json" for row in rows]
    work = [
        (row, str(package), folds.get(row["subject"]), str(file))
        for row, file in zip(rows, files, strict=True)
        if not file.exists()
    ]
    list(mapper(_describe, work))
    found = [read_json(file) for file in files]
    same = [
        {
            "hip_visit": row["hip_visit"],
            "subject": row["subject"],
            "side": row["side"],
            "fold": folds.get(row["subject"]),
        }
        for row in rows
    ]
    features = pd.DataFrame([ids | {"features": one["features"]} for ids, one in zip(same, found, strict=True)])
    measured = pd.DataFrame([ids | one["measures"] for ids, one in zip(same, found, strict=True)])
    return features, measured.reindex(columns=sorted({*measured.columns, *tables.COLUMNS["measures"]}))


def _describe(work: tuple[dict[str, Any], str, str | None, str]) -> None:
    """One hip-visit through the package: segment → measure, classify. Written to `file` as JSON."""
    row, folder, fold, file = work
    package = Path(folder)
    hip = Path(row["path"])
    params = section(package, "measure", measure.Params)
    with _scratch() as place:
        drawn = predict(hip, package / "segment", fold, place)
        item = measure.item_of(hip, place / (drawn["file"] or "none"), row)
        measured = measure.process(item, params, place)
    encoded = encode([hip], package / "classify", {row["hip_visit"]: fold} if fold else None)
    vector = [None if value != value else float(value) for value in encoded.drop(columns="hip_visit").iloc[0]]
    plain = {
        name: value
        for name, value in (measured[0] if measured else {}).items()
        if isinstance(value, (str, int, float)) and value == value
    }
    write_json(Path(file), {"features": vector, "measures": plain})


@contextmanager
def _scratch() -> Iterator[Path]:
    home = Settings().home / "scratch"
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home) as place:
        yield Path(place)
