"""A package as a folder of files: its digest, what differs from what it says of itself, its facts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.domain.errors import WrongUse
from tasks.store.digests import combine, sha256_file
from tasks.store.files import read_json

FACTS = "package.json"


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below `folder`, by its path in it, sorted."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in files}


def package_digest(folder: Path) -> str:
    """One SHA-256 over all files and facts: what the registry knows a package by, and what package.json says it is."""
    facts, found = read_package(folder), digests(folder)
    found.pop(FACTS)
    return digest_of(facts, found)


def digest_of(facts: Mapping[str, Any], files: Mapping[str, str]) -> str:
    """Of the facts (without their own `digest`) and the digests of the other files."""
    said = json.dumps({key: facts[key] for key in facts if key != "digest"}, sort_keys=True, separators=(",", ":"))
    return combine(said, *(part for path in sorted(files) for part in (path, files[path])))


def read_package(folder: Path) -> dict[str, Any]:
    """The facts in package.json."""
    if not (folder / FACTS).exists():
        raise WrongUse(f"{folder} holds no {FACTS}; run the register stage (osteoflow retrain, or dvc repro register)")
    return read_json(folder / FACTS)


def differences(folder: Path) -> list[dict[str, str | None]]:
    """Files that are not what package.json says: {"kind", "what", "expected", "found"}, found null when missing."""
    expected, found = read_package(folder)["files"], digests(folder)
    return [
        {"kind": "package", "what": path, "expected": expected.get(path), "found": found.get(path)}
        for path in sorted((set(expected) | set(found)) - {FACTS})
        if expected.get(path) != found.get(path)
    ]
