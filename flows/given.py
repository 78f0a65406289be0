"""What this process hands its flows beside their parameters: a warm pool of workers and a console.

Prefect keeps a flow's parameters, so they hold row keys and switches alone; the pool and the console stay here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console

from tasks.store.items import Mapper
from tasks.store.mapping import local

PRELOAD = ("torch", "torchvision", "scipy.ndimage", "skimage.morphology", "pydicom", "safetensors")
"""Imported once by the workers' server: a warm pool then costs a fork."""


@dataclass(frozen=True)
class Given:
    mapper: Mapper
    console: Console | None = None

    def say(self, text: str) -> None:
        if self.console is not None:
            self.console.print(text, highlight=False, soft_wrap=True)


_given: list[Given] = []


@contextmanager
def giving(mapper: Mapper | None = None, console: Console | None = None) -> Iterator[Given]:
    """Hand over `mapper` (default: that of an outer `giving`, else a pool of this process) and `console`."""
    if _given:
        mapper, console = mapper or _given[-1].mapper, console or _given[-1].console
    if mapper is not None:
        _given.append(Given(mapper, console))
        try:
            yield _given[-1]
        finally:
            _given.pop()
        return
    with local(preload=PRELOAD) as pool, giving(pool, console) as given:
        yield given
