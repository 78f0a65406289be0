"""A toy workspace that this process is in and can import from."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from toy_workspace import make_workspace


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A workspace with toy stages that this process can import and is in."""
    folder = make_workspace(tmp_path / "work")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    import tasks

    monkeypatch.setattr(tasks, "__path__", [*tasks.__path__, str(folder / "tasks")])
    yield folder
    for name in [name for name in sys.modules if name.startswith("tasks.toy_")]:
        del sys.modules[name]
