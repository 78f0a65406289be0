"""The dataset stage: claimed study versions to verified archives, one zip a version, and data/studies.parquet."""

from __future__ import annotations

import datetime
import logging
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from tasks.anonymize.marks import NOT_LOOKED
from tasks.anonymize.params import Params
from tasks.anonymize.pixels import Looks
from tasks.anonymize.release import REFUSALS, Released, release
from tasks.domain.errors import BadInput
from tasks.keys import Crosswalk, Keys
from tasks.store import archives, items, tables
from tasks.store.digests import combine, sha256_bytes, sha256_file
from tasks.store.items import Item, Mapper, Rows

if TYPE_CHECKING:
    from tasks.ledger import Ledger, StudyVersion

BATCHES = Path("data/batches")
STUDIES = Path("data/studies")
TABLE = Path("data/studies.parquet")

log = logging.getLogger("osteoflow.anonymize")


def item_of(version: StudyVersion, keys: Keys | None = None) -> Item:
    """One study version as an item. The payload is for the processes that open the originals, and is kept nowhere."""
    keys = keys or Keys.open()
    return Item(
        key=f"{keys.uid(version.study_uid)}-v{int(version.version)}",
        digest=combine(version.digest or "", keys.id),
        payload={
            "site": version.site,
            "study_uid": version.study_uid,
            "subject": keys.subject(version.site, version.patient_id),
            "files": [str(file.path) for file in version.files],
            "purged": bool(version.purged),
        },
        folder=version.batch or "",
        columns={
            "batch": version.batch,
            "version": float(version.version),
            "origin": version.origin,
            "site": version.site,
        },
    )


def pending(params: Params) -> list[Item]:
    """The study versions of all batch manifests, in order of batch; erased ones no longer resolve and are left out."""
    from tasks.ledger import Ledger

    claimed = _claimed()
    if not claimed:
        return []
    keys, ledger = Keys.open(), Ledger.open()
    found: dict[str, Item] = {}
    for row in claimed:
        version = ledger.resolve(row["commitment"])
        if version is None:
            continue
        item = item_of(version, keys)
        columns = item.columns | {"batch": row["batch"], "origin": row["origin"]}
        found[item.key] = Item(item.key, item.digest, item.payload, row["batch"], columns)
    return list(found.values())


def _claimed() -> list[dict[str, Any]]:
    """The rows of all batch manifests."""
    manifests = [tables.read("batch", path) for path in sorted(BATCHES.glob("*.parquet"))]
    return [{str(name): value for name, value in row.items()} for m in manifests for row in m.to_dict("records")]


def quarantined_keys(ledger: Ledger) -> list[tuple[str, str]]:
    """(row key of the ledger, reason) of each claimed version that the last run would not release."""
    if not TABLE.exists():
        return []
    studies = tables.read("studies", TABLE)
    held = studies[studies["status"] == "quarantined"]
    reasons = {(row.study, row.version): row.reason for row in held.itertuples()}
    if not reasons:
        return []
    keys = Keys.open()
    found = []
    for row in _claimed():
        version = ledger.resolve(row["commitment"])
        if version is None:
            continue
        for study in (keys.uid(version.study_uid), version.study_uid):
            if (reason := reasons.get((study, float(version.version)))) is not None:
                found.append((version.row_key, str(reason)))
                break
    return found


def process(item: Item, params: Params, out: Path) -> Rows:
    """Write `<study>-v<version>.zip` below `out`, or say why not. One row either way."""
    keys = Keys.open()
    study = item.payload["study_uid"] if params.retain_uids else keys.uid(item.payload["study_uid"])
    row: dict[str, Any] = {
        "subject": item.payload["subject"],
        "study": study,
        "archive": "",
        "files": 0.0,
        "refused": 0.0,
        "pixels": "",
        "status": "quarantined",
        "reason": "",
        "date": None,
        "digest": "",
        "owns": "",
    } | item.columns
    try:
        if item.payload["purged"]:
            raise BadInput("original_purged", "the original is gone and no archive of it is here")
        released, refusals = _release_all(item, study, keys, params)
    except BadInput as bad:
        log.warning("%s is quarantined: %s", item.key, bad)
        return [row | {"reason": bad.reason}]
    name = f"{item.key}.zip"
    archives.write(out / name, ((one.name, one.data) for one in released))
    _remember(item, study, released, keys)
    days = [day for one in released if (day := _day(one, params, keys, item.payload["site"])) is not None]
    return [
        row
        | {
            "archive": name,
            "files": float(len(released)),
            "refused": float(sum(refusals.values())),
            "status": "released",
            "pixels": "+".join(f"{many} {what}" for what, many in sorted(Counter(o.pixels for o in released).items())),
            "reason": "+".join(sorted(refusals)),
            "date": min(days).isoformat() if days else None,
            "digest": sha256_file(out / name),
            "owns": name,
        }
    ]


