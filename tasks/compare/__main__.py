from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from tasks.compare.params import Params
from tasks.compare.run import run, run_beside, run_one
from tasks.store.entry import exit_with
from tasks.store.items import Mapper
from tasks.training.distribution import enter


def main(
    argv: Sequence[str] | None = None, params: Mapping[str, Any] | None = None, mapper: Mapper | None = None
) -> None:
    """`python -m tasks.compare`: the table of networks, or how far leakage would inflate it."""
    parser = argparse.ArgumentParser(prog="python -m tasks.compare", description=main.__doc__)
    beside = "slice-split: folds of slices too, and what that inflates (reports/compare-leakage.csv)"
    parser.add_argument("--protocol", choices=["patient-split", "slice-split"], default="patient-split", help=beside)
    parser.add_argument("--labels", choices=["true", "shuffled"], default="true", help="shuffled: one by lot a patient")
    parser.add_argument("--only", metavar="NETWORK", help="fit this one and leave its result for the stage")
    how = parser.parse_args(argv)
    if how.only and (how.protocol, how.labels) != ("patient-split", "true"):
        parser.error("--only is for the stage itself: folds of patients and true labels")
    doing = partial(run if how.protocol == "patient-split" else run_beside, shuffled=how.labels == "shuffled")
    enter("compare", Params, partial(run_one, network=how.only) if how.only else doing, params, mapper)


if __name__ == "__main__":
    exit_with(main)
