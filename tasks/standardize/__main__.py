from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.standardize.params import Params
from tasks.standardize.stage import run
from tasks.store.entry import enter, exit_with
from tasks.store.items import Mapper

PRELOAD = ("tasks.standardize.visit",)


def main(
    argv: Sequence[str] | None = None, params: Mapping[str, Any] | None = None, mapper: Mapper | None = None
) -> None:
    """`python -m tasks.standardize`: study archives to hip volumes and their tables."""
    enter("standardize", Params, run, params, mapper, preload=PRELOAD)


if __name__ == "__main__":
    exit_with(main)
