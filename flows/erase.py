"""Erasure of one subject, everywhere: the plan, the purge, the tainted models, the certificate.

    plan → originals, ledger, crosswalk → workspace → DVC's cache → registry's artifacts → proof → certificate

Each step is safe to repeat. Models that learned from the subject are tagged as tainted; the next dataset run makes one
that did not. Batch manifests stay as they are: without its salt a commitment says nothing.
"""

from __future__ import annotations

import getpass
import json
import logging
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from flows.alone import alone
from flows.facts import facts
from tasks import erase, receive
from tasks.annotate.forget import forget
from tasks.domain.settings import Settings
from tasks.keys import Audit, Crosswalk, Keys, Person
from tasks.ledger import Ledger
from tasks.store.digests import combine
from tasks.store.files import write_json, write_text

log = logging.getLogger("osteoflow.erase")

CACHE = Path(".dvc/cache/files/md5")


def run(subject: str, dry_run: bool = False) -> dict[str, Any]:
    """The plan (with `dry_run`), or the certificate of what was done."""
    settings = Settings().ensure()
    with alone():
        known = facts()
        plan = erase.plan(subject, known, Path(), settings.home)
        person = Crosswalk(Keys.open()).find(subject)
        if dry_run:
            held = _ledger(person, dry_run=True)
            return plan.as_dict() | {"dvc_cache": len(cached(plan.needles)), "identified": held}
        elsewhere = _identified(subject, person, settings)
        done = erase.purge(plan)
        elsewhere["dvc_cache_objects"] = _remove(cached(plan.needles))
        elsewhere["registry_files"] = _registry(plan, settings)
        left = [*erase.remaining(plan, Path(), settings.home), *map(str, cached(plan.needles))]
        certificate = erase.certificate(plan, done, left, elsewhere)
        name = combine(json.dumps(certificate, sort_keys=True))[:16]
        write_json(settings.home / "certificates" / f"{name}.json", certificate)
        Audit().write("erase", getpass.getuser(), "erasure", certificate=name)
        return certificate


# ---- identified zone ------------------------------------------------------------------------------------------------


def _ledger(person: Person | None, dry_run: bool) -> dict[str, int]:
    if person is None:
        return {"study_versions": 0, "files": 0}
    found = Ledger.open().erase(patient_id=person.patient_id, site=person.site, dry_run=dry_run)
    if found.unnamed:
        log.warning(
            "%d files in quarantine name no patient, and are not searched: osteoflow quarantine list, then discard",
            found.unnamed,
        )
    return {"study_versions": len(found.row_keys), "files": len(found.paths), "held_unnamed": found.unnamed}


def _identified(subject: str, person: Person | None, settings: Settings) -> dict[str, int]:
    """Ledger rows with their salts, originals, kept tables and masks, and the crosswalk's record."""
    counts = {f"ledger_{name}": n for name, n in _ledger(person, dry_run=False).items()}
    receive.purge(Ledger.open())
    if person is not None:
        ids, studies = (person.patient_id, subject), (*person.studies.values(), *person.studies)
        counts["annotation_sources"] = sum(
            forget(settings.identified / folder, person.site, ids, studies)
            for folder in ("annotations", "inbox/annotations")
        )
    Crosswalk(Keys.open()).forget(subject)
    return counts


# ---- DVC's cache and the registry -----------------------------------------------------------------------------------


def cached(needles: tuple[str, ...]) -> list[Path]:
    """Objects in DVC's cache that name the subject or, by a folder's listing, belong to him."""
    pattern = re.compile("|".join(re.escape(needle) for needle in needles).encode())
    found: set[Path] = set()
    for path in sorted(CACHE.rglob("*")) if CACHE.exists() else []:
        if not path.is_file():
            continue
        data = path.read_bytes()
        if path.name.endswith(".dir") and pattern.search(data):
            found.add(path)
            for member in json.loads(data):
                if pattern.search(member["relpath"].encode()):
                    found.add(CACHE / member["md5"][:2] / member["md5"][2:])
        elif data[:4] == b"PAR1":
            frame = pq.read_table(path).to_pandas()
            if _names(frame, pattern):
                found.add(path)
        elif pattern.search(data):
            found.add(path)
    return sorted(path for path in found if path.exists())


def _names(frame: pd.DataFrame, pattern: re.Pattern[bytes]) -> bool:
    texts = [frame[column].dropna().astype(str) for column in frame.columns if frame[column].dtype == object]
    return any(pattern.search("\n".join(column).encode()) for column in texts)


def _remove(paths: list[Path]) -> int:
    for path in paths:
        path.chmod(0o644)
        path.unlink()
    return len(paths)


def _registry(plan: erase.Plan, settings: Settings) -> int:
    """Files that MLflow keeps of runs and that name the subject; tainted versions are tagged."""
    from flows import tracking

    pattern = re.compile("|".join(re.escape(needle) for needle in plan.needles))
    gone = 0
    for path in sorted((settings.home / "mlartifacts").rglob("*")):
        if not path.is_file() or path.suffix not in {".json", ".csv", ".svg", ".jsonl"}:
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        if pattern.search(text):
            if path.suffix in {".csv", ".jsonl"}:
                write_text(path, "".join(line for line in text.splitlines(keepends=True) if not pattern.search(line)))
            else:
                path.unlink()
            gone += 1
    for taint in plan.models:
        tracking.tag(taint.version, {"tainted": taint.reason})
    return gone
