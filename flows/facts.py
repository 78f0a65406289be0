"""Plain facts for whoever asks: status, lineage, verification, the report. Reads everything, changes nothing.

`tasks/trace` and `tasks/publish` work on these facts and know no DVC, Git or MLflow.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import yaml
from rich.table import Table

from flows import lineage
from flows.policy import alarms
from flows.supervise import held, serving
from flows.verify import cache_file
from tasks.domain.errors import WrongUse
from tasks.domain.hip import RESEARCH_ONLY
from tasks.domain.settings import OCR, Settings
from tasks.ledger import STATES, Ledger
from tasks.store.digests import sha256_file
from tasks.store.files import read_json

TABLES = ("studies", "series", "hips", "annotations", "split", "measures", "sequences", "predictions")


# ---- status ---------------------------------------------------------------------------------------------------------


def status() -> dict[str, Any]:
    """The truth at this moment, in the form of DESIGN's `status --json`."""
    settings, ledger = Settings().ensure(), Ledger.open()
    last = last_run(ledger, settings)
    models: dict[str, int | None] = {"champion": None, "challenger": None, "previous": None}
    tainted: dict[str, str] = {}
    if (settings.home / "mlflow.sqlite").exists() or "sqlite" not in _tracking_uri():
        from flows import tracking

        for alias in models:
            found = tracking.find(alias)
            models[alias] = found.number if found else None
        tainted = {str(v.number): v.tags["tainted"] for v in tracking.versions() if v.tags.get("tainted")}
    free = shutil.disk_usage(settings.home)
    return {
        "studies": ledger.counts(),
        "quarantine": ledger.quarantined(),
        "models": models,
        "tainted": tainted,
        "annotations": _annotations(),
        "last_run": {
            "status": last.get("status"), "why": last.get("why"), "started": _iso(last.get("started")),
            "ended": _iso(last.get("ended")), "batch": last.get("batch"), "lineage": last.get("lineage"),
        } if last else {},
        "waiting_for": ledger.waiting_for(),
        "not_scored": not_scored(ledger),
        "alarms": alarms(ledger),
        "oldest_waiting": _oldest(ledger),
        "serving": serving(settings),
        "series_rejected": _rejected(),
        "not_reanonymizable": max(_frozen(), ledger.purged_studies()),
        "drift": _drift(),
        "text_engine": shutil.which(OCR) is not None,
        "disk": {"free_gb": round(free.free / 1e9, 1), "home_gb": round(_size(settings.home) / 1e9, 2)},
    }  # fmt: skip


def last_run(ledger: Ledger, settings: Settings) -> dict[str, Any]:
    """What the ledger says of the last run; one that it calls running and whose lock nobody holds has died since."""
    last = ledger.last_run() or {}
    if last.get("status") == "running" and not held(settings.home / "retrain.lock"):
        last |= {"status": "crashed", "why": "its process is gone; the next run goes on where it stopped"}
    return last


def _oldest(ledger: Ledger) -> dict[str, Any] | None:
    """The study that has waited longest: an opaque key and hours, never the day on which it came."""
    found = ledger.oldest_waiting()
    if found is None:
        return None
    hours = round((datetime.now(UTC).timestamp() - found["since"]) / 3600, 1)
    return {"row_key": found["row_key"], "state": found["state"], "hours": hours, "waiting": found["waiting"]}


def _rejected() -> dict[str, int]:
    frame = current_table("series")
    if frame is None:
        return {}
    rejected = frame[frame["status"] == "rejected"]
    return {
        str(reason): int(count) for reason, count in rejected["reason"].str.split(":").str[0].value_counts().items()
    }


def _annotations() -> dict[str, Any]:
    """What the last dataset run said of annotations: how many wait, were refused, are to be adjudicated."""
    path = Path("reports/annotate/agreement.json")
    found = read_json(path) if path.exists() else {}
    return {name: found[name] for name in ("waiting", "rejected", "disagreements") if found.get(name)}


def not_scored(ledger: Ledger) -> dict[str, int]:
    """How many studies the champion never scores, for it was made of another origin than they: {its origin: n}."""
    if not (Settings().home / "models").exists():
        return {}
    from flows import tracking

    champion = tracking.find("champion")
    made_of = tracking.package_facts(champion.number)["origin"] if champion else "hospital"
    if champion is None or made_of == "hospital":
        return {}
    others = [one for one in ledger.unscored(str(champion.number), STATES) if one.origin != made_of]
    return {made_of: len(others)} if others else {}


