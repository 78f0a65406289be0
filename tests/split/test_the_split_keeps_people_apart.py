from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from tasks.domain.errors import LeakFound
from tasks.split.__main__ import main
from tasks.store import tables

PARAMS = {"folds": 3, "test_fraction": 0.25, "salt": "s", "external_sites": ["elsewhere"]}


class Cohort:
    """Tables of `split` for people named by number; rows are added, never changed."""

    def __init__(self) -> None:
        self.hips: list[dict] = []
        self.studies: list[dict] = []
        self.notes: list[dict] = []

    def add(self, numbers: range | list[int], batch: str = "b0001", site: str = "local", visits: int = 2) -> Cohort:
        for n in numbers:
            for visit in range(visits):
                study = f"2.25.{n}{visit}"
                self.study(name(n), study, batch, site)
                for side in "LR":
                    self.hip(name(n), study, side)
            if n % 3 == 0:
                self.note(name(n), "outcome", "collapse", "collapse", "L")
        return self

    def study(self, subject: str, study: str, batch: str = "b0001", site: str = "local", digest: str = "") -> None:
        self.studies.append(
            {"subject": subject, "study": study, "batch": batch, "site": site, "status": "released",
             "digest": digest or f"s{study}"}
        )  # fmt: skip

    def hip(self, subject: str, study: str, side: str, digest: str = "") -> None:
        self.hips.append(
            {"hip_visit": f"{study}-{side}", "subject": subject, "study": study, "side": side, "status": "ok",
             "digest": digest or f"h{study}{side}"}
        )  # fmt: skip

    def note(self, subject: str, kind: str, what: str, value: str, side: str | None = None, days: float = 0.0) -> None:
        self.notes.append(
            {"subject": subject, "kind": kind, "name": what, "value": value, "side": side, "days": days, "reader": None,
             "source": "0001-x"}
        )  # fmt: skip

    def split(self, **changes: object) -> dict[str, str | None]:
        tables.write("hips", Path("data/hips.parquet"), pd.DataFrame(self.hips))
        tables.write("studies", Path("data/studies.parquet"), pd.DataFrame(self.studies))
        notes = pd.DataFrame(self.notes) if self.notes else tables.empty("annotations")
        tables.write("annotations", Path("data/annotations.parquet"), notes)
        main(params={"split": PARAMS | changes}, mapper=map)
        frame = tables.read("split", Path("data/split.parquet"))
        assert frame["subject"].is_unique
        return dict(zip(frame["subject"], frame["fold"].where(frame["fold"].notna(), None), strict=True))


def name(n: int) -> str:
    return f"OF{n:016d}"


def report() -> dict:
    return json.loads(Path("reports/split.json").read_text())


@pytest.fixture
def cohort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cohort:
    monkeypatch.chdir(tmp_path)
    return Cohort()


def test_everybody_has_one_place_and_folds_are_balanced(cohort: Cohort) -> None:
    split = cohort.add(range(120)).split()
    assert len(split) == 120 and set(split.values()) == {"0", "1", "2", "test"}
    assert 15 <= sum(fold == "test" for fold in split.values()) <= 45
    folds = report()["folds"]
    assert max(folds[f]["persons"] for f in "012") - min(folds[f]["persons"] for f in "012") <= 2
    assert max(folds[f]["persons_with_event"] for f in "012") - min(folds[f]["persons_with_event"] for f in "012") <= 1
    assert folds["test"]["hip_visits"] == 4 * folds["test"]["persons"] == 2 * folds["test"]["hips"]
    assert not report()["moved"] and not report()["notes"]


def test_nobody_changes_side_when_others_arrive_or_labels_or_parameters_change(cohort: Cohort) -> None:
    first = cohort.add(range(30)).split()
    cohort.add(range(30, 60), batch="b0002")
    for n in range(1, 20):
        cohort.note(name(n), "outcome", "arthroplasty", "arthroplasty", "R")
    second = cohort.split(test_fraction=0.6, salt="other")
    assert {subject: second[subject] for subject in first} == first
    frame = pd.read_parquet("data/split.parquet").set_index("subject")
    assert frame.loc[name(3), "first_seen"] == "b0001" and frame.loc[name(33), "first_seen"] == "b0002"


def test_the_test_set_does_not_depend_on_who_came_with_whom(cohort: Cohort) -> None:
    one = cohort.add(range(20, 60)).split()
    Path("data/split.parquet").unlink()
    two = cohort.add(range(20)).split()
    assert {s for s, f in one.items() if f == "test"} == {s for s, f in two.items() if f == "test" and s in one}


def test_equal_input_is_equal_bytes(cohort: Cohort) -> None:
    cohort.add(range(25)).split()
    first = Path("data/split.parquet").read_bytes(), Path("reports/split.json").read_bytes()
    Path("data/split.parquet").unlink()
    cohort.hips.reverse()
    cohort.studies.reverse()
    cohort.split()
    assert (Path("data/split.parquet").read_bytes(), Path("reports/split.json").read_bytes()) == first


