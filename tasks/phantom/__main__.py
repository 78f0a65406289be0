"""`python -m tasks.phantom OUT`: write a cohort of invented patients."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tasks.phantom.cohort import write_cohort
from tasks.store.entry import exit_with
from tasks.store.mapping import local


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and write the cohort with a process for each core."""
    parser = argparse.ArgumentParser(prog="python -m tasks.phantom", description="Write a cohort of invented patients.")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write")
    parser.add_argument("--patients", type=int, default=20, help="how many (default: 20)")
    parser.add_argument("--seed", type=int, default=7, help="same seed, same bytes (default: 7)")
    parser.add_argument("--site", default="local", help="site named in the tables (default: local)")
    given = parser.parse_args(argv)

    def progress(done: int, total: int) -> None:
        print(f"\rstudy {done} of {total}", end="" if done < total else "\n", file=sys.stderr, flush=True)

    with local(preload=("tasks.phantom.cohort",)) as mapper:
        made = write_cohort(given.out, given.patients, given.seed, given.site, mapper, progress)
    size = f"{made.files} files, {made.bytes / 1e6:.0f} MB"
    print(f"{made.patients} patients, {made.studies} studies, {size} in {given.out}")
    print(f"{made.progressed} of {made.landmarks} visits followed for 12 months progress within them")


if __name__ == "__main__":
    exit_with(main)
