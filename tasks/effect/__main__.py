from collections.abc import Mapping, Sequence
from typing import Any

from tasks.effect.effect import run
from tasks.effect.params import Params
from tasks.store.entry import enter, exit_with
from tasks.store.items import Mapper


def main(
    argv: Sequence[str] | None = None, params: Mapping[str, Any] | None = None, mapper: Mapper | None = None
) -> None:
    """`python -m tasks.effect`: change from baseline associated with each treatment."""
    enter("effect", Params, run, params, mapper or map)


if __name__ == "__main__":
    exit_with(main)