@pytest.mark.parametrize("people", [0, 1, 2])
def test_fewer_people_than_folds(cohort: Cohort, people: int) -> None:
    split = cohort.add(range(people)).split(test_fraction=0.0) if people else cohort_of_none(cohort)
    assert len(split) == people
    assert f"{people} training persons for 3 folds" in " ".join(report()["notes"])
    assert "the test set is empty so far" in " ".join(report()["notes"])


def cohort_of_none(cohort: Cohort) -> dict:
    for kind in ("hips", "studies", "annotations"):
        tables.write(kind, Path(f"data/{kind}.parquet"), tables.empty(kind))
    main(params={"split": PARAMS}, mapper=map)
    return dict(tables.read("split", Path("data/split.parquet")).itertuples(index=False))


def two_sides(split: dict) -> tuple[str, str]:
    """A training and a test subject."""
    return next(s for s, f in split.items() if f == "0"), next(s for s, f in split.items() if f == "test")


def test_a_patient_on_two_sides_fails(cohort: Cohort) -> None:
    split = cohort.add(range(30)).split()
    train, _ = two_sides(split)
    frame = pd.read_parquet("data/split.parquet")
    planted = frame[frame["subject"] == train].assign(fold="test")
    pd.concat([frame, planted]).to_parquet("data/split.parquet")
    before = Path("data/split.parquet").read_bytes()
    with pytest.raises(LeakFound, match=f"the same patient on two sides.*{train} in 0 and test") as leak:
        cohort.split()
    assert leak.value.exit_code == 3 and Path("data/split.parquet").read_bytes() == before


def test_a_study_on_two_sides_fails(cohort: Cohort) -> None:
    train, test = two_sides(cohort.add(range(30)).split())
    cohort.study(train, "2.25.777")
    cohort.study(test, "2.25.777")
    with pytest.raises(LeakFound, match=r"the same study on two sides.*2.25.777 in 0 and test"):
        cohort.split()


@pytest.mark.parametrize("other", ["test", "1"])
def test_an_identical_image_on_two_sides_fails(cohort: Cohort, other: str) -> None:
    split = cohort.add(range(30)).split()
    train, _ = two_sides(split)
    elsewhere = next(s for s, f in split.items() if f == other)
    cohort.hip(train, "2.25.881", "L", digest="same-pixels")
    cohort.hip(elsewhere, "2.25.882", "R", digest="same-pixels")
    with pytest.raises(LeakFound, match=r"the same image on two sides.*same-pixels"):
        cohort.split()


def test_an_identical_image_of_one_patient_or_without_digest_passes(cohort: Cohort) -> None:
    train, test = two_sides(cohort.add(range(30)).split())
    cohort.hip(train, "2.25.881", "L", digest="same-pixels")
    cohort.hip(train, "2.25.882", "L", digest="same-pixels")
    for subject, study in ((train, "2.25.883"), (test, "2.25.884")):
        cohort.hip(subject, study, "L")
        cohort.hips[-1]["digest"] = None
    cohort.split()


def test_a_merge_puts_one_person_on_one_side(cohort: Cohort) -> None:
    split = cohort.add(range(40)).split()
    train, test = two_sides(split)
    fold_1 = next(s for s, f in split.items() if f == "1")
    fold_2 = next(s for s, f in split.items() if f == "2")
    cohort.note(train, "merge", "same_as", test)
    cohort.note(fold_1, "merge", "same_as", fold_2)
    merged = cohort.split()
    assert merged[train] == merged[test] == "test"
    assert merged[fold_1] == merged[fold_2] and merged[fold_1] in "12"
    assert report()["tainted"] == [train] and len(report()["moved"]) == 2
    others = set(split) - {train, test, fold_1, fold_2}
    assert all(merged[subject] == split[subject] for subject in others)
    assert cohort.split() == merged and not report()["moved"]


def test_newcomers_who_are_one_person_are_dealt_as_one(cohort: Cohort) -> None:
    cohort.add(range(40))
    for n in range(0, 40, 2):
        cohort.note(name(n), "merge", "same_as", name(n + 1))
    split = cohort.split()
    assert all(split[name(n)] == split[name(n + 1)] for n in range(0, 40, 2))
    assert sum(entry["persons"] for entry in report()["folds"].values()) == 20


def test_who_withdraws_consent_has_no_fold_and_gets_the_old_one_back(cohort: Cohort) -> None:
    split = cohort.add(range(30)).split()
    train, _ = two_sides(split)
    cohort.note(train, "consent", "given", "given", days=-5.0)
    cohort.note(train, "consent", "withdrawn", "withdrawn", days=40.0)
    assert cohort.split()[train] is None
    assert report()["tainted"] == [train]
    cohort.note(train, "consent", "given", "given", days=90.0)
    assert cohort.split()[train] == split[train]


def test_an_external_site_is_never_trained_on(cohort: Cohort) -> None:
    cohort.add(range(20)).add(range(20, 30), site="elsewhere")
    split = cohort.split()
    assert {split[name(n)] for n in range(20, 30)} == {"external"}
    assert "external" not in {split[name(n)] for n in range(20)}
