"""Every archive that was ever released, by the rules of today: `osteoflow verify --privacy`.

    archives (workspace, arrivals, DVC's cache) → what is wrong, whose, where copies are → new version or withdrawn
    → the bytes removed from every store → proof

Where the original is there the study is released again under a new version, by the arrival loop or the next dataset
run; where it is not, the study is withdrawn. What a model has learned from such a study stays known: the runs of the
dataset loop that had it are listed.
"""

from __future__ import annotations

import getpass
import json
import logging
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from dvc.exceptions import DvcException
from dvc.repo import Repo

from flows import lineage
from flows.alone import alone
from flows.erase import CACHE
from tasks import anonymize, receive
from tasks.domain.params import load
from tasks.domain.settings import Settings
from tasks.keys import Audit, Crosswalk, Keys, Person
from tasks.ledger import Ledger, StudyVersion
from tasks.store import tables
from tasks.store.digests import combine
from tasks.store.files import write_json

log = logging.getLogger("osteoflow.privacy")

STUDIES, TABLE = Path("data/studies"), Path("data/studies.parquet")
UNREADABLE = ["unreadable"]
Listed = dict[str, list[str]]
"""Digest of an object in DVC's cache → the names that folders' listings give it."""


@dataclass
class Leak:
    """One archive that must not be there: equal bytes, wherever they are."""

    digest: str
    subject: str
    study: str
    version: float
    kinds: list[str]
    files: int
    places: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)
    outcome: str = ""

    def as_dict(self) -> dict[str, Any]:
        return {
            "subject": self.subject,
            "study": self.study,
            "version": self.version,
            "wrong": self.kinds,
            "files": self.files,
            "copies": sorted(self.places),
            "dataset_runs": self.runs,
            "outcome": self.outcome,
        }


def verify(dry_run: bool = False, again: Callable[[], object] | None = None) -> dict[str, Any]:
    """`again` releases what is complete: the arrival loop by default. Returns
    {"checked", "leaks": [{subject, study, version, wrong, files, copies, dataset_runs, outcome}], "left"}."""
    if again is None:
        from flows.arrive import arrive

        again = arrive
    settings = Settings().ensure()
    with alone():
        ledger, keys = Ledger.open(), Keys.open()
        checked, leaking = _look(ledger, keys, settings)
        if leaking:
            _copies(leaking)
        found: dict[str, Any] = {"checked": checked, "leaks": leaking, "left": []}
        if leaking and not dry_run:
            listed, remotes = _listed(), list(_remotes())
            for leak in leaking:
                if leak.kinds == UNREADABLE:
                    leak.outcome = (
                        "kept: what cannot be read cannot be judged; osteoflow verify tells what it should be"
                    )
                    continue
                leak.outcome = _outcome(leak, ledger, keys)
                _remove(leak, settings, listed, remotes)
            receive.purge(ledger)
            _rows(leaking)
            found["left"] = None  # not looked at again yet
            try:
                again()
                found["left"] = [one.study for one in _look(ledger, keys, settings)[1]]
            finally:  # whatever the arrival loop says: bytes were removed
                found["leaks"] = [leak.as_dict() for leak in leaking]
                name = combine(json.dumps(found, sort_keys=True))[:16]
                write_json(settings.home / "certificates" / f"privacy-{name}.json", found)
                Audit().write("privacy", getpass.getuser(), "verification of all archives", certificate=name)
        found["leaks"] = [leak.as_dict() for leak in leaking]
    return found


# ---- looking --------------------------------------------------------------------------------------------------------


def _archives(settings: Settings) -> Iterator[Path]:
    for folder in (STUDIES, settings.home / "arrived" / "anonymize"):
        yield from sorted(folder.rglob("*.zip")) if folder.exists() else []
    for path in sorted(CACHE.rglob("*")) if CACHE.exists() else []:
        if path.is_file() and _is_archive(path):
            yield path


def _is_archive(path: Path) -> bool:
    with open(path, "rb") as handle:
        if handle.read(4) != b"PK\3\4":
            return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(".dcm") for name in archive.namelist())
    except zipfile.BadZipFile:
        return False


def _look(ledger: Ledger, keys: Keys, settings: Settings) -> tuple[int, list[Leak]]:
    """How many different archives there are, and those with something wrong in them; equal bytes are read once."""
    from flows.verify import dvc_digest

    params = load("anonymize", anonymize.Params)
    crosswalk = Crosswalk(keys)
    seen: dict[str, Leak | None] = {}
    listed = _listed()
    for path in _archives(settings):
        digest = dvc_digest(path)
        if digest not in seen:
            name = path.name if path.suffix == ".zip" else Path(listed.get(digest, [""])[0]).name
            seen[digest] = _judged(path, digest, name, ledger, keys, params, crosswalk)
        leak = seen[digest]
        if leak is not None:
            leak.places.append(str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path))
    return len(seen), [leak for leak in seen.values() if leak is not None]


def _judged(
    path: Path, digest: str, name: str, ledger: Ledger, keys: Keys, params: anonymize.Params, crosswalk: Crosswalk
) -> Leak | None:
    """`name` of the archive says study and version; '' of an object of the cache that no listing names."""
    study, _, version = name.removesuffix(".zip").rpartition("-v")
    number = float(version) if version.isdigit() else 0.0
    try:
        subject = anonymize.subject_of(path)
        person = crosswalk.find(subject) if subject.isalnum() else None
        versions = _versions(ledger, keys, person, study)
        originals = [file for version in versions for file in version.files]
        wrong = anonymize.recheck(path, keys, params, person, originals)
    except zipfile.BadZipFile:
        return Leak(digest, "", study, number, UNREADABLE, 0)
    if not wrong:
        return None
    kinds = sorted({kind for found in wrong.values() for kind in found})
    # The subject as the crosswalk knows it: what stands in a leaking file could be anything.
    return Leak(digest, person.subject if person else "", study, number, kinds, len(wrong))


