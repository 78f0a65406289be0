"""Recompute digests and name what differs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from tasks.store.digests import sha256_file

Hasher = Callable[[Path], str | None]


def verify_digests(
    expected: Iterable[Mapping[str, Any]], hashers: Mapping[str, Hasher] | None = None
) -> dict[str, Any]:
    """{"checked": n, "differences": [{"kind", "what", "expected", "found"}]} for entries {kind, what, digest, path}.

    `hashers` gives the function for a kind (DVC's own for its files and folders); without one it is SHA-256 of the
    file. `found` is null where there is nothing to hash.
    """
    checked, differences = 0, []
    for entry in expected:
        path = Path(entry["path"])
        hasher = (hashers or {}).get(entry["kind"], sha256_file)
        checked += 1
        found = hasher(path) if path.exists() else None
        if found != entry["digest"]:
            differences.append(
                {"kind": entry["kind"], "what": entry["what"], "expected": entry["digest"], "found": found}
            )
    return {"checked": checked, "differences": differences}
