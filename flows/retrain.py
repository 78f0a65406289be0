"""The dataset loop: claim a batch, run the stages of dvc.yaml, record the lineage, register, gate.

    claim → data/batches/<n>.parquet → stages in order → lineage commit → register → gate → done → report

One run at a time (a file lock under OSTEOFLOW_HOME). A run that died is taken up where it stopped: studies stay claimed
until the gate has spoken, stages that finished are skipped by DVC, and a package that is registered is not registered
again.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import threading
import time
from pathlib import Path
from typing import Any

import pandas as pd
import prefect
import yaml
from dvc.repo import Repo
from prefect.runtime import flow_run
from rich.console import Console

from flows import known, lineage, parts
from flows.alone import alone
from flows.busy import watched
from flows.given import Given, giving
from flows.graph import StageNode, ordered
from flows.mended import mend
from flows.policy import IMPORTS, LEARNT
from flows.stage import StageRun, patiently, run_stage
from tasks.domain.errors import OsteoflowError, Refused, Unavailable
from tasks.ledger import Ledger
from tasks.store import tables
from tasks.store.digests import sha256_file
from tasks.store.items import Mapper

log = logging.getLogger("osteoflow.retrain")

BATCHES = Path("data/batches")


def run(force: bool = False, console: Console | None = None, mapper: Mapper | None = None) -> dict[str, Any]:
    """One run of the loop; returns what it did. Raises Unavailable when another run holds the lock."""
    with alone(), giving(mapper, console):
        # MLflow takes seconds to import; the stages do not need it, so it is read beside them.
        threading.Thread(target=lambda: __import__("flows.tracking"), daemon=True).start()
        return retrain(force)


@prefect.flow(name="retrain", persist_result=False)
def retrain(force: bool = False) -> dict[str, Any]:
    ledger = Ledger.open()
    last = ledger.last_run()
    died = last is not None and last["status"] != "finished"
    run_id = ledger.start_run()
    try:
        with giving() as given:
            result = _loop(ledger, force or died, given)
        model = str(result["version"]) if result.get("version") else None
        ledger.end_run(run_id, "finished", result["why"], lineage=result.get("lineage"), model=model)
        return result
    except BaseException as error:
        status = "refused" if isinstance(error, Refused) else "failed"
        ledger.end_run(run_id, status, f"{type(error).__name__}: {error}"[:300])
        raise


def _loop(ledger: Ledger, force: bool, given: Given) -> dict[str, Any]:
    started = time.perf_counter()
    mend(Path("."), (BATCHES, IMPORTS))
    batch = claim(ledger)
    waiting = ledger.batches(unfinished=True)
    imports = json.dumps(sorted(path.name for path in IMPORTS.iterdir() if path.is_dir()))
    learnt = imports == (ledger.recall(LEARNT) or "[]") and not annotated()
    if not waiting and not force and learnt and _judged():
        return {"why": "nothing new has arrived since the last run; --force runs all the same", "batch": None}
    repo = Repo(".")
    runs = [stage_task(node, repo, given) for node in ordered(repo)]
    known.forget_adopted()
    commit = lineage.commit(f"dataset run: {', '.join(waiting) or 'no new batch'}")

    from flows import promote, taint, tracking

    version = register(repo, commit, runs)
    for number, reason in taint.mark().items():
        given.say(f"[bold]{tracking.MODEL}/{number}[/] is tainted: {reason}")
    decision = promote.gate(version.number, given.mapper)
    settle_batch(ledger)
    ledger.remember(LEARNT, imports)
    report = publish(decision)
    given.say(f"[bold]{tracking.MODEL}/{version.number}[/]: {decision['decision']}: {decision['reason']}")
    return {
        "why": f"stages run: {', '.join(r.name for r in runs if r.ran) or 'none, all unchanged'}",
        "batch": batch,
        "lineage": commit,
        "version": version.number,
        "decision": decision,
        "seconds": {r.name: round(r.function_s, 2) for r in runs if r.ran},
        "overhead_s": {r.name: round(r.overhead_s, 2) for r in runs},
        "total_s": round(time.perf_counter() - started, 1),
        "report": str(report),
    }


# ---- claim ----------------------------------------------------------------------------------------------------------


def claim(ledger: Ledger) -> str | None:
    """Claim all complete studies into one batch and write the manifest of every batch that lacks one."""
    for folder in (BATCHES, IMPORTS):
        folder.mkdir(parents=True, exist_ok=True)
    last = max((int(path.stem.removeprefix("batch-")) for path in BATCHES.glob("batch-*.parquet")), default=0)
    batch = ledger.claim_batch(owner=f"{platform.node()}:{os.getpid()}", after=last)
    for name in ledger.batches():
        path = BATCHES / f"{name}.parquet"
        if not path.exists():
            tables.write("batch", path, pd.DataFrame(ledger.batch_rows(name)), sort_by=["commitment"])
            ledger.batch_written(name)
    add_inputs(Repo("."))
    return batch


def add_inputs(repo: Repo) -> None:
    """Put the manifests and imports under DVC: what a run was made of can be fetched again from the cache alone."""
    for folder in (BATCHES, IMPORTS):
        patiently(lambda folder=folder: repo.add([str(folder)]), repo)  # type: ignore[misc]


def annotated() -> bool:
    """Whether annotations came, or were corrected, that the last run has not seen."""
    kept, lock = IMPORTS.with_suffix(".dvc"), Path("dvc.lock")
    if not kept.exists() or not lock.exists():
        return False
    now = yaml.safe_load(kept.read_text())["outs"][0]["md5"]
    deps = (yaml.safe_load(lock.read_text()) or {}).get("stages", {}).get("annotate", {}).get("deps", [])
    return any(dep["path"] == str(IMPORTS) and dep.get("md5") != now for dep in deps)


def settle_batch(ledger: Ledger) -> None:
    """What the stages said of the claimed studies becomes the ledger's truth: done, or quarantined with the reason."""
    from tasks.anonymize import quarantined_keys

    for row_key, reason in quarantined_keys(ledger):
        ledger.quarantine(row_key, reason, "the anonymize stage would not release it")
    for name in ledger.batches(unfinished=True):
        ledger.finish_batch(name)


