"""MLflow: the runs of the training rooms, the registry of packages, and who moved which alias, when and why.

Rooms write `reports/<room>/run.jsonl`; this mirrors it. A package is registered once, by its digest: the same package
again is the same version. MLflow keeps no history of aliases, so promotions are kept beside it, append only.
"""

from __future__ import annotations

import getpass
import json
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mlflow
from mlflow.data.dataset_source_registry import resolve_dataset_source
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature

from flows.busy import FOLDER, path_of
from tasks.domain.errors import WrongUse
from tasks.domain.settings import Settings
from tasks.store.files import read_json

log = logging.getLogger("osteoflow.tracking")

MODEL = "onfh-progression"
EXPERIMENT = "onfh-progression"
ALIASES = ("champion", "challenger", "previous")


@dataclass(frozen=True)
class Version:
    """One registered version: its number, the package digest, and the tags that say what it is made of."""

    number: int
    digest: str
    aliases: tuple[str, ...]
    tags: dict[str, str] = field(default_factory=dict)
    run_id: str = ""

    @property
    def ref(self) -> str:
        return f"model:{MODEL}/{self.number}"


def client() -> mlflow.MlflowClient:
    return mlflow.MlflowClient()


# ---- runs -----------------------------------------------------------------------------------------------------------


def experiment() -> str:
    found = client().get_experiment_by_name(EXPERIMENT)
    if found:
        return found.experiment_id
    try:
        return client().create_experiment(EXPERIMENT, artifact_location=(Settings().home / "mlartifacts").as_uri())
    except MlflowException:  # made by another process meanwhile
        found = client().get_experiment_by_name(EXPERIMENT)
        if found is None:
            raise
        return found.experiment_id


def begin(name: str, tags: dict[str, str]) -> str:
    """Open the parent run of one run of the dataset loop."""
    return client().create_run(experiment(), run_name=name, tags=tags).info.run_id


def end(run_id: str, status: str = "FINISHED") -> None:
    client().set_terminated(run_id, status)


def close_dead(status: str = "FAILED") -> None:
    """Runs that a crash left open are closed as failed; called under the lock of the dataset loop."""
    for run in client().search_runs([experiment()], "attributes.status = 'RUNNING'"):
        client().set_terminated(run.info.run_id, status)


def mirror(room: str, parent: str, root: Path) -> str | None:
    """Copy `reports/<room>/run.jsonl` into a child run: parameters, metrics by step, figures and tables."""
    source = root / "reports" / room / "run.jsonl"
    if not source.exists():
        return None
    tags = {"mlflow.parentRunId": parent, "osteoflow.room": room}
    run_id = client().create_run(experiment(), run_name=room, tags=tags).info.run_id
    metrics: list[Metric] = []
    params: dict[str, str] = {}
    status = "FAILED"
    for event in _events(source):
        if event["event"] == "params":
            params |= {_name(key): _text(value) for key, value in _flat(event["params"])}
        elif event["event"] == "metric" and event["value"] is not None:
            name = "/".join(_name(part) for part in (event.get("model"), event["name"]) if part)
            metrics.append(Metric(name, float(event["value"]), 0, int(event.get("step", 0))))
        elif event["event"] == "figure" and (root / event["path"]).exists():
            client().log_artifact(run_id, str(root / event["path"]), "figures")
        elif event["event"] == "end" and event["status"] == "finished":
            status = "FINISHED"
    speed = root / FOLDER / f"{room}.json"  # of this machine and day: beside what DVC keeps
    for model, numbers in (read_json(speed) if speed.exists() else {}).items():
        metrics += [Metric(_name(f"speed/{model}/{name}"), float(value), 0, 0) for name, value in numbers.items()]
    busy = root / path_of(room)
    for seconds, values in (read_json(busy) if busy.exists() else {}).items():
        metrics += [Metric(f"system/{name}", float(value), 0, round(float(seconds))) for name, value in values.items()]
    for start in range(0, len(metrics), 1000):
        client().log_batch(run_id, metrics=metrics[start : start + 1000])
    entries = [Param(key, value) for key, value in params.items()]
    for start in range(0, len(entries), 100):
        client().log_batch(run_id, params=entries[start : start + 100])
    for extra in sorted(source.parent.glob("*")):
        if extra.suffix in {".json", ".csv", ".svg"}:
            client().log_artifact(run_id, str(extra), "figures" if extra.suffix == ".svg" else "")
    client().set_terminated(run_id, status)
    return run_id


def died(room: str, reason: str, root: Path) -> str | None:
    """Keep what a room told before it died, as a failed run of a failed parent; None where it told nothing.

    A room that finished and whose outs could not be recorded has nothing to add: the next run mirrors it.
    """
    source = root / "reports" / room / "run.jsonl"
    if not source.exists() or any(event.get("status") == "finished" for event in _events(source)):
        return None
    parent = begin(f"dataset run that died in {room}", {"osteoflow.died_of": reason})
    try:
        return mirror(room, parent, root)
    finally:
        end(parent, "FAILED")


def _events(source: Path) -> Iterator[dict[str, Any]]:
    for line in source.read_text(encoding="utf-8").splitlines():
        if line.strip():
            yield json.loads(line)


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value


def _name(text: object) -> str:
    return "".join(letter if letter.isalnum() or letter in "_-. /" else "_" for letter in str(text))[:200]


