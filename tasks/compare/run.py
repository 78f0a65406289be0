"""Train what has changed, keep the rest, and write the table."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pandas as pd

from tasks.compare import slices as sliced
from tasks.compare import table
from tasks.compare.fold import Job, fit_fold, throughput, weigh
from tasks.compare.params import Params
from tasks.domain.errors import WrongUse
from tasks.store.digests import code_digest, combine
from tasks.store.files import read_json, replacing, write_json
from tasks.store.items import Mapper
from tasks.training import data, speed
from tasks.training.progress import Progress

OUT, TABLE, LEAKAGE = Path("reports/compare"), Path("reports/compare.csv"), Path("reports/compare-leakage.csv")
_ONLY_TABLE = {"networks", "pretrained", "top_slices", "threshold", "bootstrap"}
"""Parameters that do not change what one network learns."""
_log = logging.getLogger("osteoflow.compare")


def run_beside(params: Params, mapper: Mapper, shuffled: bool = False) -> None:
    """Folds of slices beside folds of patients, and what the first seem to gain: the leak."""
    both = {}
    for by_patient in (True, False):
        run(params, mapper, by_patient, shuffled)
        out = _named(OUT, by_patient, shuffled)
        both[by_patient] = {n: _predictions(out, n) for n in params.networks if (out / f"{n}.parquet").exists()}
    found = table.leakage(both[True], both[False], params.top_slices, params.threshold, params.bootstrap)
    _write_table(_named(LEAKAGE, True, shuffled), found)
    for row in found[found["unit"] == "slice"].itertuples():
        _log.info("%s: AUC by slice %.3f with folds of patients, %.3f with folds of slices",
                  row.network, row.auc, row.auc_slice_split)  # fmt: skip


def _named(path: Path, by_patient: bool, shuffled: bool) -> Path:
    """With other folds or labels (a demonstration, not a stage) results lie beside, under their own name."""
    suffix = ("" if by_patient else "-slice-split") + ("-shuffled-labels" if shuffled else "")
    return path.with_name(path.stem + suffix + path.suffix)


def run(params: Params, mapper: Mapper, by_patient: bool = True, shuffled: bool = False) -> None:
    """The stage, with folds of patients and true labels."""
    out, csv = _named(OUT, by_patient, shuffled), _named(TABLE, by_patient, shuffled)
    out.mkdir(parents=True, exist_ok=True)
    rows, slices = _task(params, by_patient, shuffled)
    with Progress(out / "run.jsonl", params) as progress:
        reason = _unfit(slices)
        if reason:
            _log.warning("nothing is compared: %s", reason)
            _sweep(out, set())
            _write_table(csv, pd.DataFrame(columns=table.COLUMNS))
            return
        _train(params, params.networks, rows, slices, out, mapper)
        records = {network: read_json(out / f"{network}.json") for network in params.networks}
        for network in params.networks:
            for fit in records[network]["fits"]:
                progress.curve(f"{network}/fold{fit['fold']}/seed{fit['seed']}", fit["history"])
        predictions = {network: _predictions(out, network) for network in params.networks}
        work = [(n, p, params.top_slices, params.threshold, params.bootstrap) for n, p in predictions.items()]
        found = pd.DataFrame([row for rows_ in mapper(table.rows_of, work) for row in rows_])
        found = table.against_best(found, predictions, params.top_slices, params.bootstrap)
        for column in ("parameters", "mmacs"):
            found[column] = [records[network][column] for network in found["network"]]
        slicewise = found[found["unit"] == "slice"]
        for name in ("auc", "auc_pooled"):
            for network, area in slicewise[["network", name]].to_numpy():
                progress.metric(network, name, area)
        _write_table(csv, found)
        _sweep(out, {f"{network}{end}" for network in params.networks for end in (".json", ".parquet")})


def run_one(params: Params, mapper: Mapper, network: str) -> None:
    """One network of the stage, for a worker of its own: leaves the result that the stage then finds done."""
    if network not in params.networks:
        raise WrongUse(f"'{network}' is not among the networks of params.yaml: {', '.join(params.networks)}")
    rows, slices = _task(params, True, False)
    reason = _unfit(slices)
    if reason:
        _log.warning("nothing is compared: %s", reason)
        return
    OUT.mkdir(parents=True, exist_ok=True)
    _train(params, [network], rows, slices, OUT, mapper)


def _task(params: Params, by_patient: bool, shuffled: bool) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(hip-visits, slices): what is learned, without test and external patients."""
    rows = data.cohort()
    rows = rows[data.learnt_from(rows)].reset_index(drop=True)
    slices = sliced.table(params, rows, data.labels())
    slices = sliced.shuffled(slices, params.recipe.seed) if shuffled else slices
    return rows, slices if by_patient else sliced.by_slice(slices, params.recipe.seed)


