"""What the command line asks of the room: the stage, one network of it, or how far leakage would inflate it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial

from tasks.compare.params import Params
from tasks.compare.run import run, run_beside, run_one
from tasks.store.items import Mapper


def asked(argv: Sequence[str] | None, about: str | None) -> Callable[[Params, Mapper], None]:
    parser = argparse.ArgumentParser(prog="python -m tasks.compare", description=about)
    beside = "slice-split: folds of slices too, and what that inflates (reports/compare-leakage.csv)"
    parser.add_argument("--protocol", choices=["patient-split", "slice-split"], default="patient-split", help=beside)
    parser.add_argument("--labels", choices=["true", "shuffled"], default="true", help="shuffled: one by lot a patient")
    parser.add_argument("--only", metavar="NETWORK", help="fit this one and leave its result for the stage")
    how = parser.parse_args(argv)
    leak, lot = how.protocol == "slice-split", how.labels == "shuffled"
    if not how.only:
        return partial(run_beside if leak else run, shuffled=lot)
    if leak or lot:
        parser.error("--only is for the stage itself: folds of patients and true labels")
    return partial(run_one, network=how.only)
