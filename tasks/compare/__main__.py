from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.compare.asked import asked
from tasks.compare.params import Params
from tasks.store.entry import exit_with
from tasks.store.items import Mapper
from tasks.training.distribution import enter


def main(
    argv: Sequence[str] | None = None, params: Mapping[str, Any] | None = None, mapper: Mapper | None = None
) -> None:
    """`python -m tasks.compare`: the table of networks, or how far leakage would inflate it."""
    enter("compare", Params, asked(argv, main.__doc__), params, mapper)


if __name__ == "__main__":
    exit_with(main)
