"""Servers that the hospital has: `serve` uses them and starts none of its own; a demo touches none of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from flows import demo, serve
from tasks.domain.settings import Settings


def test_servers_elsewhere_are_used_and_none_of_its_own_are_started(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home}/mlflow.sqlite")
    ours = {child.name: child for child in serve.children(Settings().ensure())}
    assert set(ours) == {*serve.ROLES, "prefect", "mlflow"}
    assert serve.prefect_api() == ours["prefect"].url.removesuffix("/health")
    monkeypatch.setenv("PREFECT_API_URL", "https://prefect.hospital.invalid/api")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.hospital.invalid")
    assert {child.name for child in serve.children(Settings())} == set(serve.ROLES)
    assert serve.prefect_api() == "https://prefect.hospital.invalid/api"


def test_a_demo_writes_to_no_server_of_the_hospital(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.settings import get_current_settings

    fields = type(get_current_settings().server.database).model_fields
    choices: Any = getattr(fields["connection_url"].validation_alias, "choices", [])
    aliases = {choice.upper() for choice in choices if isinstance(choice, str)}
    named = {name for name in aliases if name.startswith("PREFECT_")} | {"MLFLOW_REGISTRY_URI", "PREFECT_API_URL"}
    assert len(named) >= 4, "Prefect's database has two names"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").touch()
    for name in named:
        monkeypatch.setenv(name, "postgresql://hospital.invalid/prefect")
    seen: dict[str, str] = {}
    monkeypatch.setattr(demo, "make_workspace", lambda checkout, workspace, seed: tmp_path)
    monkeypatch.setattr(demo, "prepare", lambda workspace: Settings().ensure())
    monkeypatch.setattr(demo, "_key", lambda seed: None)
    monkeypatch.setattr(demo, "_live", lambda *_: seen.update(os.environ))
    demo.run(4, 3, Console(quiet=True))
    assert seen and not named & seen.keys()
