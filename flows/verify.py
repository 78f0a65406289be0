"""Every digest behind a model, recomputed from the bytes."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import yaml

from flows import lineage
from tasks.domain.errors import WrongUse
from tasks.store.digests import sha256_file


def verify(ref: str) -> dict[str, Any]:
    """Recompute every digest behind a model: its lineage commit's code, its inputs and outputs in DVC's cache, the
    workspace as dvc.lock says it is, the registered package and this machine's copy of it. Nothing is taken from a
    cache of hashes."""
    from flows import tracking
    from tasks.trace import verify_digests

    name = ref.removeprefix("model:").removeprefix(tracking.MODEL).lstrip("@/") or "champion"
    version = tracking.version(name)
    commit = version.tags.get("lineage", "")
    lock = yaml.safe_load(lineage.show(commit, "dvc.lock")) or {} if commit else {}
    if not lock:
        raise WrongUse(
            f"version {version.number} names the lineage commit '{commit[:12]}', which is not in this repository"
        )
    expected = [*_recorded(lock, commit), *_workspace(), *_package(version)]
    hashers = {"cache": _rehash_cached, "file": dvc_digest, "package": sha256_file, "registry": sha256_file}
    result = verify_digests([entry for entry in expected if entry["kind"] != "code"], hashers)
    for entry in (entry for entry in expected if entry["kind"] == "code"):
        result["checked"] += 1
        found = _code_digest(commit, entry["path"])
        if found != entry["digest"]:
            result["differences"].append(
                {"kind": "code", "what": entry["what"], "expected": entry["digest"], "found": found}
            )
    return result


def _recorded(lock: dict[str, Any], commit: str) -> list[dict[str, Any]]:
    """Every dependency and output of every stage as the model's commit recorded it, each once."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for stage in lock.get("stages", {}).values():
        for entry in [*stage.get("deps", []), *stage.get("outs", [])]:
            path, digest = entry["path"], entry["md5"]
            if path.startswith("tasks/"):
                found[path, digest] = {
                    "kind": "code",
                    "what": f"{path} at {commit[:12]}",
                    "digest": digest,
                    "path": path,
                }
            else:
                cached = cache_file(digest)
                what = f"{path} in DVC's cache"
                found[path, digest] = {"kind": "cache", "what": what, "digest": digest, "path": str(cached)}
    return list(found.values())


def _workspace() -> list[dict[str, Any]]:
    """Outputs in the workspace, as the present dvc.lock has them."""
    lock = Path("dvc.lock")
    stages = (yaml.safe_load(lock.read_text()) or {}).get("stages", {}) if lock.exists() else {}
    return [
        {"kind": "file", "what": out["path"], "digest": out["md5"], "path": out["path"]}
        for stage in stages.values()
        for out in stage.get("outs", [])
    ]


def _package(version: Any) -> list[dict[str, Any]]:
    """Each file of the registered package and of this machine's copy, by the SHA-256 that package.json lists; and
    package.json's own digest, which the registry holds as a tag."""
    from flows import tracking
    from tasks.register import package_digest, read_package

    kept = tracking.package_of(version.number)
    entries = []
    places = {"package": kept}
    artifact = tracking.artifact_of(version.number)
    if artifact is not None:
        places["registry"] = artifact
    for kind, folder in places.items():
        facts = read_package(folder)
        for name, digest in sorted(facts["files"].items()):
            what = f"{name} of version {version.number} ({'registry' if kind == 'registry' else 'local copy'})"
            entries.append({"kind": kind, "what": what, "digest": digest, "path": str(folder / name)})
        if package_digest(folder) != version.digest:
            what = f"package.json of version {version.number}"
            entries.append({"kind": kind, "what": what, "digest": version.digest, "path": str(folder / "package.json")})
    return entries


def cache_file(digest: str) -> Path | None:
    """Where DVC's local cache holds the object with this digest."""
    return Path(".dvc/cache/files/md5") / digest[:2] / digest[2:] if digest else None


def dvc_digest(path: Path) -> str:
    """DVC's digest of a file (MD5) or folder (MD5 of the sorted list of its files, with '.dir'), computed anew."""
    if path.is_file():
        return _md5(path.read_bytes())
    members = [p for p in sorted(path.rglob("*")) if p.is_file() and p.name != ".gitignore"]
    return _folder_digest({p.relative_to(path).as_posix(): _md5(p.read_bytes()) for p in members})


def _folder_digest(members: dict[str, str]) -> str:
    listed = [
        {"md5": digest, "relpath": name} for name, digest in sorted(members.items(), key=lambda kv: kv[0].split("/"))
    ]
    return _md5(json.dumps(listed, sort_keys=True).encode()) + ".dir"


def _rehash_cached(path: Path) -> str | None:
    """The digest of a cache object from its bytes; of a folder's, also those of every member."""
    found = _md5(path.read_bytes())
    if not path.name.endswith(".dir"):
        return found
    for member in json.loads(path.read_bytes()):
        cached = cache_file(member["md5"])
        if cached is None or not cached.exists() or _md5(cached.read_bytes()) != member["md5"]:
            return f"{member['relpath']} differs or is gone"
    return f"{found}.dir"


def _code_digest(commit: str, path: str) -> str | None:
    """DVC's digest of a folder of code from the files that the lineage commit holds."""
    done = subprocess.run(["git", "ls-tree", "-r", "-z", commit, f"{path}/"], capture_output=True, check=True)
    members: dict[str, str] = {}
    for line in done.stdout.decode().split("\0"):
        if line:
            blob, name = line.split("\t")[0].split()[2], line.split("\t")[1]
            content = subprocess.run(["git", "cat-file", "blob", blob], capture_output=True, check=True).stdout
            members[name.removeprefix(f"{path}/")] = _md5(content)
    return _folder_digest(members) if members else None


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
