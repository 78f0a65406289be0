"""Slices straight from the files of many hip-visits, found by the columns `at_*` of hips.parquet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tasks.domain.errors import WrongUse
from tasks.store import hips, tables

NAMES = ("t1", "fluid")


@pytest.fixture
def written(tmp_path: Path) -> tuple[pd.DataFrame, dict[str, hips.HipFile]]:
    rng = np.random.default_rng(4)
    rows, files = [], {}
    for n, names in enumerate((["t1", "fluid", "contrast"], ["t1"], ["fluid"])):
        tensors, scale = {}, {}
        for name in names:
            tensors[name], scale[name] = hips.quantize(rng.normal(0, 1 + n, (5, 8, 6)))
        file = f"b1/v{n}.safetensors"
        files[file] = hips.HipFile(tensors, {"scale": scale})
        hips.write(tmp_path / file, files[file])
        at = {f"at_{name}": place for name, place in hips.layout(tmp_path / file).items()}
        rows.append({"hip_visit": f"v{n}", "file": file, **at})
    tables.write("hips", tmp_path / "hips.parquet", pd.DataFrame(rows))
    return tables.read("hips", tmp_path / "hips.parquet"), files


def test_each_slice_is_the_one_in_the_file(tmp_path: Path, written) -> None:
    index, files = written
    slices = hips.Slices(index, tmp_path, NAMES, most=2)  # fewer maps than files
    asked = [(v, k) for k in (0, 4, 2) for v in (0, 1, 2)]
    found = slices.take(*zip(*asked, strict=True))
    assert found.shape == (9, 2, 8, 6) and found.dtype == np.uint16
    for (visit, k), one in zip(asked, found, strict=True):
        file = files[index["file"][visit]]
        for c, name in enumerate(NAMES):
            if name not in file.tensors:
                assert not one[c].any() and not slices.scale[visit, c].any()
                continue
            assert np.array_equal(one[c], file.tensors[name][k])
            scale, offset = slices.scale[visit, c]
            assert np.allclose(one[c] * scale + offset, file.values(name)[k], atol=1e-3)


def test_what_is_not_there_is_not_read(tmp_path: Path, written) -> None:
    index, _ = written
    with pytest.raises(IndexError):
        hips.Slices(index, tmp_path, NAMES).take([0], [5])
    with pytest.raises(WrongUse, match="0 grids"):
        hips.Slices(index, tmp_path, ["contrast_fine"])
