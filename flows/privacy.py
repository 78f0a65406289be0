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
from flows.erase import CACHE
from flows.retrain import alone
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
        if leaking and not dry_run:
            for leak in leaking:
                leak.outcome = _outcome(leak, ledger, keys)
                _remove(leak, settings)
            receive.purge(ledger)
            _rows(leaking)
            again()
        left = [] if dry_run or not leaking else [one.study for one in _look(ledger, keys, settings)[1]]
    found = {"checked": checked, "leaks": [leak.as_dict() for leak in leaking], "left": left}
    if leaking and not dry_run:
        name = combine(json.dumps(found, sort_keys=True))[:16]
        write_json(settings.home / "certificates" / f"privacy-{name}.json", found)
        Audit().write("privacy", getpass.getuser(), "verification of all archives", certificate=name)
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
    for path in _archives(settings):
        digest = dvc_digest(path)
        if digest not in seen:
            seen[digest] = _judged(path, digest, ledger, keys, params, crosswalk)
        leak = seen[digest]
        if leak is not None:
            leak.places.append(str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path))
    return len(seen), [leak for leak in seen.values() if leak is not None]


def _judged(
    path: Path, digest: str, ledger: Ledger, keys: Keys, params: anonymize.Params, crosswalk: Crosswalk
) -> Leak | None:
    subject = anonymize.subject_of(path)
    person = crosswalk.find(subject) if subject.isalnum() else None
    study, number = _named(path, digest)
    versions = _versions(ledger, keys, person, study)
    originals = [file for version in versions for file in version.files]
    wrong = anonymize.recheck(path, keys, params, person, originals)
    if not wrong:
        return None
    kinds = sorted({kind for found in wrong.values() for kind in found})
    # The subject as the crosswalk knows it: what stands in a leaking file could be anything.
    return Leak(digest, person.subject if person else "", study, number, kinds, len(wrong))


def _named(path: Path, digest: str) -> tuple[str, float]:
    """Study and version by the archive's name; an object of the cache has the name that a folder's listing gives."""
    name = path.name if path.suffix == ".zip" else Path(_listed(digest)).name
    study, _, number = name.removesuffix(".zip").rpartition("-v")
    return study, float(number) if number.isdigit() else 0.0


def _listed(digest: str) -> str:
    for listing in CACHE.rglob("*.dir"):
        for member in json.loads(listing.read_bytes()):
            if member["md5"] == digest:
                return str(member["relpath"])
    return ""


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
    if version.state not in ("done", "claimed") or version.commitment is None:
        return "made again by the arrival loop" if version.current else "withdrawn: a newer version is there"
    whole = bool(version.files) and not version.purged and all(file.path.exists() for file in version.files)
    if receive.withdraw(ledger, version.row_key, again=whole) is not None:
        return f"released again as version {leak.version + 1:.0f}"
    return "withdrawn: a newer version is there" if not version.current else "withdrawn: no original is left"


def _remove(leak: Leak, settings: Settings) -> None:
    """The bytes out of every store that is reached from here."""
    for place in leak.places:
        if not place.startswith("remote "):
            path = Path(place)
            path.chmod(0o644)
            path.unlink()
    shutil.rmtree(settings.home / "arrived" / "anonymize" / f"{leak.study}-v{leak.version:.0f}", ignore_errors=True)
    for name, remote in _remotes():
        if f"remote {name}" in leak.places:
            remote.delete(leak.digest)
    if "text in pixels" in leak.kinds:
        # What was made of those pixels shows them too.
        for folder in (Path("data/hips"), settings.home / "arrived" / "standardize"):
            for path in [p for p in folder.rglob(f"*{leak.study}*") if p.is_file()] if folder.exists() else []:
                path.unlink()
        for listing in list(CACHE.rglob("*.dir")) if CACHE.exists() else []:
            for member in json.loads(listing.read_bytes()):
                if leak.study in member["relpath"]:
                    (CACHE / member["md5"][:2] / member["md5"][2:]).unlink(missing_ok=True)


def _rows(leaking: list[Leak]) -> None:
    """Take them out of the table of studies; the next dataset run writes it anew."""
    if not TABLE.exists():
        return
    studies = tables.read("studies", TABLE)
    gone = {(leak.study, leak.version) for leak in leaking}
    keep = [pair not in gone for pair in zip(studies["study"], studies["version"].astype(float), strict=True)]
    if not all(keep):
        tables.write("studies", TABLE, studies[keep], ["study", "version"])
