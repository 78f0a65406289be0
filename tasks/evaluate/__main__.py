from collections.abc import Mapping, Sequence
from typing import Any

from tasks.evaluate.evaluate import run
from tasks.evaluate.params import Params
from tasks.store.entry import enter, exit_with
from tasks.store.items import Mapper


def main(
    argv: Sequence[str] | None = None, params: Mapping[str, Any] | None = None, mapper: Mapper | None = None
) -> None:
    """`python -m tasks.evaluate`: scores of the forecasts, with patient-clustered intervals, beside the baselines."""
    enter("evaluate", Params, run, params, mapper or map)


if __name__ == "__main__":
    exit_with(main)
