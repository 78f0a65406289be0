from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.classify.params import Params
from tasks.classify.run import run
from tasks.store.entry import exit_with
from tasks.store.items import Mapper
from tasks.training.distribution import enter


def main(
    argv: Sequence[str] | None = None, params: Mapping[str, Any] | None = None, mapper: Mapper | None = None
) -> None:
    """`python -m tasks.classify`: the visit encoder of each fold, and every hip-visit's features."""
    enter("classify", Params, run, params, mapper)


if __name__ == "__main__":
    exit_with(main)
