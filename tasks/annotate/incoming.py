"""`osteoflow annotate SRC`: from what the hospital wrote to one immutable de-identified import, whole or not at all."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.annotate import clinical, imports, keyed, masks_in, nifti, nrrd, tid1500
from tasks.annotate.clinical import Refusal
from tasks.annotate.drawn import MAX_BYTES, Drawn
from tasks.annotate.keyed import Keys
from tasks.domain.errors import WrongUse
from tasks.store import hips
from tasks.store.digests import combine
from tasks.store.files import FIXED_TIME, write_json

KNOWN = (*masks_in.IMPORTERS, *tid1500.SOP_CLASSES)
"""SOP classes of DICOM files that hold annotations."""


@dataclass
class Summary:
    """What an import did. `refused` and `notes` hold no PHI; `path` is None when nothing was imported."""

    path: Path | None = None
    existing: bool = False
    """The same input had been imported before: nothing was done."""
    counts: dict[str, int] = field(default_factory=dict)
    """Rows taken, by table."""
    refused: list[Refusal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    left: dict[str, list[str]] = field(default_factory=dict)
    """Why nothing of a file was taken, by its path below SRC: identified, and not for a report."""

    @property
    def ok(self) -> bool:
        return self.path is not None and not self.refused

    def as_dict(self) -> dict[str, Any]:
        return {
            "import": self.path.name if self.path else None,
            "existing": self.existing,
            "counts": self.counts,
            "refused": [vars(refusal) for refusal in self.refused],
            "notes": self.notes,
        }


def intake(
    src: Path,
    *,
    keys: Keys,
    site: str,
    out: Path = Path("data/imports"),
    identified: Path,
    origin: str,
    partial: bool = False,
    only: frozenset[Path] | None = None,
) -> Summary:
    """Import the tables and masks of the folder or file `src` below `out`, originals kept below `identified`.

    A table with a refused row, or a mask file that cannot be read, is not imported at all, and the rest of `src` is;
    with `partial` the good rows of such a table are taken. Importing the same again changes nothing. `only` these files
    are looked at, of all that lie in `src`.
    """
    if not src.exists():
        raise WrongUse("the folder or file to annotate from is not there")
    with _locked(identified):
        incoming = identified / "annotations" / ".incoming"
        shutil.rmtree(incoming, ignore_errors=True)
        incoming.mkdir(mode=0o700)
        try:
            summary = Summary()
            files = _copy(src, incoming, summary, only)
            tables, masks = _read(files, keys, site, partial, summary)
            _leave(files, summary)
            if any(tables.values()) or masks:
                _write(tables, masks, incoming, out, origin, summary)
        finally:
            shutil.rmtree(incoming, ignore_errors=True)
    return summary


@contextmanager
def _locked(identified: Path) -> Iterator[None]:
    """One import at a time: imports are numbered, and the later one corrects the earlier."""
    folder = identified / "annotations"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


# ---- from SRC into the identified zone


def _copy(
    src: Path, incoming: Path, summary: Summary, only: frozenset[Path] | None = None
) -> dict[str, tuple[Path, str]]:
    """Copy what may be an annotation; {relative path: (the copy, how messages name it)}. What follows reads copies."""
    root = src if src.is_dir() else src.parent
    paths = sorted(src.rglob("*")) if src.is_dir() else [src]
    paths = [path for path in paths if path.is_file() and not path.is_symlink() and (only is None or path in only)]
    taken: dict[str, tuple[Path, str]] = {}
    left = {"DICOM images": 0, "other files": 0}
    for n, path in enumerate(paths, 1):
        name = path.name.lower()
        stem = _table(path)
        kind = None if stem or name.endswith((*nifti.SUFFIXES, *nrrd.SUFFIXES, ".json", *nrrd.DATA)) else _dicom(path)
        if kind == "image" or kind == "other":
            left["DICOM images" if kind == "image" else "other files"] += 1
            summary.left[path.relative_to(root).as_posix()] = [
                f"no_annotation: is {'an image' if kind == 'image' else 'of no known kind'}"
            ]
            if name.endswith(".csv"):
                reason = f"is not named as one of {', '.join(f'{table}.csv' for table in clinical.TABLES)}"
                summary.refused.append(Refusal(f"file {n}", None, "", reason))
            continue
        relative = path.relative_to(root).as_posix()
        if path.stat().st_size > MAX_BYTES:
            reason = f"too_large: {path.stat().st_size / 2**30:.1f} GiB; a file may have {MAX_BYTES / 2**30:.0f}"
            summary.refused.append(Refusal(f"file {n}", None, "", reason))
            summary.left[relative] = [reason]
            continue
        copy = incoming / relative
        copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
        copy.chmod(0o600)
        first = f"{stem}.csv" if stem else f"file {n}"
        known = sum(where.startswith(first) for _, where in taken.values()) if stem else 0
        taken[relative] = copy, f"{first} ({known + 1})" if known else first
    summary.notes += [f"{count} {what} were left out" for what, count in left.items() if count]
    return taken


def _leave(files: dict[str, tuple[Path, str]], summary: Summary) -> None:
    """Note why nothing of a file was taken; data that a detached header names goes where its header goes."""
    for relative, (_, where) in files.items():
        reasons = [str(refusal) for refusal in summary.refused if refusal.where == where]
        if reasons:
            summary.left[relative] = reasons
    if summary.left:
        raw = [relative for relative in files if relative.lower().endswith(nrrd.DATA)]
        summary.left |= {relative: ["not_alone: is the data of a header"] for relative in raw}


def _table(path: Path) -> str | None:
    stem = path.stem.lower().strip()
    return stem if path.suffix.lower() == ".csv" and stem in clinical.TABLES else None


def _dicom(path: Path) -> str:
    """mask, image or other."""
    sop_class = masks_in.sop_class(path)
    return "other" if sop_class is None else "mask" if sop_class in KNOWN else "image"


# ---- from the copies to keyed rows

Tables = dict[str, list[dict[str, Any]]]
Masks = list[tuple[dict[str, Any], hips.HipFile]]


def _read(
    files: dict[str, tuple[Path, str]], keys: Keys, site: str, partial: bool, summary: Summary
) -> tuple[Tables, Masks]:
    tables: Tables = {name: [] for name in imports.COLUMNS}
    found: list[Drawn] = []
    listed: set[Path] = set()
    for copy, where in files.values():
        name = _table(copy)
        if name is None:
            continue
        rows, refused, notes = clinical.read(name, copy.read_bytes(), where)
        summary.notes += notes
        if name == "masks":
            masks = masks_in.read_listed(rows, copy.parent, where)
            named = {masks_in.named(row, copy.parent).resolve() for _, row in rows}
            listed |= named
            refused = refused + masks.refused
            if refused and not partial:
                summary.left |= {
                    n: [f"{where}: was refused"] for n, (one, _) in files.items() if one.resolve() in named
                }
            if partial or not refused:
                found += masks.drawn
        elif partial or not refused:
            tables[name] += [one for number, row in rows for one in keyed.row_of(name, number, row, keys, site)]
        if refused:
            summary.refused += refused
            taken = "its good rows were taken" if partial else "nothing of it was imported"
            summary.notes.append(f"{where}: {len(refused)} refusals; {taken}")
    for number, (relative, (copy, where)) in enumerate(files.items()):
        if _table(copy) or copy.resolve() in listed or copy.name.lower().endswith(nrrd.DATA):
            continue
        if copy.name.lower().endswith((*nifti.SUFFIXES, *nrrd.SUFFIXES)):
            summary.refused.append(Refusal(where, None, "", "is not named in a masks.csv that was read"))
            continue
        read = masks_in.read_label_studio if copy.suffix.lower() == ".json" else masks_in.read_dicom
        given = read(copy, where)
        if given is None:
            kind = "Label Studio export" if copy.suffix.lower() == ".json" else "TID 1500 measurement report"
            summary.notes.append(f"{where}: is no {kind} and was left out")
            summary.left[relative] = [f"no_annotation: is no {kind}"]
            continue
        found += [dataclasses.replace(mask, document=number) for mask in given.drawn]
        for group, row in given.labels:
            tables["labels"] += [one | {"kind": "tid1500"} for one in keyed.row_of("labels", group, row, keys, site)]
        summary.refused += given.refused
        summary.notes += given.notes
    return tables, [keyed.mask_of(mask, keys, site) for mask in found]


# ---- from keyed rows to the import


def _write(tables: Tables, masks: Masks, incoming: Path, out: Path, origin: str, summary: Summary) -> None:
    files = {row["file"]: file for row, file in masks}
    unique = {json.dumps(row, sort_keys=True): row for row, _ in masks}
    tables["masks"] = [unique[text] for text in sorted(unique)]
    for name, rows in tables.items():
        rows.sort(key=lambda row: json.dumps(row, sort_keys=True))
        summary.counts[name] = len(rows)
    digest = combine(str(imports.VERSION), origin, json.dumps(tables, sort_keys=True))
    out.mkdir(parents=True, exist_ok=True)
    known = {path.name.split("-")[1]: path for path in imports.listed(out)}
    if digest[:16] in known:
        summary.path, summary.existing = known[digest[:16]], True
        if summary.path != max(known.values()):
            summary.notes.append("this was imported before; what later imports corrected stays corrected")
        return
    kept = [path for path in incoming.parent.iterdir() if path.name.isdigit()]
    number = 1 + max(
        [int(path.name) for path in kept] + [int(path.name.split("-")[0]) for path in known.values()] + [0]
    )
    target = out / f"{number:04d}-{digest[:16]}"
    for left in out.glob(".*.part"):  # of a run that was killed
        shutil.rmtree(left)
    building = out / f".{target.name}.part"
    building.mkdir()
    for name, rows in tables.items():
        imports.write_table(building / f"{name}.parquet", name, rows)
    for name, file in files.items():
        hips.write(building / name, file)
    about = {"version": imports.VERSION, "number": number, "digest": digest, "origin": origin, "counts": summary.counts}
    write_json(building / "import.json", about)
    for folder in (building / "masks", building):
        if folder.exists():
            os.utime(folder, (FIXED_TIME, FIXED_TIME))
    os.rename(incoming, incoming.parent / f"{number:04d}")  # the originals first: no import without them
    os.rename(building, target)
    os.utime(out, (FIXED_TIME, FIXED_TIME))
    summary.path = target
