"""How a room that works item by item runs: skip what is done, adopt what the arrival loop did, process the rest.

A room gives `pending(params) -> list[Item]` and `process(item, params, out) -> list[dict]`, which writes its files
under `out` and returns the rows of its table. Every row gets the columns `item`, `input_digest`, `params_digest` and
`code_digest`; an item whose four agree with the previous manifest, and whose files are there, is not done again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from tasks.domain.params import Section
from tasks.store.digests import code_digest
from tasks.store.files import read_json, write_json
from tasks.store.tables import records

Mapper = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]
"""Like the built-in `map`: local processes by default, a Dask cluster when the flow hands one in."""

Rows = list[dict[str, Any]]
Process = Callable[["Item", Any, Path], Rows]


@dataclass(frozen=True)
class Item:
    """One unit of work. `key` names it, `digest` is that of all its inputs, `payload` is what `process` needs
    (picklable). `folder` is where its files go below the stage's out; `columns` are set on each of its rows."""

    key: str
    digest: str
    payload: dict[str, Any] = field(default_factory=dict)
    folder: str = ""
    columns: dict[str, Any] = field(default_factory=dict)


def stamp(room: str, item: Item, params: Section) -> dict[str, str]:
    return {
        "item": item.key,
        "input_digest": item.digest,
        "params_digest": params.digest(),
        "code_digest": code_digest(room),
    }


def run(
    room: str,
    items: list[Item],
    process: Process,
    params: Section,
    *,
    previous: pd.DataFrame,
    out: Path,
    mapper: Mapper,
    frozen: Callable[[Item], bool] = lambda item: False,
) -> Rows:
    """All rows of `items`, in their order. `previous` is the manifest that the last run wrote (with stamps).

    `frozen(item)` says that an item's original is gone: its previous rows stay whatever params and code say.
    Each row names the files it owns in the column `owns` ('+'-joined paths below `out`).
    """
    known = dict(iter(previous.groupby("item"))) if "item" in previous else {}
    done: dict[str, Rows] = {}
    todo: list[Item] = []
    for item in items:
        mark = stamp(room, item, params)
        rows = known.get(item.key)
        if rows is not None and (frozen(item) or _same(rows, mark)) and _files_there(rows, out):
            done[item.key] = [row | item.columns for row in records(rows)]
        elif (adopted := adopt(room, item, mark, out)) is not None:
            done[item.key] = adopted
        else:
            todo.append(item)
    work = [(process, item, params, out / item.folder, stamp(room, item, params)) for item in todo]
    for item, rows in zip(todo, mapper(_call, work), strict=True):
        done[item.key] = [_in_folder(row, item) for row in rows]
    return [row for item in items for row in done[item.key]]


def arrived(room: str, key: str) -> Path:
    """Where the arrival loop keeps what it made of one item: `rows.json` and `files/`."""
    from tasks.domain.settings import Settings  # here, so that a GPU worker needs no pydantic-settings

    return Settings().home / "arrived" / room / key


def arrive(room: str, item: Item, process: Process, params: Section) -> tuple[Rows, Path]:
    """Process one item for the arrival loop; returns its rows and the folder of its files. Idempotent."""
    place = arrived(room, item.key)
    mark = stamp(room, item, params)
    if (place / "rows.json").exists():
        kept = read_json(place / "rows.json")
        if kept["stamp"] == mark:
            return kept["rows"], place / "files"
    shutil.rmtree(place, ignore_errors=True)
    (place / "files").mkdir(parents=True)
    rows = _call((process, item, params, place / "files", mark))
    write_json(place / "rows.json", {"stamp": mark, "rows": rows})
    return rows, place / "files"


def adopt(room: str, item: Item, mark: dict[str, str], out: Path) -> Rows | None:
    """Move what the arrival loop made of `item` into the stage's out, if it is of the same input, params and code."""
    place = arrived(room, item.key)
    if not (place / "rows.json").exists():
        return None
    kept = read_json(place / "rows.json")
    if kept["stamp"] != mark:
        return None
    for source in sorted((place / "files").rglob("*")):
        if source.is_file():
            target = out / item.folder / source.relative_to(place / "files")
            target.parent.mkdir(parents=True, exist_ok=True)
            # A link, not a move: scoring and another checkout of the same home still find it, and DVC replaces
            # files in its workspace rather than writing into them.
            partial = target.with_name(f".{target.name}.part")
            partial.unlink(missing_ok=True)
            try:
                os.link(source, partial)
            except OSError:
                shutil.copy2(source, partial)
            os.replace(partial, target)
    return [_in_folder(row, item) for row in kept["rows"]]


def sweep(out: Path, rows: Rows) -> None:
    """Remove files below `out` that no row owns: superseded, erased, or left by an interrupted run."""
    owned = {path for row in rows for path in str(row.get("owns") or "").split("+") if path}
    if out.exists():
        for path in sorted(out.rglob("*"), reverse=True):
            if path.is_file() and path.relative_to(out).as_posix() not in owned:
                path.unlink()
            elif path.is_dir() and not any(path.iterdir()):
                path.rmdir()


def _call(work: tuple[Process, Item, Section, Path, dict[str, str]]) -> Rows:
    """The stamp comes with the work: a new process would read all of the room's code to make it."""
    process, item, params, out, mark = work
    out.mkdir(parents=True, exist_ok=True)
    return [row | item.columns | mark for row in process(item, params, out)]


def _in_folder(row: dict[str, Any], item: Item) -> dict[str, Any]:
    owns = [f"{item.folder}/{path}" if item.folder else path for path in str(row.get("owns") or "").split("+") if path]
    return row | item.columns | {"owns": "+".join(owns)}


def _same(rows: pd.DataFrame, mark: dict[str, str]) -> bool:
    return all((rows[column] == value).all() for column, value in mark.items())


def _files_there(rows: pd.DataFrame, out: Path) -> bool:
    owned = [path for owns in rows["owns"].fillna("") for path in str(owns).split("+") if path]
    return all((out / path).exists() for path in owned)
