"""Digests that identify items: bytes, files, and the code that a room runs."""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from pathlib import Path

TASKS = Path(__file__).resolve().parents[1]


def sha256_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def combine(*parts: str) -> str:
    """One digest over several strings, order kept, boundaries unambiguous."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode()
        total.update(len(data).to_bytes(8, "big") + data)
    return total.hexdigest()


@cache
def packages_of(room: str) -> tuple[str, ...]:
    """The packages under tasks/ that `room` imports, itself included, transitively and sorted: what its code is."""
    found: set[str] = set()
    waiting = [room]
    while waiting:
        package = waiting.pop()
        if package in found:
            continue
        found.add(package)
        for source in sorted((TASKS / package).rglob("*.py")):
            for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and node.module == "tasks":
                    names += [f"tasks.{alias.name}" for alias in node.names]
                for name in names:
                    parts = name.split(".")
                    if parts[0] == "tasks" and len(parts) > 1 and (TASKS / parts[1]).is_dir():
                        waiting.append(parts[1])
    return tuple(sorted(found))


@cache
def code_digest(room: str) -> str:
    """SHA-256 over the source and data files of `packages_of(room)`."""
    parts: list[str] = []
    for package in packages_of(room):
        for path in sorted((TASKS / package).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                parts += [path.relative_to(TASKS).as_posix(), sha256_file(path)]
    return combine(*parts)
