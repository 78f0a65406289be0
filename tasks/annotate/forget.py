"""Take one person out of the kept originals of annotations: rows of tables, tasks of exports, files that are his."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Collection
from pathlib import Path

import pydicom

from tasks.annotate import cells, masks_in
from tasks.store.files import write_text
from tasks.store.parsed import UNREADABLE

IDS = ("patient_id", "same_as")


def forget(folder: Path, site: str, ids: Collection[str], studies: Collection[str]) -> int:
    """Remove below `folder` what names one of the patient `ids` (of `site`, where a row says which) or of the original
    `studies`; how many rows, tasks and files went. A table that is rewritten is UTF-8 afterwards."""
    ids, studies = set(ids) - {""}, set(studies) - {""}
    gone = 0
    for path in sorted(folder.rglob("*")) if folder.exists() else []:
        if not path.is_file():
            continue  # also a mask that went with its row
        kind = path.suffix.lower()
        if kind == ".csv":
            gone += _rows(path, site, ids, studies)
        elif kind == ".json":
            gone += _tasks(path, studies)
        elif _is_of(path, ids, studies):
            path.unlink()
            gone += 1
    return gone


def _rows(path: Path, site: str, ids: set[str], studies: set[str]) -> int:
    lines = list(io.StringIO(cells.decode(path.read_bytes()), newline=""))  # as csv counts them: not at \v, \f, U+2028
    first = 1 if lines and lines[0].strip().lower().startswith("sep=") else 0
    reader = csv.reader(lines[first:], delimiter=cells.delimiter_of(lines))
    columns: list[str] = []
    kept, gone, start = lines[:first], 0, first
    try:
        for row in reader:
            whole, start = lines[start : first + reader.line_num], first + reader.line_num
            if not columns and any(cell.strip() for cell in row):
                columns = [re.sub(r"[\s\-]+", "_", name.strip().lower()) for name in row]
                kept += whole
                continue
            named = {name: cells.plain(cell) for name, cell in zip(columns, row, strict=False)}
            elsewhere = named.get("site") and named["site"] != site and named.get("same_site") != site
            his = any(named.get(name) in ids for name in IDS) and not elsewhere
            if his or (named.get("study_instance_uid") or "-") in studies:
                gone += 1 + _drawn(path.parent, named.get("file", ""))
            else:
                kept += whole
    except csv.Error:
        kept += lines[start:]
    if gone:
        write_text(path, "".join(kept))
    return gone


def _drawn(folder: Path, name: str) -> int:
    """The mask that a row of masks.csv named."""
    mask = folder / name.replace("\\", "/")
    if not name or not mask.is_file() or not mask.resolve().is_relative_to(folder.resolve()):
        return 0
    mask.unlink()
    return 1


def _tasks(path: Path, studies: set[str]) -> int:
    try:
        tasks = json.loads(path.read_bytes())
    except (UnicodeDecodeError, ValueError, RecursionError):
        return 0
    if not isinstance(tasks, list):
        return 0
    # Not 1.2.31 nor 5.1.2.3 where 1.2.3 is looked for; 1.2.3.4 is: series and images are often numbered below a study.
    uids = [re.compile(rf"(?<!\d)(?<!\d\.){re.escape(study)}(?!\d)") for study in sorted(studies)]
    kept = [task for task in tasks if not any(uid.search(json.dumps(task)) for uid in uids)]
    if len(kept) < len(tasks):
        write_text(path, json.dumps(kept))
    return len(tasks) - len(kept)


def _is_of(path: Path, ids: set[str], studies: set[str]) -> bool:
    tags = ["PatientID", "StudyInstanceUID"]
    try:
        force = masks_in.sop_class(path) is not None  # without a preamble it was imported as well
        found = pydicom.dcmread(path, force=force, specific_tags=tags, stop_before_pixels=True)
    except (*UNREADABLE, OSError):
        return False
    return str(found.get("PatientID", "")).strip() in ids or str(found.get("StudyInstanceUID", "")) in studies