def _release_all(item: Item, study: str, keys: Keys, params: Params) -> tuple[list[Released], Counter[str]]:
    """Every file of the version that may go out, and the reasons of those that policy keeps back.

    One file that is broken, of another patient, or that fails verification holds back the whole study.
    """
    released: list[Released] = []
    refusals: Counter[str] = Counter()
    originals: dict[str, str] = {}
    looks = Looks(params.text_every)
    paths: list[str] = []
    for path in item.payload["files"]:
        try:
            data = Path(path).read_bytes()
        except FileNotFoundError:
            raise BadInput("original_missing", "the ledger names a file that is not in the spool") from None
        try:
            one = release(data, item.payload["site"], keys, params, looks)
        except BadInput as bad:
            if bad.reason not in REFUSALS:
                raise
            refusals[bad.reason] += 1
            continue
        if one.subject != item.payload["subject"] or one.study != study:
            raise BadInput("two_patients_in_study", "a file of another patient or study")
        digest = sha256_bytes(data)
        if originals.setdefault(one.sop, digest) != digest:
            raise BadInput("duplicate_sop_uid", "two files with one SOP Instance UID and different bytes")
        if len(originals) > len(released):
            released.append(one)
            paths.append(path)
    for n in looks.missed([one.header.series_uid if one.pixels == NOT_LOOKED else None for one in released]):
        released[n] = release(Path(paths[n]).read_bytes(), item.payload["site"], keys, params, looks)
    if not released:
        raise BadInput(next(iter(sorted(refusals)), "empty_study"), "nothing in this study is released")
    return released, refusals


def _remember(item: Item, study: str, released: list[Released], keys: Keys) -> None:
    header = released[0].header
    names = dict.fromkeys(one.header.text(0x00100010) for one in released)
    studies = {study: header.study_uid}
    Crosswalk(keys).record(item.payload["site"], header.patient_id, item.payload["subject"], names, studies)


def _day(one: Released, params: Params, keys: Keys, site: str) -> datetime.date | None:
    """AcquisitionDate, else SeriesDate, else StudyDate, as it stands in the released file."""
    if params.longitudinal == "removed":
        return None
    for tag in (0x00080022, 0x00080021, 0x00080020):
        text = one.header.text(tag).replace(".", "").replace("-", "")
        try:
            day = datetime.date(int(text[:4]), int(text[4:6]), int(text[6:8]))
        except ValueError:
            continue
        return day if params.longitudinal == "full" else keys.shift_date(site, one.header.patient_id, day)
    return None


def finish(rows: Rows, params: Params) -> Rows:
    """What only all rows together tell: days since the subject's first visit, and which versions are superseded."""
    usable = [row for row in rows if row["status"] in ("released", "frozen", "superseded")]
    newest: dict[str, float] = {}
    first: dict[str, str] = {}
    for row in usable:
        newest[row["study"]] = max(newest.get(row["study"], 0.0), float(row["version"]))
        if isinstance(row["date"], str):
            first[row["subject"]] = min(first.get(row["subject"], "9999-12-31"), row["date"])
    finished = []
    for row in rows:
        row = row | {"archive": row["owns"] or "", "days": float("nan")}
        if row["status"] in ("released", "frozen", "superseded"):
            if float(row["version"]) < newest[row["study"]]:
                row["status"] = "superseded"
            elif row["status"] == "superseded":
                row["status"] = "released"
            if isinstance(row["date"], str):
                since = datetime.date.fromisoformat(row["date"]) - datetime.date.fromisoformat(first[row["subject"]])
                row["days"] = float(since.days)
        finished.append(row)
    return finished


def run(params: Params, mapper: Mapper) -> None:
    previous = tables.read("studies", TABLE) if TABLE.exists() else tables.empty("studies")
    todo = pending(params)
    purged = {item.key for item in todo if item.payload["purged"]}
    rows = items.run(
        "anonymize",
        todo,
        process,
        params,
        previous=previous,
        out=STUDIES,
        mapper=mapper,
        frozen=lambda item: item.key in purged,
    )
    for row in rows:
        if row["item"] in purged and row["status"] in ("released", "frozen"):
            row |= {"status": "frozen", "reason": "original purged"}
        elif row["status"] == "frozen":
            row |= {"status": "released", "reason": ""}
    rows = finish(rows, params)
    STUDIES.mkdir(parents=True, exist_ok=True)
    items.sweep(STUDIES, rows)
    tables.write("studies", TABLE, pd.DataFrame(rows) if rows else tables.empty("studies"), ["study", "version"])
    counts = Counter(str(row["status"]) for row in rows)
    log.info(
        "%d study versions: %s", len(rows), ", ".join(f"{n} {what}" for what, n in sorted(counts.items())) or "none"
    )
