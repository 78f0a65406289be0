from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bodies import Hip
from scans import classic

from tasks.domain.volume import Volume
from tasks.standardize import finish, pending, process, run, visit_item
from tasks.standardize.params import Params
from tasks.store import archives, items, tables
from tasks.store.digests import sha256_file

Person = tuple[dict[str, Volume], dict[str, Hip]]


def studies(table: list[dict]) -> None:
    rows = [
        {"version": 1.0, "batch": "b1", "status": "released", "origin": "phantom", "files": 1.0, **row}
        for row in table
    ]  # fmt: skip
    tables.write("studies", Path("data/studies.parquet"), pd.DataFrame(rows))


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OSTEOFLOW_HOME", str(tmp_path / ".osteoflow"))
    return tmp_path


def test_studies_within_the_window_are_one_visit(workspace: Path, params: Params) -> None:
    dates = {"a": "20200101", "b": "2020-01-15", "c": "20200301", "d": "20200102", "e": "20200103"}
    studies([
        {"subject": "OFX" if name != "d" else "OFY", "study": f"2.25.{name}", "date": date, "digest": name * 8,
         "archive": f"b1/{name}.zip", "status": "superseded" if name == "e" else "released"}
        for name, date in dates.items()
    ])  # fmt: skip
    found = pending(params)
    assert [(item.key, len(item.payload["archives"])) for item in found] == [
        ("2.25.a", 2), ("2.25.c", 1), ("2.25.d", 1),
    ]  # fmt: skip
    assert len({item.digest for item in found}) == 3
    assert found[0].columns == {"date": "20200101", "origin": "phantom"} and found[0].folder == "b1"


def test_a_visit_is_done_once_and_adopted_from_arrival(workspace: Path, params: Params, person: Person) -> None:
    root = Path("data/studies")
    for name in ("a", "b"):
        archives.write(root / "b1" / f"{name}-v1.zip", classic(person[0]["t1"], "t1", f"2.25.{name}"))
    rows = [
        {"subject": "OFX", "study": f"2.25.{name}", "date": date, "archive": f"b1/{name}-v1.zip",
         "digest": sha256_file(root / "b1" / f"{name}-v1.zip")}
        for name, date in (("a", "20200101"), ("b", "20210101"))
    ]  # fmt: skip
    studies(rows)
    # The arrival loop knows the study before it has a batch, from an archive that lies elsewhere.
    elsewhere = workspace / "inbox" / "b-v1.zip"
    elsewhere.parent.mkdir()
    elsewhere.write_bytes((root / "b1" / "b-v1.zip").read_bytes())
    early = visit_item([rows[1] | {"archive": elsewhere.as_posix(), "origin": "phantom"}])
    made, files = items.arrive("standardize", early, process, params)
    assert (files / made[0]["owns"]).exists()
    calls: list[str] = []

    def mapper(function, work):
        work = list(work)
        calls.extend(function.__name__ for _ in work)
        return map(function, work)

    run(params, mapper)
    assert calls == ["_call", "row_of", "row_of"]  # one visit, and the two hips of the second laid onto the first's
    hips = tables.read("hips", Path("data/hips.parquet"))
    assert list(hips["days"]) == [0.0, 0.0, 366.0, 366.0]
    assert list(hips["status"]) == ["ok"] * 4
    assert all((Path("data/hips") / file).exists() for file in hips["file"])
    assert set(hips["file"].str.split("/").str[0]) == {"b1"}
    series = tables.read("series", Path("data/series.parquet"))
    assert list(series["role"]) == ["t1", "t1"] and list(series["slices"]) == [12.0, 12.0]
    assert "center_x_mm" not in series and "affine" not in hips
    assert list(hips["align_status"]) == ["first", "first", "ok", "ok"]
    assert list(hips["first_visit"]) == ["2.25.a-L", "2.25.a-R"] * 2
    assert hips["align_residual_mm"].max() < 0.1 and hips["align_mm"].max() < 0.1  # the same images on both days
    assert np.allclose(np.stack(hips["to_first"]).reshape(-1, 4, 4), np.eye(4), atol=0.01)
    before = {path: path.read_bytes() for path in Path("data").rglob("*") if path.is_file()}
    run(params, mapper)
    assert len(calls) == 3
    assert before == {path: path.read_bytes() for path in Path("data").rglob("*") if path.is_file()}
    studies(rows[:1])
    run(params, mapper)
    assert len(list(Path("data/hips").rglob("*.safetensors"))) == 2


def test_nothing_released_gives_empty_tables(workspace: Path, params: Params) -> None:
    studies([{"subject": "OFX", "study": "2.25.a", "date": "20200101", "archive": "x", "status": "superseded"}])
    run(params, map)
    assert len(tables.read("hips", Path("data/hips.parquet"))) == 0
    assert len(tables.read("series", Path("data/series.parquet"))) == 0
    finish([], params)
