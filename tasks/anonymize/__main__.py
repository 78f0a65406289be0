from collections.abc import Mapping, Sequence
from typing import Any

from tasks.anonymize.params import Params
from tasks.anonymize.stage import run
from tasks.anonymize.tree import PRELOAD
from tasks.store.entry import enter, exit_with
from tasks.store.items import Mapper


def main(
    argv: Sequence[str] | None = None, params: Mapping[str, Any] | None = None, mapper: Mapper | None = None
) -> None:
    """`python -m tasks.anonymize`: de-identify the claimed studies and verify every released file."""
    enter("anonymize", Params, run, params, mapper, preload=PRELOAD)


if __name__ == "__main__":
    exit_with(main)
