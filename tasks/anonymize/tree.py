"""A tree of files in, a tree of de-identified DICOM files out, one report row for each file: `osteoflow anonymize`.

Outcomes: `released`; `quarantined` (something is wrong with the file, somebody should look); `refused` (this kind of
object is not released, or it is a copy of a file that was). Files with one StudyInstanceUID and two patients are all
quarantined. Of files with one SOP Instance UID and equal bytes the first is released and the rest are refused as
`duplicate`; with different bytes all of them are quarantined, because nobody can tell which is the true one.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import stat
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from tasks.anonymize.marks import NOT_LOOKED
from tasks.anonymize.params import Params
from tasks.anonymize.pixels import Looks
from tasks.anonymize.release import REFUSALS, release
from tasks.domain.errors import BadInput, WrongUse
from tasks.keys import Crosswalk, Keys
from tasks.store import checks
from tasks.store.files import FIXED_TIME
from tasks.store.items import Mapper

Row = dict[str, Any]

PRELOAD = ("tasks.anonymize", "scipy.ndimage")
"""What the server of a pool imports once for its processes: SciPy's import takes as long as two thousand files."""

_CHUNK, _LARGEST = 32, 256
"""Files that a process is given at a time: at least and at most, where a folder is that large."""


@dataclass(frozen=True)
class _Seen:
    """What the first look at a file tells: enough to see what is wrong between files."""

    study: str
    patient: str
    sop: str
    name: str


def anonymize_tree(
    src: Path,
    dst: Path,
    keys: Keys,
    params: Params,
    site: str,
    name_sources: bool = False,
    mapper: Mapper | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Row]:
    """De-identify every file below `src` into `dst`/<study>/<series>/<sop>.dcm; returns the report's rows.

    `source` is the place (from 0) of the file in the sorted list of the paths below `src`, or with `name_sources` the
    path itself, and the report is then identified. Nothing of a file that is not released is written anywhere.
    """
    src, dst = Path(src), Path(dst)
    if not src.exists():
        raise WrongUse(f"{src} is not there")
    paths = list_files(src, dst)
    seen, verdicts = _between(paths, keys, mapper or map)
    todo = [n for n in range(len(paths)) if n not in verdicts]
    key_file = str(keys.secret.path)
    work = [(chunk, str(dst), key_file, params, site) for chunk in _chunks(todo, paths)]
    rows: dict[int, Row] = {
        n: _row(n, _outcome(reason), reason, _sealed(paths[n], keys)) for n, reason in verdicts.items()
    }
    for done in (mapper or map)(_chunk, work):
        rows.update({row["source"]: row for row in done})
        if progress is not None:
            progress(len(rows), len(paths))
    _remember(rows, seen, keys, site, params)
    ordered = [rows[n] for n in range(len(paths))]
    if name_sources:
        root = src if src.is_dir() else src.parent
        ordered = [row | {"source": paths[row["source"]].relative_to(root).as_posix()} for row in ordered]
    return ordered


def _chunks(todo: list[int], paths: list[Path]) -> Iterator[tuple[tuple[int, str], ...]]:
    """Whole folders, as far as they go: what a process has learned of a series serves for all of it."""
    chunk: list[tuple[int, str]] = []
    folder = ""
    for n in todo:
        path = str(paths[n])
        before, folder = folder, os.path.dirname(path)
        if len(chunk) >= _LARGEST or (len(chunk) >= _CHUNK and folder != before):
            yield tuple(chunk)
            chunk = []
        chunk.append((n, path))
    if chunk:
        yield tuple(chunk)


def list_files(src: Path, dst: Path | None = None) -> list[Path]:
    """All files below `src` in the order of their relative paths; links are not followed, `dst` is left out."""
    if src.is_file():
        return [src]
    inside = dst.resolve() if dst is not None else None
    root, found = os.fspath(src), []
    for folder, folders, names in os.walk(root):
        if inside is not None:
            folders[:] = [name for name in folders if (Path(folder) / name).resolve() != inside]
        paths = (f"{folder}/{name}" for name in names)  # text: a Path for each costs more than the rest
        found += [path for path in paths if _is_file(path)]
    return [Path(path) for path in sorted(found, key=lambda path: path[len(root) :].lstrip("/"))]


def _is_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False  # gone again, or not for us


