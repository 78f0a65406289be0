from collections.abc import Mapping, Sequence
from typing import Any

from tasks.split.params import Params
from tasks.split.stage import run
from tasks.store.entry import enter, exit_with
from tasks.store.items import Mapper


def main(
    argv: Sequence[str] | None = None, params: Mapping[str, Any] | None = None, mapper: Mapper | None = None
) -> None:
    """`python -m tasks.split`: gives newcomers their fold and checks that nothing leaks."""
    enter("split", Params, run, params, mapper)


if __name__ == "__main__":
    exit_with(main)
