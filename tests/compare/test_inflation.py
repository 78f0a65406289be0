"""What leakage inflates is told slice by slice: each is compared with itself, however folds were dealt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tasks.compare import run as stage
from tasks.compare.__main__ import main
from tasks.compare.table import leakage
from tasks.domain.errors import Differs


def test_inflation_pairs_slices_not_positions(tmp_path: Path) -> None:
    rows = [(f"{p}-L", f"OF{p}", slice_, float(p % 2 * slice_ % 2)) for p in range(8) for slice_ in range(4)]
    said = pd.DataFrame(rows, columns=["hip_visit", "subject", "slice", "label"]).assign(seed=0.0)
    draw, found = np.random.default_rng(0), {}
    for name, fold in (("patients", said["subject"].str[-1]), ("slices", pd.Series(draw.integers(0, 3, len(said))))):
        said.assign(fold=fold.astype(str), p=draw.random(len(said))).to_parquet(tmp_path / f"{name}.parquet")
        found[name] = stage._predictions(tmp_path, name)
    table = leakage({"net": found["patients"]}, {"net": found["slices"]}, 2, 0.5, 50)
    assert (table["inflation"] - (table["auc_slice_split"] - table["auc"])).abs().lt(1e-9).all()
    others = found["slices"].assign(label=found["slices"]["label"].to_numpy()[::-1])
    with pytest.raises(Differs, match="net: slice"):
        leakage({"net": found["patients"]}, {"net": others}, 2, 0.5, 50)


@pytest.mark.parametrize("more", [["--protocol", "slice-split"], ["--labels", "shuffled"]])
def test_one_network_alone_is_fitted_for_the_stage_or_refused(more: list[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--only", "resnet18", *more], {}, map)
