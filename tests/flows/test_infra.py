"""What infra/ names is there: flows, files, settings; and nothing is published beyond this machine."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
import yaml
from fastapi import Body, FastAPI
from starlette.testclient import TestClient

from flows import supervise
from tasks.domain.settings import Settings

INFRA = Path(__file__).resolve().parents[2] / "infra"
BESIDES = {"OSTEOFLOW_PREFECT_PORT", "OSTEOFLOW_MLFLOW_PORT"}
"""Read by `serve` alone."""


@pytest.mark.parametrize("name", ["compose.yaml", "osteoflow.service", "orthanc.json", "../docs/data-engineers.md"])
def test_settings_are_those_that_osteoflow_reads(name: str) -> None:
    known = {f"OSTEOFLOW_{field.upper()}" for field in Settings.model_fields} | BESIDES
    said = set(re.findall(r"OSTEOFLOW_[A-Z_]*[A-Z]", (INFRA / name).read_text(encoding="utf-8")))
    assert said <= known


def test_compose_publishes_on_loopback_and_names_what_is_there() -> None:
    compose = yaml.safe_load((INFRA / "compose.yaml").read_text(encoding="utf-8"))
    services = compose["services"]
    for service in services.values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        assert set(service.get("depends_on", {})) <= set(services)
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert source in compose["volumes"] or (INFRA / source).exists()
    ours = services["osteoflow"]
    assert "exec make serve" in ours["command"][-1] and "serve:" in (INFRA.parent / "Makefile").read_text()
    assert ours["ports"] == [f"127.0.0.1:{(port := Settings().dicom_port)}:{port}"]
    assert int(ours["stop_grace_period"].removesuffix("s")) > sum(supervise.STOP_S.values())


def test_the_unit_starts_serve_and_waits_until_it_has_ended_its_children() -> None:
    unit = dict(re.findall(r"^(\w+)=(.*)$", (INFRA / "osteoflow.service").read_text(encoding="utf-8"), re.MULTILINE))
    assert unit["ExecStart"].endswith("/osteoflow serve") and unit["Restart"] == "always"
    assert unit["KillSignal"] == "SIGTERM" and int(unit["TimeoutStopSec"]) > sum(supervise.STOP_S.values())
    assert unit["ReadWritePaths"] == unit["WorkingDirectory"], "all state is below the workspace"


def test_every_deployment_names_a_flow() -> None:
    file = yaml.safe_load((INFRA / "prefect.yaml").read_text(encoding="utf-8"))
    for one in file["deployments"]:
        path, _, name = one["entrypoint"].partition(":")
        assert (INFRA.parent / path).exists()
        assert one["work_pool"]["name"] == "osteoflow", "`prefect deploy --all` asks for it here and nowhere else"
        flow = getattr(importlib.import_module(f"flows.{Path(path).stem}"), name)
        assert set(one.get("parameters", {})) <= set(flow.parameters.properties)
    for step in file["pull"]:
        module, _, name = next(iter(step)).rpartition(".")
        assert callable(getattr(importlib.import_module(module), name))


def test_a_null_means_the_default_as_prefects_client_takes_for_granted() -> None:
    """`prefect deploy` asks for the workers of the pool with a null offset. fastapi 0.151 and later answer 422."""
    app = FastAPI()

    @app.post("/workers/filter")
    def read(workers: list[str] | None = None, offset: int = Body(0, ge=0)) -> int:
        return offset

    with TestClient(app) as client:
        answer = client.post("/workers/filter", json={"workers": None, "offset": None})
    assert (answer.status_code, answer.json()) == (200, 0)
