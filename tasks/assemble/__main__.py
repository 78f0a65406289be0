from collections.abc import Mapping, Sequence
from typing import Any

from tasks.assemble.assemble import run
from tasks.assemble.params import Params
from tasks.store.entry import enter, exit_with
from tasks.store.items import Mapper


def main(
    argv: Sequence[str] | None = None, params: Mapping[str, Any] | None = None, mapper: Mapper | None = None
) -> None:
    """`python -m tasks.assemble`: features, times, treatments and labels of every hip-visit in one table."""
    enter("assemble", Params, run, params, mapper or map)


if __name__ == "__main__":
    exit_with(main)
