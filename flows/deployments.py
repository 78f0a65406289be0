"""The deployments of infra/prefect.yaml, served by this process; and what infra/automations.yaml does with dead runs.

The same files are read by `prefect deploy` and `prefect automation create`: each thing stands there once.
"""

from __future__ import annotations

import importlib
import logging
import os
import threading
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml

from tasks.domain.errors import Unavailable, WrongUse
from tasks.domain.settings import Settings

log = logging.getLogger("osteoflow.deployments")

BESIDE_THE_WORKER = "resident"
"""Tag of deployments whose events the resident worker of `osteoflow serve` answers faster than a new process could."""
AT_ONCE = 2
"""Processes of flow runs: a dataset run, and one beside it. After an outage all that were missed are due at once."""
ASK_S = 15.0
"""Between two questions whether Prefect still knows the deployments."""


def declared() -> list[dict[str, Any]]:
    """The deployments of infra/prefect.yaml, of this workspace or of the checkout that is installed."""
    return _listed("prefect.yaml", "deployments")


def _listed(name: str, what: str) -> list[dict[str, Any]]:
    for root in (Path.cwd(), Path(__file__).resolve().parents[1]):
        path = root / "infra" / name
        if path.exists():
            return list(yaml.safe_load(path.read_text(encoding="utf-8"))[what])
    raise WrongUse(f"infra/{name} is not here: it says what Prefect does by itself")


def made(resident: bool = True) -> list[Any]:
    """Prefect's deployments of what is declared. With a `resident` worker, events start no process of their own."""
    from prefect.client.schemas.objects import ConcurrencyLimitConfig
    from prefect.events import DeploymentEventTrigger

    found = []
    for one in declared():
        schedules = one.get("schedules", [])
        path, _, name = one["entrypoint"].partition(":")
        flow = getattr(importlib.import_module(Path(path).with_suffix("").as_posix().replace("/", ".")), name)
        triggers = [] if resident and BESIDE_THE_WORKER in one.get("tags", []) else one.get("triggers", [])
        found.append(
            flow.to_deployment(
                one["name"],
                description=one["description"],
                parameters=one.get("parameters", {}),
                tags=one.get("tags", []),
                interval=[timedelta(seconds=s["interval"]) for s in schedules if "interval" in s] or None,
                cron=[s["cron"] for s in schedules if "cron" in s] or None,
                concurrency_limit=ConcurrencyLimitConfig(**limit) if (limit := one.get("concurrency_limit")) else None,
                triggers=[
                    DeploymentEventTrigger(name=one["name"], expect=set(t["expect"]), parameters=t.get("parameters"))
                    for t in triggers
                ],
            )
        )
    return found


def run() -> None:
    import prefect

    deployments = made()
    keep_automations()
    name = f"{deployments[0].flow_name}/{deployments[0].name}"
    threading.Thread(target=leave_when_forgotten, args=(name,), daemon=True).start()
    (Settings().ensure().home / "deployments.up").touch()
    prefect.serve(*deployments, pause_on_shutdown=False, print_starting_message=False, limit=AT_ONCE)


def leave_when_forgotten(deployment: str) -> None:
    """Prefect's database may be lost or restored while its server, or this process, lives on: what is not known there
    has no schedule any more. This process then ends, when no dataset run is going on, and `serve` starts it again."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    from flows.alone import alone

    seen = False
    while True:
        time.sleep(ASK_S)
        try:
            with get_client(sync_client=True) as client:
                client.read_deployment_by_name(deployment)
            seen = True
        except ObjectNotFound:
            if seen:
                with suppress(Unavailable), alone():
                    log.warning("Prefect does not know the deployments any more: they are made anew")
                    os._exit(1)
        except Exception as error:  # noqa: BLE001 - a server that is away is asked again
            log.debug("Prefect did not say whether it knows the deployments: %s", type(error).__name__)


def keep_automations() -> None:
    """Those of infra/automations.yaml. Leases of a run that is found dead are given back, its owner being dead, and the
    next run resumes what it left."""
    from prefect.automations import Automation

    for wanted in map(Automation.model_validate, _listed("automations.yaml", "automations")):
        try:
            known: Any = Automation.read(name=wanted.name)
        except ValueError:
            known = None
        if known is not None and _says(known) == _says(wanted):
            continue  # a new one would not know of the runs that told of themselves before it
        if known is not None:
            known.delete()
        wanted.create()


def _says(automation: Any) -> dict[str, Any]:
    """What an automation does, without what the server adds to it."""
    trigger = automation.trigger.model_dump(mode="json", exclude={"id"})
    return trigger | {name: sorted(value) for name, value in trigger.items() if isinstance(value, list)}
