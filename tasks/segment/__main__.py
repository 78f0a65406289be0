from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.segment.params import Params
from tasks.segment.run import run
from tasks.store.entry import exit_with
from tasks.store.items import Mapper
from tasks.training.distribution import enter


def main(
    argv: Sequence[str] | None = None, params: Mapping[str, Any] | None = None, mapper: Mapper | None = None
) -> None:
    """`python -m tasks.segment`: networks of each fold, and every hip-visit's masks."""
    enter("segment", Params, run, params, mapper)


if __name__ == "__main__":
    exit_with(main)