# ---- stages ---------------------------------------------------------------------------------------------------------


def stage_task(node: StageNode, repo: Repo, given: Given) -> StageRun:
    """One Prefect task a stage: named and retried as dvc.yaml's meta says.

    It carries no tag: for a tagged task Prefect asks its server for a concurrency slot, on a connection that has gone
    stale during the stage before, and that costs 2 s a stage. Two runs never meet here anyway (`alone`).
    """

    def body() -> StageRun:
        with watched(node.room, Path(".")):
            return run_stage(node.name, given.mapper, repo, before=lambda params: parts.spread(node, params))

    task = prefect.task(
        name=node.name, retries=node.retries, retry_condition_fn=_may_retry,
        description=f"{node.desc} (queue {node.queue})", persist_result=False,
    )  # fmt: skip
    try:
        done = task(body)()
    except Exception as error:
        _tell_of_death(node, error)
        raise
    given.say(f"  {node.name:<12} {f'{done.function_s:6.1f} s' if done.ran else 'unchanged'}")
    return done


def _tell_of_death(node: StageNode, error: Exception) -> None:
    """To MLflow, where the stage had told of its training; what MLflow says to that must not hide the error itself."""
    if not (Path("reports") / node.room / "run.jsonl").exists():
        return
    from flows import tracking

    try:
        tracking.died(node.room, type(error).__name__, Path("."))
    except Exception as silent:  # noqa: BLE001 - the store may be what is down
        log.warning("MLflow was not told that %s died: %s", node.name, type(silent).__name__)


def _may_retry(task: Any, run: Any, state: Any) -> bool:
    """A refusal or a wrong use stays what it is; a lock, a disk or a worker that died may be tried again."""
    try:
        state.result()
    except Unavailable:
        return True
    except OsteoflowError:
        return False
    except Exception:  # noqa: BLE001 - whatever else a stage died of is what retries are for
        return True
    return False


# ---- register and publish -------------------------------------------------------------------------------------------


def _judged() -> bool:
    """Whether the package that lies here is registered and the gate has spoken of it."""
    from flows import tracking
    from tasks.register import package_digest

    package = Path("models/package")
    if not (package / "package.json").exists():
        return False
    digest = package_digest(package)
    return any(v.digest == digest and ("gate" in v.tags or "champion" in v.aliases) for v in tracking.versions())


def register(repo: Repo, commit: str, runs: list[StageRun]) -> Any:
    """Mirror the training rooms to MLflow, register the package once, tag it with what it is made of."""
    from flows import tracking
    from tasks.register import package_digest, read_package

    package = Path("models/package")
    digest = package_digest(package)
    known = next((v for v in tracking.versions() if v.digest == digest), None)
    if known is not None:
        tracking.keep(package, known.number)
        return known
    tracking.close_dead()
    inputs = input_digests(repo)
    tags = {
        "lineage": commit,
        "prefect_run": str(flow_run.id or ""),
        "environment": environment_digest(),
        "inputs": json.dumps(inputs, sort_keys=True),
        "origin": read_package(package)["origin"],
    }
    parent = tracking.begin(f"dataset run {commit[:10]}", {"lineage": commit})
    try:
        for node in ordered(repo):
            tracking.mirror(node.room, parent, Path("."))
        version = tracking.register(package, digest, parent, inputs, tags)
    except BaseException:
        tracking.end(parent, "FAILED")
        raise
    tracking.end(parent)
    tracking.keep(package, version.number)
    return version


def input_digests(repo: Repo) -> dict[str, str]:
    """DVC's digest of everything under data/ that the stages read or wrote, by path."""
    found: dict[str, str] = {}
    for stage in repo.index.stages:
        for out in stage.outs:
            if out.hash_info and str(out.def_path).startswith("data/"):
                found[str(out.def_path)] = str(out.hash_info.value)
    return found


def environment_digest() -> str:
    lock = Path("requirements.lock")
    return sha256_file(lock) if lock.exists() else "unlocked"


def publish(decision: dict[str, Any]) -> Path:
    """The HTML report and the audit site, from plain facts."""
    from flows.facts import report_facts
    from tasks.publish import report, site

    facts = report_facts(decision)
    out = Path("reports/report.html")
    report(facts, out)
    site(facts, Path("reports/site"))
    return out
