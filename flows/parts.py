"""Parts of one stage as Prefect runs of their own: one GPU job a network.

dvc.yaml's meta names the work queue of a stage, and with `each` the list in its section of params.yaml that it can do
one by one: `cmd --only ITEM` leaves the result of one item, which the stage then finds done and DVC keeps. With
OSTEOFLOW_WORK_POOL the dataset loop submits a run for each item to that queue of that pool, and waits. Workers see the
same files (`prefect worker start --pool NAME --work-queue gpu --limit 8`) and get the parameters that the stage froze.

Without a pool the stage does all of it in its own process, and so it does with whatever no worker did: nothing is lost,
and why a part failed is told by the stage. Nothing of dvc or mlflow is imported here: a worker needs neither.
"""

from __future__ import annotations

import importlib
import logging
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import prefect
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling

from flows.environment import HEARTBEAT_S
from tasks.domain.settings import Settings

if TYPE_CHECKING:
    from flows.graph import StageNode

log = logging.getLogger("osteoflow.parts")

POLL_S = 2.0
PATIENCE_S = 600.0
"""With no run going on, so long may the queue stand still before the stage does the rest itself."""
COMPLETED = "Completed"
_WAITING = (StateType.SCHEDULED, StateType.PENDING)


@prefect.flow(name="part", persist_result=False)
def part(room: str, item: str, params: dict[str, Any]) -> None:
    """What a worker does: one item of a stage, with the parameters that the stage was given."""
    importlib.import_module(f"tasks.{room}.__main__").main(["--only", item], params=params)


def spread(node: StageNode, params: Mapping[str, Any]) -> dict[str, str]:
    """Have workers do the parts of a stage; how each run ended, by item. {} where no pool is named, or no part."""
    pool, items = Settings().work_pool, items_of(node, params)
    if not pool or not items:
        return {}
    deployment = _deployment(pool, node.queue)
    given = {node.room: params[node.room]}
    runs: dict[str, UUID] = {}
    try:
        for item in items:
            asked = {"room": node.room, "item": item, "params": given}
            runs[item] = _submit(deployment, f"{node.name} {item}", asked)
        log.info("%s: %d parts submitted to queue '%s' of pool '%s'", node.name, len(runs), node.queue, pool)
        return _ended(node, runs)
    except BaseException:
        _cancel(runs.values())
        raise


def items_of(node: StageNode, params: Mapping[str, Any]) -> list[str]:
    return [str(item) for item in params.get(node.room, {}).get(node.each, [])] if node.each else []


def _deployment(pool: str, queue: str) -> UUID:
    """That of `part` in this workspace, made or brought up to date; a pool that is not there too, of processes."""
    environment = {"OSTEOFLOW_HOME": str(Settings().home.resolve())}
    environment["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] = str(HEARTBEAT_S)  # or it would be taken for dead
    environment |= {name: os.environ[name] for name in ("OSTEOFLOW_WORKERS",) if name in os.environ}
    with get_client(sync_client=True) as client:
        try:
            client.read_work_pool(pool)
        except ObjectNotFound:
            client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
        return client.create_deployment(
            client.create_flow(part),
            f"part on {queue}",
            work_pool_name=pool,
            work_queue_name=queue,
            entrypoint=f"{__name__}.{part.fn.__name__}",
            pull_steps=[{"prefect.deployments.steps.set_working_directory": {"directory": str(Path.cwd())}}],
            job_variables={"env": environment},
        )


def _submit(deployment: UUID, name: str, parameters: dict[str, Any]) -> UUID:
    from prefect.deployments import run_deployment  # takes its time to import, and few name a pool

    found: Any = run_deployment(deployment, parameters=parameters, flow_run_name=name, timeout=0)
    return UUID(str(found.id))


def _ended(node: StageNode, runs: Mapping[str, UUID]) -> dict[str, str]:
    ended: dict[str, str] = {}
    moved = time.monotonic()
    while len(ended) < len(runs):
        states = {item: _state(runs[item]) for item in runs if item not in ended}
        for item, (kind, name) in states.items():
            if kind not in (*_WAITING, StateType.RUNNING, StateType.CANCELLING, StateType.PAUSED):
                ended[item] = name
                log.info("%s: %s: %s", node.name, item, name.lower())
        if any(kind not in _WAITING for kind, _ in states.values()):
            moved = time.monotonic()
        if time.monotonic() - moved > PATIENCE_S:
            left = [item for item in runs if item not in ended]
            _cancel(runs[item] for item in left)
            log.warning("%s: no worker took %s from queue '%s' within %.0f s; the stage does it itself",
                        node.name, ", ".join(left), node.queue, PATIENCE_S)  # fmt: skip
            return ended | dict.fromkeys(left, "not taken")
        if len(ended) < len(runs):
            time.sleep(POLL_S)
    failed = [item for item, name in ended.items() if name != COMPLETED]
    if failed:
        log.warning("%s: a worker did not finish %s; the stage does it itself", node.name, ", ".join(failed))
    return ended


def _state(run: UUID) -> tuple[StateType, str]:
    with get_client(sync_client=True) as client:
        found: FlowRun = client.read_flow_run(run)
    assert found.state is not None
    return found.state.type, found.state.name or ""


def _cancel(runs: Iterable[UUID]) -> None:
    with get_client(sync_client=True) as client:
        for run in runs:
            client.set_flow_run_state(run, Cancelling())
