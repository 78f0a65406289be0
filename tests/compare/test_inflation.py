"""What leakage inflates is told slice by slice: each is compared with itself, however folds were dealt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tasks.compare import run as stage
from tasks.compare.__main__ import main
from tasks.compare.table import UNITS, against_best, leakage, rows_of
from tasks.domain.errors import Differs


def test_inflation_pairs_slices_not_positions(tmp_path: Path) -> None:
    rows = [(f"{p}-L", f"OF{p}", slice_, float(p % 2 * slice_ % 2)) for p in range(8) for slice_ in range(4)]
    said = pd.DataFrame(rows, columns=["hip_visit", "subject", "slice", "label"]).assign(seed=0.0)
    draw, found = np.random.default_rng(0), {}
    of_patient, of_slice = said["subject"].str[-1].astype(int) // 4, pd.Series(draw.integers(0, 3, len(said)))
    for name, fold in (("patients", of_patient), ("slices", of_slice)):
        said.assign(fold=fold.astype(str), p=draw.random(len(said))).to_parquet(tmp_path / f"{name}.parquet")
        found[name] = stage._predictions(tmp_path, name)
    table = leakage({"net": found["patients"]}, {"net": found["slices"]}, 2, 0.5, 50)
    assert (table["inflation"] - (table["auc_slice_split"] - table["auc"])).abs().lt(1e-9).all()
    others = found["slices"].assign(label=found["slices"]["label"].to_numpy()[::-1])
    with pytest.raises(Differs, match="net: slice"):
        leakage({"net": found["patients"]}, {"net": others}, 2, 0.5, 50)


def test_who_knows_the_other_folds_share_of_lesions_alone_knows_nothing() -> None:
    """As every network does that learnt nothing else: over all folds together it would look worse than chance."""
    share = {"0": 0.25, "1": 0.75}
    rows = [
        (f"{fold}{p}-L", f"OF{fold}{p}", slice_, float(p < 12 * share[fold]), fold, 1 - share[fold] + lift)
        for fold in share for p in range(12) for slice_, lift in enumerate((0.0, 0.01))
    ]  # fmt: skip
    said = pd.DataFrame(rows, columns=["hip_visit", "subject", "slice", "label", "fold", "p"])
    knows = said.assign(p=said["p"] + 0.1 * said["label"])
    table = pd.DataFrame(rows_of(("nothing", said, 1, 0.5, 60)) + rows_of(("a little", knows, 1, 0.5, 60)))
    assert table["unit"].tolist() == [*UNITS, *UNITS]
    nothing, little = (table[table["network"] == name] for name in ("nothing", "a little"))
    assert nothing["auc"].eq(0.5).all() and nothing["auc_pooled"].lt(0.3).all()
    assert little["auc"].eq(1).all() and little["auc_pooled"].lt(0.5).all(), "it ranks its own patients"
    paired = against_best(table, {"nothing": said, "a little": knows}, 1, 60)
    found = paired[paired["network"] == "nothing"]
    assert found["best"].eq("a little").all() and found["auc_minus_best"].eq(-0.5).all()
    assert found["auc_minus_best_high"].eq(-0.5).all()
    gain = leakage({"net": said}, {"net": knows.assign(fold=["0", "1"] * 24)}, 1, 0.5, 60).set_index("unit")
    assert gain["auc"].eq(0.5).all() and gain.loc["hip_visit", "auc_slice_split"] == little["auc_pooled"].iloc[1], (
        "a hip-visit whose slices lie in several folds is of none of them"
    )


@pytest.mark.parametrize("more", [["--protocol", "slice-split"], ["--labels", "shuffled"]])
def test_one_network_alone_is_fitted_for_the_stage_or_refused(more: list[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--only", "resnet18", *more], {}, map)