def _text(value: object) -> str:
    return str(value)[:500]


# ---- registry -------------------------------------------------------------------------------------------------------


def versions() -> list[Version]:
    """All registered versions, oldest first."""
    try:
        registered = client().get_registered_model(MODEL)
    except MlflowException:
        return []
    aliases: dict[int, list[str]] = {}
    for alias, number in registered.aliases.items():
        aliases.setdefault(int(number), []).append(alias)
    found = [
        Version(
            int(entry.version),
            entry.tags.get("package_digest", ""),
            tuple(sorted(aliases.get(int(entry.version), []))),
            dict(entry.tags),
            entry.run_id or "",
        )
        for entry in client().search_model_versions(f"name = '{MODEL}'")
    ]
    return sorted(found, key=lambda version: version.number)


def version(ref: str | int) -> Version:
    """`3` or `champion`; raises WrongUse naming what there is."""
    for candidate in versions():
        if str(candidate.number) == str(ref) or str(ref) in candidate.aliases:
            return candidate
    there = ", ".join(f"{v.number} ({'+'.join(v.aliases) or 'no alias'})" for v in versions()) or "none"
    raise WrongUse(f"no version '{ref}' of {MODEL}; registered: {there}")


def find(alias: str) -> Version | None:
    return next((version for version in versions() if alias in version.aliases), None)


def register(package: Path, digest: str, run_id: str, inputs: dict[str, str], tags: dict[str, str]) -> Version:
    """Register the folder `package` as a new version, or return the version that has this digest already.

    `inputs` maps the path of each input to its DVC digest; each is logged as a data set of the run, so that the
    registry itself answers what the model is made of. The model is code and safetensors, no pickle.
    """
    for known in versions():
        if known.digest == digest:
            return known
    from tasks.register import input_example, signature_json

    with mlflow.start_run(run_id=run_id):
        for name, content in sorted(inputs.items()):
            with warnings.catch_warnings():  # "may be a local path or ...": it is a path
                warnings.simplefilter("ignore", UserWarning)
                source = resolve_dataset_source(name)
            mlflow.log_input(MetaDataset(source, name=name, digest=content[:36]), context="input")  # type: ignore[abstract]
        info = mlflow.pyfunc.log_model(
            name="package",
            python_model=str(package / "model.py"),
            artifacts={"package": str(package)},
            signature=ModelSignature.from_dict(signature_json(package)),
            input_example=input_example(package),
            pip_requirements=["mlflow", "numpy", "pandas", "safetensors", "torch"],
        )
    if not any(model.name == MODEL for model in client().search_registered_models()):
        client().create_registered_model(MODEL, description="Estimated risk of ONFH progression. Research use only.")
    made = client().create_model_version(
        MODEL, source=info.model_uri, run_id=run_id, model_id=info.model_id, tags={"package_digest": digest, **tags}
    )
    return version(made.version)


def tag(number: int, tags: dict[str, str]) -> None:
    for key, value in tags.items():
        client().set_model_version_tag(MODEL, str(number), key, str(value)[:4900])


def point(alias: str, number: int | None) -> None:
    """Move `alias` to version `number`, or take it away."""
    if number is not None:
        client().set_registered_model_alias(MODEL, alias, str(number))
    elif find(alias):
        client().delete_registered_model_alias(MODEL, alias)


def package_of(number: int) -> Path:
    """The registered package as this machine's own copy under OSTEOFLOW_HOME/models/, which scoring reads."""
    kept = Settings().home / "models" / MODEL / str(number)
    if not (kept / "package.json").exists():
        source = Path(mlflow.artifacts.download_artifacts(f"models:/{MODEL}/{number}"))
        found = next(source.rglob("package.json"), None)
        if found is None:
            raise WrongUse(f"version {number} of {MODEL} holds no package.json; was it registered by osteoflow?")
        keep(found.parent, number)
    return kept


def artifact_of(number: int) -> Path | None:
    """The package as the registry holds it, when its artifacts lie on this machine."""
    source = client().get_model_version_download_uri(MODEL, str(number))
    folder = Path(source.removeprefix("file://"))
    return next(iter(folder.rglob("package.json")), folder / "none").parent if folder.is_dir() else None


def keep(package: Path, number: int) -> Path:
    """Copy `package` to where scoring reads it: whole or not at all."""
    import os
    import shutil

    kept = Settings().home / "models" / MODEL / str(number)
    partial = kept.with_name(f".{number}.part")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(package, partial)
    shutil.rmtree(kept, ignore_errors=True)
    os.replace(partial, kept)
    return kept


# ---- history of aliases ---------------------------------------------------------------------------------------------


def note(action: str, number: int, reason: str, by: str | None = None) -> dict[str, Any]:
    """Append to the history: which version, what happened, who, when, why."""
    entry = {
        "action": action,
        "version": number,
        "reason": reason,
        "by": by or getpass.getuser(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    path = Settings().ensure().home / "promotions.jsonl"
    with open(path, "a", encoding="utf-8") as history:
        history.write(json.dumps(entry, sort_keys=True) + "\n")
    return entry


def history() -> list[dict[str, Any]]:
    path = Settings().home / "promotions.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def package_facts(number: int) -> dict[str, Any]:
    return read_json(package_of(number) / "package.json")
