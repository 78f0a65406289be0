"""What a process that died while DVC wrote has left half written: dvc.lock, and the .dvc files of the inputs.

DVC writes both in place. `keep` puts the dvc.lock that is good aside before it is changed; `mend` puts it back, so that
only the stage during which the process died is looked at again. A .dvc file is written anew by the run itself.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from tasks.store.files import write_bytes

log = logging.getLogger("osteoflow.mended")

KEPT = Path(".dvc/tmp/osteoflow/dvc.lock")
DIGEST = re.compile(r"[0-9a-f]{32}(\.dir)?")


def keep(root: Path) -> None:
    lock = root / "dvc.lock"
    if lock.exists():
        (root / KEPT).parent.mkdir(parents=True, exist_ok=True)
        write_bytes(root / KEPT, lock.read_bytes())


def mend(root: Path, inputs: Iterable[Path]) -> list[str]:
    """Names of the files that were half written; called where no other run is going on. `inputs`: folders under DVC."""
    found = []
    for path in (folder.with_suffix(".dvc") for folder in inputs):
        if (root / path).exists() and not _whole_input(root / path):
            (root / path).unlink()
            found.append(str(path))
    lock, kept = root / "dvc.lock", root / KEPT
    if lock.exists() and not _whole_lock(lock):
        if kept.exists() and _whole_lock(kept):
            write_bytes(lock, kept.read_bytes())
        else:
            lock.unlink()
        found.append(lock.name)
    for name in found:
        log.warning("%s was half written by a process that died; mended", name)
    return found


def _whole_lock(path: Path) -> bool:
    lock = _read(path)
    if not isinstance(lock, dict) or not isinstance(lock.get("stages"), dict):
        return False
    return all(
        isinstance(stage, dict) and isinstance(stage.get("cmd"), str) and _entries(stage.get("deps", []))
        and _entries(stage.get("outs", []))
        for stage in lock["stages"].values()
    )  # fmt: skip


def _whole_input(path: Path) -> bool:
    found = _read(path)
    return isinstance(found, dict) and bool(found.get("outs")) and _entries(found["outs"])


def _entries(entries: Any) -> bool:
    return isinstance(entries, list) and all(
        isinstance(one, dict)
        and isinstance(one.get("path"), str)
        and ("md5" not in one or DIGEST.fullmatch(str(one["md5"])))
        for one in entries
    )


def _read(path: Path) -> Any:
    try:
        return yaml.load(path.read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, UnicodeDecodeError):
        return None
