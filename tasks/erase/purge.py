"""Do what the plan says, prove that nothing is left, and certify it with hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.domain.errors import Refused
from tasks.erase.plan import Plan, hits, matcher, search
from tasks.store.digests import sha256_file
from tasks.store.files import replacing, write_text

Entry = dict[str, Any]


def purge(plan: Plan) -> list[Entry]:
    """Take everything of `plan` out; returns what was done, by hash. Safe to repeat: what is gone stays gone."""
    pattern = matcher(plan.needles)
    done: list[Entry] = []
    for name, count in plan.rows.items():
        path = Path(name)
        if path.exists():
            before = sha256_file(path)
            table = pq.read_table(path)
            with replacing(path) as partial:
                pq.write_table(table.filter(pa.array(~hits(table, pattern))), partial, compression="zstd")
            done.append(_entry("rows", path, before, count))
    for name, count in plan.lines.items():
        path = Path(name)
        if path.exists():
            before = sha256_file(path)
            kept = [
                line
                for line in path.read_text(encoding="utf-8", errors="replace").splitlines()
                if not pattern.search(line)
            ]
            write_text(path, "".join(f"{line}\n" for line in kept))
            done.append(_entry("lines", path, before, count))
    for name in plan.files:
        path = Path(name)
        if path.exists():
            done.append(_entry("file", path, sha256_file(path), 1))
            path.unlink()
            _prune(path.parent)
    return done


def remaining(plan: Plan, root: Path = Path(), home: Path | None = None) -> list[str]:
    """Paths that still name the subject, after the purge: none, or the erasure is not done."""
    files, rows, lines = search(plan.needles, root, home)
    return sorted({*files, *rows, *lines})


def certificate(
    plan: Plan,
    done: Iterable[Entry],
    left: Iterable[str],
    elsewhere: Mapping[str, int] | None = None,
) -> Entry:
    """What was erased, as hashes, counts and model versions: no pseudonym, no path, no date.

    `elsewhere`: what the flow erased with other tools, {"dvc_cache": n, "ledger_rows": n, ..}. Raises Refused while
    anything is left.
    """
    still = list(left)
    if still:
        raise Refused(f"{len(still)} files still name the subject; run osteoflow erase again, then look at the plan")
    entries = list(done)
    return {
        "subject": _hash(plan.subject),
        "studies": sorted(_hash(study) for study in plan.studies),
        "hip_visits": len(plan.hip_visits),
        "erased": sorted(entries, key=lambda entry: (entry["kind"], entry["name"])),
        "counts": {kind: sum(e["count"] for e in entries if e["kind"] == kind) for kind in ("file", "rows", "lines")},
        "elsewhere": dict(elsewhere or {}),
        "tainted_models": [{"name": m.name, "version": m.version, "reason": _reason(m.reason)} for m in plan.models],
        "left": 0,
    }


def _entry(kind: str, path: Path, before: str, count: int) -> Entry:
    """`name` is the hash of the path, `digest` that of the content as it was."""
    return {"kind": kind, "name": _hash(path.as_posix()), "digest": before, "count": count}


def _reason(reason: str) -> str:
    return reason.split(" (", 1)[0]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _prune(folder: Path) -> None:
    """Empty folders go too: their names may hold a UID."""
    while folder.name not in ("", "data", "models", "reports") and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
