"""Files that other projects ship: every one ends as released, quarantined or refused, and none gets worse by it."""

from __future__ import annotations

import os
import re
import subprocess
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import pydicom
import pynetdicom
import pytest
from pydicom.dataset import Dataset, FileDataset

from tasks.anonymize import Params, anonymize_tree, release
from tasks.keys import Keys

SHIPPED = {
    "pydicom character sets": Path(pydicom.__file__).parent / "data" / "charset_files",
    "nibabel": Path(nibabel.__file__).parent / "nicom" / "tests" / "data",
    "pynetdicom": Path(pynetdicom.__file__).parent / "tests" / "dicom_files",
}
"""pydicom's test files have their test in test_tree.py. `OSTEOFLOW_SAMPLES` names further folders (pydicom-data's and
deid-data's, say), parted by colons."""
SHIPPED |= {
    f"sample {n}": Path(p) for n, p in enumerate(filter(None, os.environ.get("OSTEOFLOW_SAMPLES", "").split(":")))
}


@pytest.fixture
def fast(options: dict[str, Any]) -> Params:
    """The defaults without the search for burned-in text, which has tests of its own."""
    return Params(**(options | {"clean_pixel_data": False}))


@pytest.mark.parametrize("name", SHIPPED)
def test_every_file_ends_with_an_outcome(name: str, tmp_path: Path, keys: Keys, fast: Params) -> None:
    rows = anonymize_tree(SHIPPED[name], tmp_path / "out", keys, fast, "local")
    outcomes = Counter(str(row["outcome"]) for row in rows)
    assert rows and set(outcomes) <= {"released", "quarantined", "refused"}
    assert all(bool(row["reason"]) != (row["outcome"] == "released") for row in rows)
    assert not [row for row in rows if row["reason"] == "verification_failed"]
    assert len(list((tmp_path / "out").rglob("*.dcm"))) == outcomes["released"]


CHECKED = [
    "CT_small.dcm", "MR_small.dcm", "MR_small_implicit.dcm", "MR_small_bigendian.dcm", "MR_small_RLE.dcm",
    "MR_small_jp2klossless.dcm", "MR_small_padded.dcm",  "rtdose.dcm", "693_J2KI.dcm",
    "J2K_pixelrep_mismatch.dcm", "dicomdirtests/77654033/CT2/17106",
]  # fmt: skip


@pytest.mark.needs("dciodvfy")
@pytest.mark.parametrize("name", CHECKED)
def test_no_error_that_the_source_did_not_have(name: str, tmp_path: Path, keys: Keys, fast: Params) -> None:
    source = Path(pydicom.__file__).parent / "data" / "test_files" / name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one = release(source.read_bytes(), "local", keys, fast)
    (tmp_path / "released.dcm").write_bytes(one.data)
    new = errors(tmp_path / "released.dcm") - errors(source)
    assert not new, dict(new)


@pytest.mark.needs("dciodvfy")
def test_an_error_of_our_own_would_be_seen(
    tmp_path: Path, mr: Callable[..., FileDataset], as_bytes: Callable[[Dataset], bytes]
) -> None:
    ds = mr()
    (tmp_path / "before.dcm").write_bytes(as_bytes(ds))
    del ds.Modality
    (tmp_path / "after.dcm").write_bytes(as_bytes(ds))
    assert errors(tmp_path / "after.dcm") - errors(tmp_path / "before.dcm")


def errors(path: Path) -> Counter[str]:
    """What dciodvfy calls errors, without the values that it quotes."""
    said = subprocess.run(
        ["dciodvfy", "-new", str(path)], capture_output=True, text=True, check=False, errors="replace"
    )
    lines = (said.stdout + said.stderr).splitlines()
    return Counter(re.sub(r"<(?!/)[^>]*>", "<>", line).strip() for line in lines if line.startswith("Error"))
