"""No exported table names fewer patients than may leave the house, or lets them be worked out from a total."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tasks.evaluate import run
from tasks.evaluate.cohort import POPULATIONS, cohort_sums, hide, protect
from tasks.evaluate.evaluate import COUNTED


def test_no_count_of_any_table_is_small(cohort, params):
    cohort(patients=12)
    run(params, map)
    tables = {path.stem: pd.read_csv(path) for path in sorted(Path("reports/evaluate").glob("*.csv"))}
    assert {"populations", "survival", "units", "baselines"} <= set(tables)
    for name, table in tables.items():
        for column in set(COUNTED) & set(table):
            counts = pd.to_numeric(table[column], errors="coerce")
            assert not counts.between(1, params.suppress_below - 1).any(), (name, column)


def rows_of(levels: list[tuple[int, int]]) -> list[dict]:
    """A cohort table: patients, and one item whose levels hold (test, out_of_fold) patients."""
    both = {"test": sum(t for t, _ in levels), "out_of_fold": sum(o for _, o in levels)}
    table = [{"item": "patients", "level": "", "unit": "patient", "all": sum(both.values())} | both]
    return table + [
        {"item": "sex", "level": str(i), "unit": "patient", "all": t + o, "test": t, "out_of_fold": o}
        for i, (t, o) in enumerate(levels)
    ]


def determined(table: list[dict], shown: list[dict], sums: list) -> list[tuple[int, str]]:
    """Hidden cells that follow from the shown ones by the sums: those that no solution of them can change."""
    hidden = [(i, c) for i, row in enumerate(shown) for c in POPULATIONS if isinstance(row.get(c), str)]
    matrix = np.zeros((len(sums), max(len(hidden), 1)))
    for k, equation in enumerate(sums):
        for cell in equation:
            if cell in hidden:
                matrix[k, hidden.index(cell)] += -1.0 if cell == equation[0] else 1.0
    *_, rotated = np.linalg.svd(matrix)
    free = rotated[np.linalg.matrix_rank(matrix) :]
    return [cell for k, cell in enumerate(hidden) if not len(free) or np.abs(free[:, k]).max() < 1e-9]


@pytest.mark.parametrize("seed", range(20))
def test_a_hidden_cell_does_not_follow_from_the_totals(seed):
    rng = np.random.default_rng(seed)
    table = rows_of([(int(t), int(o)) for t, o in rng.choice([0, 2, 4, 7, 9, 30], (rng.integers(2, 5), 2))])
    sums = cohort_sums(table, POPULATIONS)
    shown = protect(table, POPULATIONS, 5, sums)
    assert not determined(table, shown, sums), shown
    for before, after in zip(table, shown, strict=True):
        for c in set(POPULATIONS) & set(before):
            small = 0 < before[c] < 5
            assert after[c] == ("<5" if small else before[c]) or (after[c] == ">=5" and before[c] >= 5)


def test_one_small_cell_takes_another_with_it():
    table = rows_of([(3, 20), (9, 40)])
    shown = protect(table, POPULATIONS, 5, cohort_sums(table, POPULATIONS))
    assert [row["test"] for row in shown] == [12, "<5", ">=5"]
    assert shown[1]["out_of_fold"] == ">=5" or shown[1]["all"] == ">=5"
    # The control: hidden alone it is what is missing to the total.
    alone = [row | ({"test": "<5"} if row["level"] == "0" else {}) for row in table]
    assert (1, "test") in determined(table, alone, cohort_sums(table, POPULATIONS))
    whole = rows_of([(7, 20), (9, 40)])
    assert protect(whole, POPULATIONS, 5, cohort_sums(whole, POPULATIONS)) == whole


def test_a_subgroup_that_lost_its_n_has_no_estimate():
    base = {"subgroup": "sex", "unit": "hip-visit", "auc": 0.8}
    counts = [(60, 30, 12), (40, 20, 9), (6, 3, 1)]
    rows = [base | {"level": str(i), "n": n, "n_patients": p, "n_events": e} for i, (n, p, e) in enumerate(counts)]
    shown = hide(rows, ["n", "n_patients", "n_events"], 5, "subgroup")
    assert [row["n_patients"] for row in shown] == [30, ">=5", "<5"]
    assert [row["auc"] for row in shown] == [0.8, None, None]
