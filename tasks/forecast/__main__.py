from collections.abc import Mapping, Sequence
from typing import Any

from tasks.forecast.forecast import run
from tasks.forecast.params import Params
from tasks.store.entry import enter, exit_with
from tasks.store.items import Mapper


def main(
    argv: Sequence[str] | None = None, params: Mapping[str, Any] | None = None, mapper: Mapper | None = None
) -> None:
    """`python -m tasks.forecast`: fit and calibrate the forecaster, one member for each fold left out."""
    enter("forecast", Params, run, params, mapper)


if __name__ == "__main__":
    exit_with(main)