def _between(paths: list[Path], keys: Keys, mapper: Mapper) -> tuple[dict[int, _Seen], dict[int, str]]:
    """The first look at all files, and the verdicts that only several files together give."""
    seen: dict[int, _Seen] = {}
    verdicts: dict[int, str] = {}
    patients: dict[str, set[str]] = defaultdict(set)
    sops: dict[str, list[int]] = defaultdict(list)
    chunks = [[str(path) for path in paths[start : start + 4 * _CHUNK]] for start in range(0, len(paths), 4 * _CHUNK)]
    for n, one in enumerate(itertools.chain.from_iterable(mapper(_first_look, chunks))):
        if isinstance(one, str):
            verdicts[n] = one
            continue
        seen[n] = one
        patients[one.study].add(one.patient)
        sops[one.sop].append(n)
    for n, one in seen.items():
        if len(patients[one.study]) > 1:
            verdicts[n] = "two_patients_in_study"
    for group in sops.values():
        left = [n for n in group if n not in verdicts]
        if len(left) > 1:
            digests = Counter(_sealed(paths[n], keys) for n in left)
            for n in left if len(digests) > 1 else left[1:]:
                verdicts[n] = "duplicate_sop_uid" if len(digests) > 1 else "duplicate"
    return seen, verdicts


def _first_look(paths: list[str]) -> list[_Seen | str]:
    """Of each file what it says it is, or the reason why it cannot be used."""
    found: list[_Seen | str] = []
    for path in paths:
        try:
            header = checks.checked_header(path)
            found.append(_Seen(header.study_uid, header.patient_id, header.sop_uid, header.text(0x00100010)))
        except BadInput as bad:
            found.append(bad.reason)
        except OSError:
            found.append("unreadable")
    return found


@lru_cache(maxsize=4)
def _keys(key_file: str) -> Keys:
    return Keys.open(Path(key_file))


def _chunk(work: tuple[tuple[tuple[int, str], ...], str, str, Params, str]) -> list[Row]:
    """Some files, in a process of their own; the key is opened there and never travels."""
    files, dst, key_file, params, site = work
    keys = _keys(key_file)
    looks = Looks(params.text_every)
    done = [_one(n, Path(path), Path(dst), keys, params, site, looks) for n, path in files]
    rows = [row for row, _ in done]
    for at in looks.missed([series for _, series in done]):
        n, path = files[at]
        before = rows[at]["target"]
        rows[at], _ = _one(n, Path(path), Path(dst), keys, params, site, looks)
        if rows[at]["target"] != before:
            (Path(dst) / before).unlink(missing_ok=True)
    return rows


def _one(n: int, path: Path, dst: Path, keys: Keys, params: Params, site: str, looks: Looks) -> tuple[Row, str | None]:
    """Its row, and its series where its pixels were passed over."""
    try:
        data = path.read_bytes()
    except OSError:
        return _row(n, "quarantined", "unreadable", ""), None
    sealed = keys.digest(data)
    try:
        released = release(data, site, keys, params, looks)
    except BadInput as bad:
        return _row(n, _outcome(bad.reason), bad.reason, sealed), None
    target = f"{released.study}/{released.name}"
    _write(f"{dst}/{target}", released.data)
    row = _row(n, "released", "", sealed) | {"pixels": released.pixels}
    row |= {"target": target, "sha256_target": hashlib.sha256(released.data).hexdigest()}
    return row, released.header.series_uid if released.pixels == NOT_LOOKED else None


def _write(path: str, data: bytes) -> None:
    """Whole or not at all, with the fixed time that all released files carry."""
    folder, name = os.path.split(path)
    partial = f"{folder}/.{name}.part"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    try:
        handle = os.open(partial, flags, 0o644)
    except FileNotFoundError:
        os.makedirs(folder, exist_ok=True)
        handle = os.open(partial, flags, 0o644)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(handle, rest) :]
        os.utime(handle, (FIXED_TIME, FIXED_TIME))
    finally:
        os.close(handle)
    os.replace(partial, path)


def _sealed(path: Path, keys: Keys) -> str:
    try:
        with open(path, "rb") as handle:
            return keys.seal(hashlib.file_digest(handle, "sha256").digest())
    except OSError:
        return ""


def _row(n: int, outcome: str, reason: str, sealed: str) -> Row:
    return {
        "source": n,
        "outcome": outcome,
        "reason": reason,
        "pixels": "",
        "target": "",
        "digest_source": sealed,
        "sha256_target": "",
    }


def _outcome(reason: str) -> str:
    return "refused" if reason in REFUSALS else "quarantined"


def _remember(rows: dict[int, Row], seen: dict[int, _Seen], keys: Keys, site: str, params: Params) -> None:
    """Write the crosswalk of what was released."""
    people: dict[str, list[_Seen]] = defaultdict(list)
    for n, row in rows.items():
        if row["outcome"] == "released" and n in seen:
            people[seen[n].patient].append(seen[n])
    if not people:
        return
    crosswalk = Crosswalk(keys)
    for patient, files in people.items():
        studies = {one.study if params.retain_uids else keys.uid(one.study): one.study for one in files}
        names = dict.fromkeys(one.name for one in files)
        crosswalk.record(site, patient, keys.subject(site, patient), names, studies)
