"""The stage: copy what scoring needs, say what it is, write the card."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from tasks import nets
from tasks.domain.errors import WrongUse
from tasks.domain.hip import RESEARCH_ONLY
from tasks.register import checklists
from tasks.register.card import card
from tasks.register.package import FACTS, digest_of, digests
from tasks.register.params import Params
from tasks.register.signature import example, signature
from tasks.store import tables
from tasks.store.files import read_json, write_bytes, write_json, write_text
from tasks.store.items import Mapper

OUT = Path("models/package")
PARTS = ("classify", "segment", "forecast")
SECTIONS = ("standardize", "classify", "segment", "measure", "assemble", "forecast", "register")
KEPT = (".safetensors", ".json")
HERE = Path(__file__).resolve().parent
FORECASTER = Path(str(nets.__file__)).with_name("forecaster.py")
log = logging.getLogger("osteoflow.register")


def run(params: Params, mapper: Mapper, sections: Mapping[str, Any]) -> None:
    """Write models/package/. `sections`: params.yaml as it was read for this run."""
    sequences = tables.read("sequences", Path("data/sequences.parquet"))
    hips = tables.read("hips", Path("data/hips.parquet"))
    evaluate = read_json(Path("reports/evaluate.json"))
    missing = [part for part in ("classify", "forecast") if not (Path("models") / part).is_dir()]
    if missing:
        raise WrongUse(f"models/{missing[0]} is not there; run the stage {missing[0]} first")
    shutil.rmtree(OUT, ignore_errors=True)
    for part in PARTS:
        copy(Path("models") / part, OUT / part)
    write_bytes(OUT / "forecaster.py", FORECASTER.read_bytes())
    write_bytes(OUT / "model.py", (HERE / "model.py.txt").read_bytes())
    write_json(OUT / "params.json", {name: sections[name] for name in SECTIONS if name in sections})
    write_json(OUT / "signature.json", signature(sequences))
    write_json(OUT / "input_example.json", example(sequences, params.example_patients))
    series = tables.read("series", Path("data/series.parquet"))
    facts = describe(params, sequences, hips, series, evaluate)
    write_text(OUT / "card.md", card(facts, evaluate))
    for name, text in checklists.tables(facts, evaluate, sections).items():
        write_text(OUT / name, text)
    files = digests(OUT)
    facts["files"] = files
    write_json(OUT / FACTS, facts | {"digest": digest_of(facts, files)})
    log.info("%s: %d files, origin %s. %s", OUT, len(files) + 1, facts["origin"], RESEARCH_ONLY)


def copy(source: Path, target: Path) -> None:
    """Weights and JSON of one trained part, with fixed times; nothing else of the folder goes in."""
    for path in sorted(source.rglob("*")) if source.is_dir() else []:
        if path.is_file() and path.suffix in KEPT and not path.name.startswith("."):
            write_bytes(target / path.relative_to(source), path.read_bytes())


def describe(
    params: Params, sequences: pd.DataFrame, hips: pd.DataFrame, series: pd.DataFrame, evaluate: Mapping[str, Any]
) -> dict[str, Any]:
    """The facts of package.json, all but the digests."""
    fold = sequences["fold"].fillna("none").astype(str)
    training, test = sequences[~fold.isin(["test", "external", "none"])], sequences[fold == "test"]
    used = hips[hips["hip_visit"].isin(sequences["hip_visit"])]
    origins = sorted(used["origin"].dropna().unique().tolist())
    horizon = sequences["horizon_days"].dropna()
    return {
        "name": params.name,
        "horizon_days": float(horizon.iloc[0]) if len(horizon) else None,
        "features": feature_names(OUT / "forecast"),
        "networks": {part: sorted(path.stem for path in (OUT / part).rglob("*.safetensors")) for part in PARTS},
        # One phantom hip makes it a phantom model: it must never score a patient.
        "origin": "phantom" if "phantom" in origins else "+".join(origins) or "unknown",
        "n_patients": int(sequences["subject"].nunique()),
        "n_hips": int(sequences["hip"].nunique()),
        "n_hip_visits": len(sequences),
        "n_training_patients": int(training["subject"].nunique()),
        "n_test_patients": int(test["subject"].nunique()),
        "n_external_patients": int(sequences.loc[fold == "external", "subject"].nunique()),
        "n_training_events": int((training["label"] == 1).sum()),
        "vendors": sorted(series.loc[series["study"].isin(used["study"]), "vendor"].dropna().unique().tolist()),
        "evaluate": summary(evaluate),
        "note": RESEARCH_ONLY,
    }


def feature_names(forecast: Path) -> list[str]:
    """Names of the model's input vector, as the forecast stage wrote them."""
    for name in ("inputs.json", "ensemble.json"):
        if (forecast / name).exists():
            found = read_json(forecast / name)
            names = found if isinstance(found, list) else found.get("features", found.get("names", []))
            return [str(one) for one in names]
    return []


def summary(evaluate: Mapping[str, Any]) -> dict[str, Any]:
    """The plain values of evaluate.json, and each baseline's AUC with its interval."""
    plain = {key: value for key, value in evaluate.items() if not isinstance(value, (dict, list))}
    wanted = ("auc", "auc_low", "auc_high", "n", "n_events")
    against = {name: {key: row.get(key) for key in wanted} for name, row in evaluate.get("baselines", {}).items()}
    return plain | {"baselines": against}
