from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from tasks.compare.params import Params
from tasks.compare.run import run
from tasks.store.entry import enter, exit_with
from tasks.store.items import Mapper


def main(
    argv: Sequence[str] | None = None, params: Mapping[str, Any] | None = None, mapper: Mapper | None = None
) -> None:
    """`python -m tasks.compare [--split slice] [--labels shuffled]`: the table, or how far leakage would inflate it."""
    parser = argparse.ArgumentParser(prog="python -m tasks.compare", description=__doc__)
    parser.add_argument("--split", choices=["patient", "slice"], default="patient", help="what a fold is made of")
    parser.add_argument("--labels", choices=["true", "shuffled"], default="true", help="shuffled: one by lot a patient")
    how = parser.parse_args(argv)
    doing = partial(run, by_patient=how.split == "patient", shuffled=how.labels == "shuffled")
    enter("compare", Params, doing, params, mapper, preload=("torch", "torchvision"))


if __name__ == "__main__":
    exit_with(main)