def _listed() -> Listed:
    found: Listed = {}
    for listing in sorted(CACHE.rglob("*.dir")) if CACHE.exists() else []:
        for member in json.loads(listing.read_bytes()):
            found.setdefault(member["md5"], []).append(str(member["relpath"]))
    return found


def _versions(ledger: Ledger, keys: Keys, person: Person | None, study: str) -> list[StudyVersion]:
    if person is None:
        return []
    uids = {uid for released, uid in person.studies.items() if released == study} or (
        {uid for uid in person.studies.values() if study in (uid, keys.uid(uid))}
    )
    return [version for uid in sorted(uids) for version in ledger.find(uid) if version.site == person.site]


# ---- where copies went ----------------------------------------------------------------------------------------------


def _copies(leaking: list[Leak]) -> None:
    """Add the remotes that hold them, and the recorded dataset runs that had them."""
    by_digest = {leak.digest: leak for leak in leaking}
    for name, remote in _remotes():
        for leak in leaking:
            if remote.exists(leak.digest):
                leak.places.append(f"remote {name}")
    commits = subprocess.run(["git", "rev-list", lineage.BRANCH], capture_output=True, text=True).stdout.split()
    for commit in commits:
        lock = yaml.safe_load(lineage.show(commit, "dvc.lock")) or {}
        outs = [out for stage in (lock.get("stages") or {}).values() for out in stage.get("outs", [])]
        for out in (out for out in outs if Path(out["path"]) == STUDIES):
            listing = CACHE / out["md5"][:2] / out["md5"][2:]
            for member in json.loads(listing.read_bytes()) if listing.exists() else []:
                if member["md5"] in by_digest and commit[:12] not in by_digest[member["md5"]].runs:
                    by_digest[member["md5"]].runs.append(commit[:12])


def _remotes() -> Iterator[tuple[str, Any]]:
    """DVC's remotes that answer."""
    if not Path(".dvc").exists():
        return
    with Repo(".") as repo:
        for name in repo.config["remote"]:
            try:
                yield name, repo.cloud.get_remote_odb(name)
            except DvcException as error:
                log.warning("remote %s does not answer (%s): its copies have to be removed there", name, error)


# ---- acting ---------------------------------------------------------------------------------------------------------


def _outcome(leak: Leak, ledger: Ledger, keys: Keys) -> str:
    """Have the study released again under a new version, or withdraw it."""
    person = Crosswalk(keys).find(leak.subject) if leak.subject else None
    versions = _versions(ledger, keys, person, leak.study)
    mine = [version for version in versions if float(version.version) == leak.version]
    if not mine:
        return "withdrawn: the ledger does not know it"
    version = mine[0]
    released = version.commitment is not None or (version.state == "complete" and version.arrived)
    if not released:
        return "made again by the arrival loop" if version.current else "withdrawn: a newer version is there"
    whole = bool(version.files) and not version.purged and all(file.path.exists() for file in version.files)
    if receive.withdraw(ledger, version.row_key, again=whole) is not None:
        return f"released again as version {leak.version + 1:.0f}"
    return "withdrawn: a newer version is there" if not version.current else "withdrawn: no original is left"


def _remove(leak: Leak, settings: Settings, listed: Listed, remotes: list[tuple[str, Any]]) -> None:
    """The bytes out of every store that is reached from here."""
    for place in leak.places:
        if not place.startswith("remote "):
            _unlink(Path(place))
    gone = {leak.digest}
    if leak.study:
        shutil.rmtree(settings.home / "arrived" / "anonymize" / f"{leak.study}-v{leak.version:.0f}", ignore_errors=True)
    if leak.study and "text in pixels" in leak.kinds:
        # What was made of those pixels shows them too.
        visits = _visits(leak.study, settings)
        for folder in (Path("data/hips"), settings.home / "arrived" / "standardize"):
            for path in [path for visit in visits for path in folder.rglob(f"*{visit}*")] if folder.exists() else []:
                for file in path.rglob("*") if path.is_dir() else [path]:
                    if file.is_file():
                        _unlink(file)
        for digest, names in listed.items():
            if any(visit in name for visit in visits for name in names if not name.endswith(".zip")):
                _unlink(CACHE / digest[:2] / digest[2:])
                gone.add(digest)
    for _, remote in remotes:
        for digest in sorted(gone):
            if remote.exists(digest):
                remote.delete(digest)


def _visits(study: str, settings: Settings) -> set[str]:
    """The visits that this study is part of: what was made of one is named by its first study."""
    found = {study}
    table = Path("data/series.parquet")
    if table.exists():
        series = tables.read("series", table)
        found |= set(series.loc[series["study"] == study, "item"].astype(str))
    for rows in (settings.home / "arrived" / "standardize").glob("*/rows.json"):
        if study in rows.read_text(encoding="utf-8"):
            found.add(rows.parent.name)
    return found


def _unlink(path: Path) -> None:
    if path.exists():
        path.chmod(0o644)
        path.unlink(missing_ok=True)


def _rows(leaking: list[Leak]) -> None:
    """Take them out of the table of studies; the next dataset run writes it anew."""
    if not TABLE.exists():
        return
    studies = tables.read("studies", TABLE)
    gone = {(leak.study, leak.version) for leak in leaking}
    keep = [pair not in gone for pair in zip(studies["study"], studies["version"].astype(float), strict=True)]
    if not all(keep):
        tables.write("studies", TABLE, studies[keep], ["study", "version"])