def _frozen() -> int:
    frame = current_table("studies")
    return 0 if frame is None else int((frame["status"] == "frozen").sum())


def _drift() -> dict[str, Any]:
    path = Path("reports/drift.json")
    return read_json(path) if path.exists() else {}


def status_tables(found: dict[str, Any]) -> list[Any]:
    """The same as one screen."""
    studies = Table(*found["studies"], title="studies")
    studies.add_row(*(str(count) for count in found["studies"].values()))
    held = Table("reason", "files or studies", title="quarantine")
    for reason, count in sorted(found["quarantine"].items()):
        held.add_row(reason, str(count))
    rest = Table("what", "now", title="osteoflow")
    rest.add_row(
        "models", ", ".join(f"{alias}: {number}" for alias, number in found["models"].items() if number) or "none"
    )
    last = found["last_run"]
    rest.add_row("last run", ": ".join(filter(None, (last["status"], last["why"]))) if last else "none yet")
    rest.add_row("waiting for", found["waiting_for"])
    for made_of, count in found["not_scored"].items():
        rest.add_row("not scored", f"{count} of another origin: the champion was made of {made_of} studies")
    for number, reason in found["tainted"].items():
        rest.add_row("tainted model", f"{number}: {reason}")
    if found["annotations"]:
        rest.add_row("annotations", "\n".join(_in_words(found["annotations"])))
    if (oldest := found["oldest_waiting"]) is not None:
        why = f" ({oldest['waiting']})" if oldest["waiting"] else ""
        rest.add_row("oldest waiting", f"{oldest['row_key']}: {oldest['state']} for {oldest['hours']} h{why}")
    for name, said in found["serving"].items():
        rest.add_row(f"serve: {name}", said)
    for alarm in found["alarms"]:
        rest.add_row("alarm", alarm)
    if found["series_rejected"]:
        rest.add_row("series rejected", "\n".join(_in_words(found["series_rejected"])))
    if found["not_reanonymizable"]:
        rest.add_row("not re-anonymizable", f"{found['not_reanonymizable']} studies (originals purged)")
    if not found["text_engine"]:
        rest.add_row("burned-in text", "no OCR is installed (Debian: tesseract-ocr): what says it has some is held")
    rest.add_row("disk", f"{found['disk']['home_gb']} GB used here, {found['disk']['free_gb']} GB free")
    return [studies, held, rest] if found["quarantine"] else [studies, rest]


def _in_words(counts: Mapping[str, Any], said: str = "") -> Iterator[str]:
    for name, count in counts.items():
        if isinstance(count, Mapping):
            yield from _in_words(count, f"{said}{name}: ")
        else:
            yield f"{said}{name}: {count}"


def _tracking_uri() -> str:
    import os

    return os.environ.get("MLFLOW_TRACKING_URI", "sqlite")


def _iso(seconds: float | None) -> str | None:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds") if seconds else None


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


# ---- lineage --------------------------------------------------------------------------------------------------------


def trace(ref: str) -> tuple[dict[str, Any], Any]:
    """(graph, text) of `ref`, both ways. An original UID or id is keyed here and never printed."""
    from tasks.trace import graph, text
    from tasks.trace import trace as walk

    whole = graph(facts())
    try:
        found = walk(whole, ref)
    except WrongUse:
        keyed = _keyed(ref)
        if keyed is None:
            raise
        ref, found = keyed, walk(whole, keyed)
    return found, text(found, ref)


def _keyed(ref: str) -> str | None:
    """`ref` with its original id or UID replaced by the pseudonym, when it can be one; it is never echoed."""
    from tasks.keys import Keys

    kind, _, name = ref.partition(":")
    if kind == "study":
        return f"study:{Keys.open().uid(name)}"
    if kind == "subject":
        return f"subject:{Keys.open().subject(Settings().site, name)}"
    return None


