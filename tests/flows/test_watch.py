"""When a dataset run is due: counted from the ledger, debounced by the policy."""

from __future__ import annotations

import json
import shutil
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from arrivals import arrive

import flows.policy as policy_module
from flows import known
from flows.policy import LEARNT, Params, due, new_labelled_hips
from tasks.domain.params import load
from tasks.keys import Keys
from tasks.ledger import Ledger
from tasks.store import tables

NOW = datetime(2026, 11, 23, 14, 0)
POLICY = Params(
    min_new_hips=10, on_drift=True, budget_hours=None, cool_down_hours=12, quiet_hours=None, silence_days=14
)


def ledger(ended_hours_ago: float | None = None, status: str = "finished") -> SimpleNamespace:
    ended = None if ended_hours_ago is None else (NOW - timedelta(hours=ended_hours_ago)).timestamp()
    last = None if ended is None else {"ended": ended, "status": status}
    return SimpleNamespace(new_hips_since=lambda: 0, last_run=lambda: last)


@pytest.mark.parametrize(
    ("new", "ago", "status", "policy", "expected"),
    [
        (9, None, "finished", POLICY, False),
        (10, None, "finished", POLICY, True),
        (10, 3, "finished", POLICY, False),
        (10, 13, "finished", POLICY, True),
        (10, 3, "failed", POLICY, True),
        (10, -9000, "finished", POLICY, True),  # the clock was set back by a year since
        (10, None, "finished", POLICY.model_copy(update={"quiet_hours": (8, 18)}), False),
        (10, None, "finished", POLICY.model_copy(update={"quiet_hours": (22, 6)}), True),
        (10, None, "finished", POLICY.model_copy(update={"quiet_hours": (13, 2)}), False),
    ],
)
def test_a_run_is_due(
    new: int, ago: float | None, status: str, policy: Params, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy_module, "new_labelled_hips", lambda _: new)
    start, why = due(ledger(ago, status), policy, NOW)  # type: ignore[arg-type]
    assert start is expected, why
    assert why


@pytest.fixture
def hospital(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two studies of one patient that a run has finished with, both hips usable; the ledger is real and empty."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OSTEOFLOW_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("OSTEOFLOW_LEDGER_URL", raising=False)
    rows = [
        {"hip_visit": f"{study}-{side}", "subject": "OFA", "study": study, "side": side, "status": status, "date": date,
         "file": "", "digest": "", "days": 0.0}
        for study, date, status in (("2.25.1", "20200101", "ok"), ("2.25.2", "20210101", "ok"))
        for side in "LR"
    ]  # fmt: skip
    (tmp_path / "data").mkdir()
    frame = pd.DataFrame(rows).reindex(columns=sorted({*rows[0], *tables.COLUMNS["hips"]}))
    tables.write("hips", tmp_path / "data" / "hips.parquet", frame, sort_by=["hip_visit"])
    return tmp_path


def labels(place: Path, name: str, *rows: tuple[str | None, str | None, str]) -> None:
    """An import with a label for each (study, date, side)."""
    folder = place / "data" / "imports" / name
    folder.mkdir(parents=True)
    frame = pd.DataFrame(rows, columns=["study", "date", "side"]).astype(object)
    frame.assign(subject="OFA", reader="RD", name="arco", value="2").to_parquet(folder / "labels.parquet")


def test_however_many_come_on_a_monday_two_runs_take_them_all(hospital: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """200 labelled studies within two hours, the policy of params.yaml asked all the while and then for a day."""
    shutil.copy(Path(__file__).parents[2] / "params.yaml", "params.yaml")
    real, keys, began, params = Ledger.open(), Keys.open(), datetime.now(), load("retrain", Params)
    seen: list[dict[str, str]] = []
    monkeypatch.setattr(known, "hips", lambda: pd.DataFrame(seen))
    studies = [f"1.2.{number}" for number in range(200)]
    labels(hospital, "0001-a", *((keys.uid(study), None, "L") for study in studies))
    runs = 0
    for ten_minutes in range(26 * 6):
        for study in [studies.pop() for _ in range(min(17, len(studies)))]:
            arrive(real, study, files=1)
            seen.append({"study": keys.uid(study), "side": "L", "status": "ok", "subject": "OFA", "date": "20200101"})
        if ten_minutes > 14 and ten_minutes % 12:
            continue
        if not due(real, params, began + timedelta(minutes=10 * ten_minutes))[0]:
            continue
        run, runs = real.start_run(), runs + 1
        real.finish_batch(str(real.claim_batch("test")))
        real.remember(LEARNT, json.dumps(["0001-a"]))
        real.end_run(run, "finished", "a test")
    assert runs == 2
    assert real.counts()["done"] == 200


def test_with_nothing_new_no_table_is_read(hospital: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The watch is a process of its own every ten minutes: what it need not import it does not."""
    monkeypatch.setattr(known, "hips", lambda: pytest.fail("the hips were read"))
    real = Ledger.open()
    arrive(real, "1.2.1", files=1)
    assert new_labelled_hips(real) == 0  # nothing is labelled
    real.finish_batch(str(real.claim_batch("test")))
    labels(hospital, "0001-a", ("2.25.1", None, "L"))
    real.remember(LEARNT, json.dumps(["0001-a"]))
    assert new_labelled_hips(real) == 0  # a run has finished with all of it


def test_what_counts_as_new_is_a_hip_with_a_label(hospital: Path) -> None:
    shutil.copy(Path(__file__).parents[2] / "params.yaml", "params.yaml")
    real = Ledger.open()
    assert new_labelled_hips(real) == 0  # images alone teach nothing
    labels(hospital, "0001-a", ("2.25.1", None, "L"), ("2.25.1", None, "L"), ("2.25.9", None, "R"))
    assert new_labelled_hips(real) == 1  # two readers of one hip; a label whose images have not come
    labels(hospital, "0002-b", (None, "20210110", "R"), (None, "20220101", "R"))
    assert new_labelled_hips(real) == 2  # by its day, where no study is named
    real.remember(LEARNT, json.dumps(["0001-a", "0002-b"]))
    assert new_labelled_hips(real) == 0
    labels(hospital, "0003-c", ("2.25.1", None, "L"))
    assert new_labelled_hips(real) == 1  # a correction of what was learnt from
    text = Path("params.yaml").read_text()
    assert "\n  window_days: 21 " in text
    Path("params.yaml").write_text(text.replace("\n  window_days: 21 ", "\n  window_days: 0 "))
    real.remember(LEARNT, "[]")
    assert new_labelled_hips(real) == 1  # no day belongs to a visit of another
