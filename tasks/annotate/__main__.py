from collections.abc import Mapping, Sequence
from typing import Any

from tasks.annotate.params import Params
from tasks.annotate.stage import run
from tasks.store.entry import enter, exit_with
from tasks.store.items import Mapper


def main(
    argv: Sequence[str] | None = None, params: Mapping[str, Any] | None = None, mapper: Mapper | None = None
) -> None:
    """`python -m tasks.annotate`: joins every import to the hip-visits that have arrived."""
    enter("annotate", Params, run, params, mapper)


if __name__ == "__main__":
    exit_with(main)