def _train(
    params: Params, networks: list[str], rows: pd.DataFrame, slices: pd.DataFrame, out: Path, mapper: Mapper
) -> None:
    """Those of `networks` that are not done with these inputs; each is kept as soon as its last fold is."""
    fingerprint = data.fingerprint(rows)
    marks = {network: _digest(params, network, slices, fingerprint) for network in networks}
    todo = [network for network in networks if not _is_done(out, network, marks[network])]
    _log.info("%d slices of %d patients; training %d of %d networks", len(slices), slices["subject"].nunique(),
              len(todo), len(networks))  # fmt: skip
    jobs = [
        Job(params, network, fold, seed, tuple(rows["path"]), slices, fingerprint, marks[network])
        for network in todo
        for seed in params.seeds
        for fold in sorted(slices["fold"].unique())
    ]
    each = len(jobs) // max(1, len(todo))
    done: list[dict[str, Any]] = []
    for result in mapper(fit_fold, jobs):
        done.append(result)
        if len(done) == each:
            _keep(out, params, marks[result["network"]], slices, done)
            done = []


def _unfit(slices: pd.DataFrame) -> str:
    if slices.empty:
        return "no slice has a mask or a lesion label"
    if slices["fold"].nunique() < 2:
        return "all labelled hip-visits lie in one fold"
    if slices["label"].nunique() < 2:
        return "all labelled slices are of one class"
    return ""


def _digest(params: Params, network: str, slices: pd.DataFrame, fingerprint: str) -> str:
    own = params.model_dump_json(exclude=_ONLY_TABLE)
    given = params.pretrained.get(network)
    weights = given.sha256 if given else ""
    return combine(network, own, weights, sliced.digest(slices), fingerprint, code_digest("compare"))


def _is_done(out: Path, network: str, mark: str) -> bool:
    path = out / f"{network}.json"
    return path.exists() and (out / f"{network}.parquet").exists() and read_json(path)["digest"] == mark


def _keep(out: Path, params: Params, mark: str, slices: pd.DataFrame, fits: list[dict[str, Any]]) -> None:
    """Predictions first, then the record that makes them count."""
    network = fits[0]["network"]
    parts = [slices[slices["fold"] == fit["fold"]].assign(p=fit["p"], seed=float(fit["seed"])) for fit in fits]
    with replacing(out / f"{network}.parquet") as partial:
        pd.concat(parts).drop(columns="visit").to_parquet(partial, compression="zstd", index=False)
    speed.note("compare", network, {"images_per_s": throughput(network, params.size_px)} | speed.of(fits))
    record = weigh(network, params.size_px) | {
        "network": network,
        "digest": mark,
        "fits": [{key: value for key, value in fit.items() if key not in ("p", "network", "speed")} for fit in fits],
    }
    write_json(out / f"{network}.json", record)
    _log.info("%s: done", network)


def _predictions(out: Path, network: str) -> pd.DataFrame:
    """One row a slice, the mean over seeds, in the same order however folds were dealt."""
    keys = ["hip_visit", "subject", "slice", "label", "fold"]
    return pd.read_parquet(out / f"{network}.parquet").groupby(keys, as_index=False).agg(p=("p", "mean"))


def _write_table(path: Path, found: pd.DataFrame) -> None:
    with replacing(path) as partial:
        found.to_csv(partial, index=False, float_format="%.6g")


def _sweep(out: Path, wanted: set[str]) -> None:
    for path in out.iterdir():
        if path.name not in wanted | {"run.jsonl"}:
            path.unlink()
