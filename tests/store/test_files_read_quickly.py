"""The quick reader of files gives what pydicom gives, for whatever is in them; parallel grids what ITK gives."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

from tasks.domain.volume import Volume
from tasks.store import parsed, resample
from tasks.store.series import TAGS

warnings.filterwarnings("ignore", module="pydicom")

FOLDER = Path(str(get_testdata_file("MR_small.dcm"))).parent
FILES = sorted(path for path in FOLDER.glob("*.dcm") if path.stat().st_size < 600_000)


def content(dataset: Dataset) -> dict[int, object]:
    """What each element says, or how it fails to say it."""
    said: dict[int, object] = {}
    for tag in sorted(TAGS & {int(tag) for tag in dataset}):
        try:
            element = dataset[tag]
            said[tag] = element.VR, str(element.value) if element.VR == "SQ" else element.value, type(element.value)
        except parsed.UNREADABLE as error:
            said[tag] = type(error)
    said[0] = str(dataset.file_meta.get("TransferSyntaxUID")) if hasattr(dataset, "file_meta") else ""
    return said


def tried(read: object, data: bytes) -> object:
    try:
        with pydicom.config.disable_value_validation():
            return content(read(data))  # type: ignore[operator]
    except Exception as error:  # noqa: BLE001 - whatever pydicom raises is what the other one has to raise
        return type(error)


def slowly(data: bytes) -> Dataset:
    return pydicom.dcmread(io.BytesIO(data), specific_tags=sorted(TAGS))


def quickly(data: bytes) -> Dataset:
    return parsed.parsed(data, TAGS)


@pytest.mark.filterwarnings("ignore")
def test_every_file_of_pydicom_says_the_same() -> None:
    assert len(FILES) > 50
    for path in FILES:
        data = path.read_bytes()
        assert tried(quickly, data) == tried(slowly, data), path.name


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["MR_small.dcm", "MR_small_implicit.dcm", "rtplan.dcm", "CT_small.dcm"])
def test_broken_files_say_the_same(name: str) -> None:
    """Bytes of the header changed, files cut: the same values, or the same failure."""
    whole = Path(str(get_testdata_file(name))).read_bytes()
    rng = np.random.default_rng(len(name))
    for number in range(60):
        data = bytearray(whole)
        for at in rng.integers(0, min(len(data), 2500), 1 + number % 3):
            data[at] = int(rng.choice([0, 32, 46, 65, 92, 255, int(rng.integers(256))]))
        cut = bytes(data[: int(rng.integers(150, len(data)))] if number % 5 == 0 else data)
        assert tried(quickly, cut) == tried(slowly, cut), number


def test_a_dataset_of_another_character_set_does_not_get_the_first_ones_words() -> None:
    def said(charset: str, name: bytes) -> str:
        dataset = pydicom.dcmread(str(get_testdata_file("MR_small.dcm")))
        dataset.SpecificCharacterSet = charset
        dataset.SeriesDescription = "XX"
        buffer = io.BytesIO()
        dataset.save_as(buffer)
        return str(quickly(buffer.getvalue().replace(b"XX", name)).SeriesDescription)

    assert said("ISO_IR 100", b"\xe4\xf6") == "äö"
    assert said("ISO_IR 144", b"\xe4\xf6") == "фі"


@pytest.mark.parametrize("seed", range(3))
def test_parallel_grids_are_interpolated_as_itk_does(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)
    for kind in ("uint16", "int16", "float32", "uint8"):
        array = rng.integers(0, 200, rng.integers(2, 20, 3)).astype(kind)
        source, grid = np.eye(4), np.eye(4)
        source[:3, :3] = (np.diag(rng.uniform(0.6, 5, 3)) * rng.choice([-1, 1], 3))[:, rng.permutation(3)]
        grid[:3, :3] = source[:3, :3] * rng.uniform(0.2, 2, 3) * rng.choice([-1, 1], 3)
        source[:3, 3] = rng.normal(0, 10, 3)
        grid[:3, 3] = source[:3, 3] + source[:3, :3] @ (rng.uniform(-0.3, 0.8, 3) * array.shape)
        shape = tuple(int(n) for n in rng.integers(2, 30, 3))
        monkeypatch.setattr(resample, "LEAN", 1e-4)
        quick = resample.resample(Volume(array, source), grid, shape, fill=-7.0)
        monkeypatch.setattr(resample, "LEAN", -1.0)
        slow = resample.resample(Volume(array, source), grid, shape, fill=-7.0)
        assert np.array_equal(quick == -7, slow == -7) and np.abs(quick - slow).max() < 1e-3
