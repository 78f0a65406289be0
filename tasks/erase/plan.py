"""Everything that holds the subject, found by looking at every file, not by trusting a list."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.domain.errors import WrongUse

WORKSPACE = ("data", "models", "reports")
NOT_IN_HOME = ("identified", "demo", "prefect", "mlruns", "mlartifacts", "dvc")
"""Of OSTEOFLOW_HOME these are not looked into: the identified zone and what its own tool erases."""
WHOLE = (".json", ".html", ".svg", ".md", ".txt", ".yaml", ".yml")
"""Text that is removed as a whole when it names the subject: the next run writes it again without him."""
LINES = (".jsonl", ".ndjson", ".csv", ".log")
"""Text of independent lines: those that name him are taken out."""
REFERS = ("file", "archive", "owns")
"""Columns of a table that name files, relative to the folder beside the table or to its own."""


@dataclass(frozen=True)
class Taint:
    """A registered model and what the subject was to it."""

    name: str
    version: int
    reason: str


@dataclass(frozen=True)
class Plan:
    """What an erasure takes out. Paths are as found (below the workspace or OSTEOFLOW_HOME)."""

    subject: str
    studies: tuple[str, ...] = ()
    series: tuple[str, ...] = ()
    hip_visits: tuple[str, ...] = ()
    batches: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    """Removed as a whole."""
    rows: Mapping[str, int] = field(default_factory=dict)
    """Rows taken out of each table."""
    lines: Mapping[str, int] = field(default_factory=dict)
    """Lines taken out of each text file."""
    models: tuple[Taint, ...] = ()

    @property
    def needles(self) -> tuple[str, ...]:
        return (self.subject, *self.studies, *self.series)

    @property
    def empty(self) -> bool:
        return not (self.files or self.rows or self.lines)

    def as_dict(self) -> dict[str, Any]:
        """For `osteoflow erase --dry-run --json`."""
        return asdict(self) | {"rows": dict(self.rows), "lines": dict(self.lines)}


def plan(subject: str, facts: Mapping[str, Any], root: Path = Path(), home: Path | None = None) -> Plan:
    """What holds `subject` in the workspace `root` and below `home` (OSTEOFLOW_HOME).

    `facts`: "snapshots" [{"commit", "tables": {name: DataFrame}}] and "models" [{"name", "version", "commit"}], as
    `tasks.trace` takes them. A subject that is nowhere is WrongUse.
    """
    if not re.fullmatch(r"[A-Za-z0-9_.-]{4,64}", subject):
        raise WrongUse("the subject is given as its pseudonym, as in data/studies.parquet")
    tables = [frame for one in facts.get("snapshots", []) for frame in (one.get("tables") or {}).values()]
    tables += [pq.read_table(path).to_pandas() for path in _parquets(root)]
    studies = _values(tables, subject, "study")
    series = _values(tables, subject, "series", studies)
    found = Plan(
        subject,
        studies,
        series,
        hip_visits=_values(tables, subject, "hip_visit"),
        batches=_values(tables, subject, "batch"),
        models=tuple(tainted(subject, facts)),
    )
    files, rows, lines = search(found.needles, root, home)
    if not files and not rows and not lines and not studies and not found.models:
        raise WrongUse(f"nothing here holds the subject {subject}; osteoflow trace subject:ID shows who is known")
    return Plan(**{**found.__dict__, "files": files, "rows": rows, "lines": lines})


def tainted(subject: str, facts: Mapping[str, Any]) -> Iterator[Taint]:
    """Models whose training or test data held the subject; one whose tables are not known counts as tainted."""
    tables = {one.get("commit"): one.get("tables") or {} for one in facts.get("snapshots", [])}
    for model in facts.get("models", []):
        known = tables.get(model.get("commit"))
        made = str(model["name"]), int(model["version"])
        if not known:
            yield Taint(*made, "unknown: the tables it was made of cannot be read any more")
            continue
        folds = {
            str(fold)
            for name in ("sequences", "split")
            if name in known
            for fold in known[name].loc[known[name]["subject"] == subject, "fold"].dropna()
        }
        held = [name for name, frame in known.items() if "subject" in frame and (frame["subject"] == subject).any()]
        if folds - {"test"}:
            yield Taint(*made, f"trained on the subject (fold {', '.join(sorted(folds - {'test'}))})")
        elif folds:
            yield Taint(*made, "tested on the subject")
        elif held:
            yield Taint(*made, f"the subject was in {', '.join(sorted(held))} when it was made")


def search(
    needles: Iterable[str], root: Path, home: Path | None
) -> tuple[tuple[str, ...], dict[str, int], dict[str, int]]:
    """(files to remove, rows by table, lines by text file) that name one of `needles`."""
    pattern = matcher(needles)
    files: set[str] = set()
    rows: dict[str, int] = {}
    lines: dict[str, int] = {}
    for base, path in _places(root, home):
        item = _item(base, path)
        if pattern.search(path.relative_to(base).as_posix()):
            files |= {str(one) for one in (item.rglob("*") if item else [path]) if one.is_file()}
        elif path.suffix == ".parquet":
            table = pq.read_table(path)
            mask = hits(table, pattern)
            if mask.any():
                rows[str(path)] = int(mask.sum())
                files |= {str(one) for one in _referred(path, table, mask)}
        elif path.suffix in LINES:
            count = sum(1 for line in _text(path).splitlines() if pattern.search(line))
            if count:
                lines[str(path)] = count
        elif path.suffix in WHOLE and pattern.search(_text(path)):
            files |= {str(one) for one in (item.rglob("*") if item else [path]) if one.is_file()}
    return (
        tuple(sorted(files)),
        {path: n for path, n in sorted(rows.items()) if path not in files},
        {path: n for path, n in sorted(lines.items()) if path not in files},
    )


def matcher(needles: Iterable[str]) -> re.Pattern[str]:
    """Finds any needle as a whole word: a UID is not found inside a longer one."""
    each = "|".join(re.escape(needle) for needle in sorted(set(needles), key=len, reverse=True) if needle)
    return re.compile(rf"(?<![A-Za-z0-9.])(?:{each})(?![A-Za-z0-9]|\.[0-9])")


def hits(table: pa.Table, pattern: re.Pattern[str]) -> Any:
    """Boolean numpy array: rows with a text cell that names a needle. Each distinct text is looked at once."""
    mask = pd.Series(False, index=range(table.num_rows))
    for name, kind in zip(table.column_names, table.schema.types, strict=True):
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            column = table.column(name)
            naming = [text for text in pc.unique(column).to_pylist() if text and pattern.search(text)]
            if naming:
                mask |= column.to_pandas().isin(naming).to_numpy()
    return mask.to_numpy()


def _places(root: Path, home: Path | None) -> Iterator[tuple[Path, Path]]:
    """(base, file) of every file that is looked at."""
    for folder in WORKSPACE:
        yield from ((root, path) for path in sorted((root / folder).rglob("*")) if path.is_file())
    if home is None or not home.is_dir():
        return
    for entry in sorted(home.iterdir()):
        if entry.name not in NOT_IN_HOME:
            inside = sorted(entry.rglob("*")) if entry.is_dir() else [entry]
            for path in inside:
                if path.is_file():
                    yield home, path


def _item(base: Path, path: Path) -> Path | None:
    """The folder arrived/<room>/<key> that a file of the arrival loop belongs to: it is removed as one."""
    parts = path.relative_to(base).parts
    return base.joinpath(*parts[:3]) if parts[0] == "arrived" and len(parts) > 3 else None


def _referred(path: Path, table: pa.Table, mask: Any) -> Iterator[Path]:
    """Files that the hit rows name, and that no other row does."""
    frame = table.select([name for name in REFERS if name in table.column_names]).to_pandas()
    folders = [path.parent, path.with_suffix("")]
    for column in frame:
        named = {one for cell in frame.loc[mask, column].dropna() for one in str(cell).split("+")}
        shared = {one for cell in frame.loc[~mask, column].dropna() for one in str(cell).split("+")}
        for name in sorted(named - shared - {""}):
            for folder in folders:
                candidate = folder / name
                if ".." not in Path(name).parts and candidate.is_file():
                    yield candidate


def _values(tables: list[pd.DataFrame], subject: str, column: str, studies: Iterable[str] = ()) -> tuple[str, ...]:
    found: set[str] = set()
    wanted = set(studies)
    for frame in tables:
        if column not in frame:
            continue
        if "subject" in frame:
            found |= set(frame.loc[frame["subject"] == subject, column].dropna().astype(str))
        elif wanted and "study" in frame:
            found |= set(frame.loc[frame["study"].isin(wanted), column].dropna().astype(str))
    return tuple(sorted(found - {""}))


def _parquets(root: Path) -> list[Path]:
    return sorted(path for folder in WORKSPACE for path in (root / folder).rglob("*.parquet"))


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")
