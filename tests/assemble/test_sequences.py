"""The table of sequences: as of each visit, in time order, for any cohort."""

from __future__ import annotations

from pathlib import Path

import feature_cohort
import numpy as np
import pandas as pd
import pytest

from tasks.assemble import Params, feature_names, rows_for
from tasks.assemble.__main__ import main
from tasks.domain.params import load
from tasks.store import tables
from tasks.store.files import read_json

PARAMS = load("assemble", Params, feature_cohort.PARAMS)
READ = ("hips", "features", "measures", "annotations", "split")
FUTURE = {"label", "event", "event_in_days", "followed_days"}


@pytest.fixture(scope="module")
def cohort() -> dict[str, pd.DataFrame]:
    return feature_cohort.make(30, seed=3)


def rows(cohort: dict[str, pd.DataFrame]) -> pd.DataFrame:
    return rows_for(**{name: cohort[name] for name in READ}, params=PARAMS)


def test_rows_are_in_time_order_with_true_gaps(cohort: dict[str, pd.DataFrame]) -> None:
    frame = rows(cohort)
    assert len(frame) == len(cohort["hips"])
    for _, visits in frame.groupby("hip", sort=False):
        assert visits["days"].is_monotonic_increasing
        assert visits["delta_days"].tolist() == pytest.approx(visits["days"].diff().fillna(0.0).tolist())
    assert set(frame["fold"]) == {"test", "0", "1", "2", "3", "4"}
    assert set(frame["label"].dropna()) == {0.0, 1.0}
    assert {len(v) for v in frame["features"]} == {len(feature_names(cohort["features"], PARAMS))}


def test_treatment_is_the_latest_started_and_never_a_later_one(cohort: dict[str, pd.DataFrame]) -> None:
    frame = rows(cohort)
    notes = cohort["annotations"]
    started = notes[notes["kind"] == "treatment"].set_index(["subject", "side"])
    names = feature_names(cohort["features"], PARAMS)
    for row in frame.itertuples():
        own = started.loc[[(row.subject, row.side)]] if (row.subject, row.side) in started.index else started.iloc[:0]
        due = own[own["days"] <= row.days]
        assert row.treatment == (due["name"].iloc[-1] if len(due) else None)
        hot = {n.removeprefix("treatment_") for n, v in zip(names, row.features, strict=True)
               if n.startswith("treatment_") and v}  # fmt: skip
        assert hot == ({row.treatment} if row.treatment else set())
    assert (frame["days_since_treatment"].dropna() >= 0).all()


def test_deleting_the_future_changes_nothing_earlier_but_labels(cohort: dict[str, pd.DataFrame]) -> None:
    """As of every day: what is dated later is taken out of all tables."""
    whole = rows(cohort).set_index("hip_visit")
    for day in (0.0, 150.0, 300.0, 500.0):
        hips = cohort["hips"][cohort["hips"]["days"] <= day]
        past = {
            name: cohort[name][cohort[name]["hip_visit"].isin(hips["hip_visit"])] for name in ("features", "measures")
        }
        past |= {"hips": hips, "split": cohort["split"]}
        past["annotations"] = cohort["annotations"][cohort["annotations"]["days"] <= day]
        then = rows(past).set_index("hip_visit")
        assert list(then.index) == [key for key in whole.index if key in set(then.index)]
        for column in set(then) - FUTURE - {"features"}:
            pd.testing.assert_series_equal(then[column], whole.loc[then.index, column], check_dtype=False)
        for key, vector in then["features"].items():
            assert np.array_equal(vector, whole.loc[key, "features"], equal_nan=True)


def test_the_table_as_of_a_day_is_the_table_built_on_that_day(cohort: dict[str, pd.DataFrame]) -> None:
    """With the same knowledge the labels are the same as well: a hip followed to `day` has no label beyond it."""
    day = 700.0
    notes = cohort["annotations"]
    then = rows(cohort | {"annotations": notes[notes["days"] <= day]})
    known = then[then["label"] == 0.0]
    assert len(known)
    assert (known["days"] + 365.0 <= day).all()


