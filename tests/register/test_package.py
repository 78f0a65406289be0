"""What is in models/package/."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tasks.domain.errors import WrongUse
from tasks.register import differences, input_example, package_digest, read_package
from tasks.register.__main__ import main
from tasks.store import tables
from tasks.store.digests import sha256_file
from tasks.store.files import read_json


def test_the_package_holds_all_that_scoring_needs(package):
    assert {path.name for path in package.iterdir()} == {
        "package.json", "model.py", "forecaster.py", "params.json", "signature.json", "input_example.json", "card.md",
            "tripod_ai.csv", "claim_2024.csv",
        "forecast", "classify", "segment",
    }  # fmt: skip
    facts = read_package(package)
    assert facts["name"] == "onfh-progression"
    assert facts["horizon_days"] == 365.0
    assert facts["origin"] == "phantom"
    assert facts["features"] == ["lesion_fraction", "kerboul_deg", "missing_contrast"]
    assert facts["networks"]["forecast"] == ["fold0", "fold1"]
    assert (facts["n_patients"], facts["n_training_patients"], facts["n_test_patients"]) == (4, 3, 1)
    assert facts["evaluate"]["auc"] == 0.8
    assert facts["vendors"] == ["Vendor A"]
    assert set(facts["files"]) == {
        path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()
    } - {"package.json"}
    assert facts["files"]["model.py"] == sha256_file(package / "model.py")
    assert set(read_json(package / "params.json")) == {"standardize", "forecast", "register"}


def test_the_same_inputs_are_the_same_bytes(package, sections):
    first = package_digest(package)
    assert read_package(package)["digest"] == first
    main(params=sections, mapper=map)
    assert package_digest(package) == first
    (package / "card.md").write_text("changed")
    assert package_digest(package) != first


def test_what_differs_is_named(package):
    assert differences(package) == []
    (package / "forecast" / "fold0.safetensors").write_bytes(b"other")
    (package / "card.md").unlink()
    (package / "more.txt").write_text("planted")
    assert [(row["what"], row["found"] is None, row["expected"] is None) for row in differences(package)] == [
        ("card.md", True, False),
        ("forecast/fold0.safetensors", False, False),
        ("more.txt", False, True),
    ]


def test_nothing_of_a_patient_is_in_it(package):
    subjects = {
        value for c in ("subject", "hip", "hip_visit") for value in pd.read_parquet("data/sequences.parquet")[c]
    }
    for path in package.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not [one for one in subjects if one.encode() in content], path.name


def test_few_patients_give_an_example_of_nulls(workspace, sections):
    main(params=sections | {"register": {"name": "onfh-progression", "example_patients": 100}}, mapper=map)
    example = input_example(workspace / "models" / "package")
    assert example["features"][0].shape == (3,) and pd.isna(example["features"][0]).all()


def test_the_example_rests_on_training_folds_alone(package, sections):
    """Neither external sites nor patients who have withdrawn (no fold) are in its medians."""
    before = input_example(package)["features"][0]
    rows = pd.read_parquet("data/sequences.parquet")
    for number, fold in enumerate(("external", None)):
        more = rows[rows["subject"] == "OF0"].assign(subject=f"OF9{number}", hip=f"OF9{number}-L", fold=fold)
        more["features"] = [np.array([900.0, 900.0, 900.0])] * len(more)
        more["hip_visit"] = [f"2.25.9{number}{i}-L" for i in range(len(more))]
        rows = pd.concat([rows, more], ignore_index=True)
    tables.write("sequences", Path("data/sequences.parquet"), rows)
    main(params=sections, mapper=map)
    np.testing.assert_array_equal(input_example(package)["features"][0], before)


def test_the_card_says_what_it_must(package):
    text = (package / "card.md").read_text()
    for words in (
        "Research use only, not for diagnosis.",
        "4 patients",
        "0.80 (0.50 to 1.00)",
        "not defined",
        "phantom",
    ):
        assert words in text
    assert " will " not in text


def test_a_folder_that_is_no_package_is_refused(tmp_path):
    with pytest.raises(WrongUse):
        package_digest(tmp_path)
