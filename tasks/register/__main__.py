from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import yaml

from tasks.domain.params import PARAMS_FILE
from tasks.register.params import Params
from tasks.register.register import run
from tasks.store.entry import enter, exit_with
from tasks.store.items import Mapper


def main(
    argv: Sequence[str] | None = None, params: Mapping[str, Any] | None = None, mapper: Mapper | None = None
) -> None:
    """`python -m tasks.register`: write models/package/, all that scoring and the registry need."""
    if params is None and PARAMS_FILE.exists():
        params = yaml.safe_load(PARAMS_FILE.read_text(encoding="utf-8")) or {}
    enter("register", Params, partial(run, sections=params or {}), params, mapper or map)


if __name__ == "__main__":
    exit_with(main)