def facts() -> dict[str, Any]:
    """What `tasks.trace.graph` reads: the states of the workspace that matter, batches, models, scores."""
    models = _models()
    wanted = {model["commit"] for model in models if model["commit"]}
    commits = [commit for commit in _commits() if commit["commit"] in wanted]
    snapshots = [_snapshot(commit) for commit in commits]
    now = Path("dvc.lock")
    if now.exists() and (not commits or lineage.show(commits[-1]["commit"], "dvc.lock") != now.read_text().strip()):
        tables = {name: frame for name in TABLES if (frame := current_table(name)) is not None}
        snapshots.append({"commit": "", "time": "", "lock": yaml.safe_load(now.read_text()), "tables": tables})
    return {
        "snapshots": snapshots,
        "batches": [
            {"batch": path.stem, "digest": sha256_file(path), "n": pq.read_metadata(path).num_rows}
            for path in sorted(Path("data/batches").glob("*.parquet"))
        ],
        "models": models,
        "scores": scores(),
        "published": [],
    }


def _models() -> list[dict[str, Any]]:
    from flows import tracking

    return [
        {
            "name": tracking.MODEL, "version": version.number, "aliases": list(version.aliases),
            "package_digest": version.digest, "commit": version.tags.get("lineage", ""),
            "run": version.tags.get("prefect_run", ""), "origin": version.tags.get("origin", ""),
            "inputs": json.loads(version.tags.get("inputs", "{}")), "tainted": version.tags.get("tainted"),
        }
        for version in tracking.versions()
    ]  # fmt: skip


def scores() -> list[dict[str, Any]]:
    """One entry a scored hip-visit, from OSTEOFLOW_HOME/scores/."""
    found = []
    for path in sorted((Settings().home / "scores").glob("*.json")):
        digest = sha256_file(path)
        for row in read_json(path)["scores"]:
            found.append(row | {"model": row["version"], "digest": digest, "path": f"scores/{path.name}"})
    return found


def _commits() -> list[dict[str, str]]:
    """Commits of the lineage branch, oldest first."""
    done = subprocess.run(
        ["git", "log", "--reverse", "--format=%H %cI", lineage.BRANCH], capture_output=True, text=True, check=False
    )
    return [dict(zip(("commit", "time"), line.split(), strict=True)) for line in done.stdout.splitlines()]


def _snapshot(commit: dict[str, str]) -> dict[str, Any]:
    """The lock of a lineage commit, and its tables from DVC's cache."""
    lock = yaml.safe_load(lineage.show(commit["commit"], "dvc.lock")) or {}
    digests = {out["path"]: out["md5"] for stage in lock.get("stages", {}).values() for out in stage.get("outs", [])}
    tables = {}
    for name in TABLES:
        cached = cache_file(digests.get(f"data/{name}.parquet", ""))
        if cached is not None and cached.exists():
            tables[name] = pq.read_table(cached).to_pandas()
    return {**commit, "lock": lock, "tables": tables}


def current_table(name: str) -> pd.DataFrame | None:
    path = Path("data") / f"{name}.parquet"
    return pq.read_table(path).to_pandas() if path.exists() else None


# ---- report ---------------------------------------------------------------------------------------------------------


def report_facts(decision: dict[str, Any]) -> dict[str, Any]:
    """What `tasks.publish` shows: tables, reports, models, the gate's decision, lineage of the model."""
    from flows import promote, tracking

    ledger = Ledger.open()
    found = {name: frame for name in TABLES if (frame := current_table(name)) is not None}
    version = tracking.version(decision["version"])
    return {
        "tables": found,
        "arrivals": {"studies": ledger.counts(), "quarantine": ledger.quarantined()},
        "models": [
            {
                "name": tracking.MODEL, "version": v.number, "aliases": list(v.aliases), "digest": v.digest,
                "evaluate": tracking.package_facts(v.number)["evaluate"], "tags": v.tags,
            }
            for v in tracking.versions()
        ],
        "decision": decision,
        "decisions": promote.decisions(),
        "history": tracking.history(),
        "lineage": {
            "commit": version.tags.get("lineage", ""), "run": version.tags.get("prefect_run", ""),
            "package": version.digest, "environment": version.tags.get("environment", ""),
            "inputs": json.loads(version.tags.get("inputs", "{}")),
        },
        "scores": scores(),
        "notice": RESEARCH_ONLY,
    }  # fmt: skip