def test_a_new_visit_touches_its_own_hip_only(cohort: dict[str, pd.DataFrame]) -> None:
    """And of that hip its own row: what was there before keeps its vector to the bit."""
    whole = rows(cohort).set_index("hip_visit")
    new = whole.index[whole["days"] > 0][-1]
    past = {name: cohort[name] for name in READ}
    for name in ("hips", "measures", "features"):
        past[name] = past[name][past[name]["hip_visit"] != new]
    before = rows(past).set_index("hip_visit")
    assert set(whole.index) - set(before.index) == {new}
    others = [key for key in before.index if before.loc[key, "hip"] != whole.loc[new, "hip"]]
    pd.testing.assert_frame_equal(before.loc[others], whole.loc[others])
    earlier = [k for k in before.index if k not in others and before.loc[k, "days"] < whole.loc[new, "days"]]
    for key in earlier:
        assert np.array_equal(before.loc[key, "features"], whole.loc[key, "features"], equal_nan=True)


def test_a_child_has_no_label_and_its_later_visits_do(cohort: dict[str, pd.DataFrame]) -> None:
    """Seventeen at the first visit, grown up a year later, though only the first header says the age."""
    hips = cohort["hips"].assign(age_years=np.where(cohort["hips"]["days"] == 0.0, 17.2, np.nan), sex="F")
    frame = rows(cohort | {"hips": hips})
    assert (frame["ineligible"] == "younger than 18 years").equals(frame["days"] < 0.8 * 365.25)
    assert frame.loc[frame["ineligible"] != "", "label"].isna().all()
    assert frame.loc[frame["ineligible"] == "", "label"].notna().any()
    assert frame["age_years"].max() > 18.5


def test_labels_agree_with_the_simulation(cohort: dict[str, pd.DataFrame]) -> None:
    frame = rows(cohort).set_index("hip_visit")
    truth = cohort["truth"].set_index("hip_visit")
    both = frame.index[frame["label"].notna() & truth["label"].reindex(frame.index).notna()]
    assert len(both) > 60
    assert (frame.loc[both, "label"] == truth.loc[both, "label"]).all()
    missed = truth["affected"] & truth["label"].notna()
    assert frame.loc[truth.index[missed], "label"].notna().all()


def test_one_hip_alone_has_the_rows_that_it_has_in_the_cohort(cohort: dict[str, pd.DataFrame]) -> None:
    whole = rows(cohort)
    hip = whole["hip"].iloc[0]
    subject, side = hip.split("-")
    own = {name: cohort[name] for name in READ}
    own["hips"] = own["hips"][(own["hips"]["subject"] == subject) & (own["hips"]["side"] == side)]
    alone = rows(own)
    expected = whole[whole["hip"] == hip].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone.drop(columns="features"), expected.drop(columns="features"), check_dtype=False)


def test_cohorts_without_labels_features_or_measures(cohort: dict[str, pd.DataFrame]) -> None:
    bare = cohort | {"annotations": cohort["annotations"].iloc[:0]}
    frame = rows(bare)
    assert frame["label"].isna().all()
    assert frame["treatment"].isna().all()
    frame = rows(cohort | {"features": cohort["features"].iloc[:0], "measures": cohort["measures"].iloc[:0]})
    assert len(frame) == len(cohort["hips"])
    names = feature_names(cohort["features"].iloc[:0], PARAMS)
    assert all(v[names.index("missing_encoder")] == 1.0 for v in frame["features"])
    assert frame["label"].notna().any()
    assert rows(cohort | {"hips": cohort["hips"].iloc[:0]}).empty


def test_the_stage_writes_the_table_and_its_names(
    cohort: dict[str, pd.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feature_cohort.write(tmp_path, cohort)
    monkeypatch.chdir(tmp_path)
    main([], feature_cohort.PARAMS, map)
    frame = tables.read("sequences", Path("data/sequences.parquet"))
    names = read_json(Path("data/sequences.json"))
    assert len(names["features"]) == len(frame["features"].iloc[0])
    assert names["horizon_days"] == frame["horizon_days"].iloc[0]
    assert not FUTURE & set(names["features"])
    first = Path("data/sequences.parquet").read_bytes()
    main([], feature_cohort.PARAMS, map)
    assert Path("data/sequences.parquet").read_bytes() == first
