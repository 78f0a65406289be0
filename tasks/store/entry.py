"""How `python -m tasks.<room>` enters a room, from the shell, from `dvc repro` or inside a flow."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from typing import Any

from tasks.domain.errors import OsteoflowError
from tasks.domain.params import Section, load
from tasks.store.items import Mapper
from tasks.store.mapping import local


def enter(
    room: str,
    model: type[Section],
    run: Callable[[Any, Mapper], None],
    params: Mapping[str, Any] | None = None,
    mapper: Mapper | None = None,
    preload: tuple[str, ...] = (),
) -> None:
    """Run the room with its section of `params` (default: params.yaml) over `mapper` (default: local processes)."""
    section = load(room, model, params)
    if mapper is not None:
        run(section, mapper)
        return
    with local(preload=preload) as processes:
        run(section, processes)


def exit_with(main: Callable[[], object]) -> None:
    """End the process with the exit code of the error tree, its message on stderr and no traceback."""
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s", stream=sys.stderr)
    try:
        main()
    except OsteoflowError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
