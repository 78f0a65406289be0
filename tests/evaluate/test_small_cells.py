"""No exported table names fewer patients than may leave the house."""

from pathlib import Path

import pandas as pd

from tasks.evaluate import run
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
