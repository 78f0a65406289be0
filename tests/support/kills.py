"""kill -9 at random moments while studies arrive: receiver, arrival worker, dataset run; then what became of each file.

A scanner (which is never killed) sends files in a shuffled order and sends again what was not acknowledged. The roles
are the room's and the ledger's own code in processes of their own; each victim is started again at once. The flows
themselves are not killed here: tests/flows says what becomes of a run and of an arrival that die.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import socket
import threading
import time
import traceback
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FORK = multiprocessing.get_context("forkserver")
PRELOAD = ["kills", "tasks.receive.scp", "tasks.anonymize.stage", "tasks.ledger", "dicom_files", "pandas"]
QUIET_S, GIVE_UP_S = 0.5, 120.0
LAST_WORDS = "last_words.txt"


@dataclass
class Report:
    kills: dict[str, int]
    sent: int
    acknowledged: int
    lost: list[str] = field(default_factory=list)
    """Acknowledged files that no current version holds, and studies that no archive holds whole."""
    doubled: list[str] = field(default_factory=list)
    studies: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0


def harness(seed: int, kills: int, studies: int, files: int) -> Report:
    """In the current folder and OSTEOFLOW_HOME."""
    from tasks.ledger import Ledger

    started = time.monotonic()
    dice = random.Random(seed)
    port = _port()
    Path("data/batches").mkdir(parents=True)
    acks = Path("acks").resolve()
    FORK.set_forkserver_preload(PRELOAD)
    Ledger.open().close()
    roles: dict[str, Any] = {"receiver": receiver, "worker": worker, "run": run}
    spawn = {name: lambda role=role: _start(role, port) for name, role in roles.items()}
    alive = {name: start() for name, start in spawn.items()}
    scanner = FORK.Process(target=scan, args=(port, seed, studies, files, str(acks)), daemon=True)
    scanner.start()
    died = dict.fromkeys(roles, 0)
    try:
        for _ in range(kills):
            time.sleep(dice.uniform(0.02, 0.35))
            victim = dice.choice(sorted(roles))
            _all_alive(alive)
            os.kill(alive[victim].pid, signal.SIGKILL)
            alive[victim].join()
            died[victim] += 1
            alive[victim] = spawn[victim]()
        scanner.join(GIVE_UP_S)
        with Ledger.open() as ledger:
            deadline = time.monotonic() + GIVE_UP_S
            while time.monotonic() < deadline:
                counts = ledger.counts()
                if counts["done"] + counts["quarantined"] == studies == sum(counts.values()):
                    break
                time.sleep(0.1)
            _all_alive(alive)
            for process in alive.values():
                process.kill()
                process.join()
            report = Report(died, studies * files, 0, studies=ledger.counts())
            _judge(ledger, acks, studies, files, report)
    finally:
        for process in [*alive.values(), scanner]:
            process.kill()
            process.join()
    report.seconds = round(time.monotonic() - started, 1)
    return report


def _port() -> int:
    """A free one that no outgoing connection is given while the receiver that had it is dead (below 32768 in Linux)."""
    while True:
        port = random.SystemRandom().randrange(20000, 32000)  # not the seed's: two harnesses may run at once
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _start(role: Any, port: int) -> Any:
    # A fork server that was started earlier has the surroundings of that time: they are given with the role.
    process = FORK.Process(
        target=_enter, args=(role, port, str(Path.cwd()), os.environ.get("OSTEOFLOW_HOME")), daemon=True
    )
    process.start()
    return process


def _enter(role: Any, port: int, place: str, home: str | None) -> None:
    os.chdir(place)
    os.environ["OSTEOFLOW_HOME"] = home or ".osteoflow"
    os.environ.pop("OSTEOFLOW_LEDGER_URL", None)
    from tasks.store.mapping import end_with_parent

    threading.Thread(target=end_with_parent, daemon=True).start()  # a harness that is killed leaves nothing behind
    try:
        role(port)
    except BaseException:
        Path(LAST_WORDS).write_text(traceback.format_exc(), encoding="utf-8")
        raise


def _all_alive(alive: dict[str, Any]) -> None:
    for name, process in alive.items():
        if not process.is_alive():
            words = Path(LAST_WORDS).read_text(encoding="utf-8") if Path(LAST_WORDS).exists() else ""
            raise AssertionError(f"the {name} died by itself, with exit code {process.exitcode}: {words}")


# ---- the roles ------------------------------------------------------------------------------------------------------


def params() -> Any:
    from tasks.receive import Params

    return Params(
        quiet_seconds=QUIET_S, incomplete_after_seconds=9e9, gap_tolerance=0.5, stable_seconds=0, poll_seconds=1,
        max_member_mb=10, max_associations=8, disk_reserve_mb=1, dicomweb_days=1, keep_originals_days=None,
    )  # fmt: skip


def receiver(port: int) -> None:
    from tasks.domain.errors import Unavailable
    from tasks.domain.settings import Settings
    from tasks.ledger import Ledger
    from tasks.receive.scp import serving

    ledger = Ledger.open()
    while True:
        try:
            with serving(ledger, params(), Settings(dicom_port=port)):
                time.sleep(1e6)
        except Unavailable:
            time.sleep(0.05)  # the port of the one that was killed is not free yet


def worker(_: int) -> None:
    from tasks import anonymize
    from tasks.domain.params import load
    from tasks.ledger import Ledger
    from tasks.receive import settle
    from tasks.store import items

    ledger, policy = Ledger.open(), params()
    settings = load("anonymize", anonymize.Params, _params_yaml())
    while True:
        settle(ledger, policy)
        for version in ledger.lease(limit=4, owner=f"worker:{os.getpid()}", seconds=1.0):
            rows, _ = items.arrive("anonymize", anonymize.item_of(version), anonymize.process, settings)
            if rows[0]["status"] == "quarantined":
                ledger.quarantine(version.row_key, rows[0]["reason"])
            else:
                ledger.mark_arrived(version.row_key)
        time.sleep(0.02)


def run(_: int) -> None:
    """The dataset loop as far as it decides about studies: claim, manifest, the stage anonymize, finish."""
    import pandas as pd

    from tasks.anonymize import Params, quarantined_keys
    from tasks.anonymize.stage import BATCHES
    from tasks.anonymize.stage import run as stage
    from tasks.domain.params import load
    from tasks.ledger import Ledger
    from tasks.store import tables

    ledger, settings = Ledger.open(), load("anonymize", Params, _params_yaml())
    while True:
        last = max((int(path.stem.removeprefix("batch-")) for path in BATCHES.glob("batch-*.parquet")), default=0)
        ledger.claim_batch(f"run:{os.getpid()}", last)
        for name in ledger.batches():
            path = BATCHES / f"{name}.parquet"
            if not path.exists():
                tables.write("batch", path, pd.DataFrame(ledger.batch_rows(name)), sort_by=["commitment"])
                ledger.batch_written(name)
        if unfinished := ledger.batches(unfinished=True):
            stage(settings, map)
            for row_key, reason in quarantined_keys(ledger):
                ledger.quarantine(row_key, reason)
            for name in unfinished:
                ledger.finish_batch(name)
        time.sleep(0.05)


def scan(port: int, seed: int, studies: int, files: int, acks: str) -> None:
    """Send everything, again and again until acknowledged; each acknowledgement is a line."""
    import sys

    from dicom_files import dataset
    from scanner import send

    from tasks.store.mapping import end_with_parent

    threading.Thread(target=end_with_parent, daemon=True).start()
    todo = [(study, number) for study in range(studies) for number in range(1, files + 1)]
    random.Random(seed).shuffle(todo)
    todo.sort(key=lambda one: one[0] // 4)  # a few studies at a time, their slices mixed
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - pynetdicom's words about connections that were cut
    datasets = [dataset(f"1.9.{study + 1}", number=number, patient=f"P{study}") for study, number in todo]
    with open(acks, "a", encoding="ascii") as kept:
        send(port, datasets, lambda one: print(one.SOPInstanceUID, file=kept, flush=True), seconds=3, again_s=0.05,
             between_s=0.004)  # fmt: skip


def _params_yaml() -> dict[str, Any]:
    import yaml

    root = Path(__file__).resolve().parents[2]
    return yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))


# ---- the verdict ----------------------------------------------------------------------------------------------------


def _judge(ledger: Any, acks: Path, studies: int, files: int, report: Report) -> None:
    acknowledged = set(acks.read_text(encoding="ascii").split())
    report.acknowledged = len(acknowledged)
    held: dict[str, int] = {}
    for version in ledger.current():
        for file in version.files:
            held[file.sop_uid] = held.get(file.sop_uid, 0) + 1
    report.lost += sorted(acknowledged - held.keys())
    report.doubled += sorted(uid for uid, count in held.items() if count > 1)
    for study in range(1, studies + 1):
        versions = [version for version in ledger.find(f"1.9.{study}") if version.current]
        if len(versions) != 1 or versions[0].n_files != files or versions[0].state != "done":
            report.lost.append(f"study {study}: {[(v.state, v.n_files) for v in versions]}")
    from tasks.store import tables

    table = tables.read("studies", Path("data/studies.parquet"))
    released = table[table["status"] == "released"]
    report.doubled += sorted(released["study"][released["study"].duplicated()])
    if len(released) != studies:
        report.lost.append(f"{len(released)} of {studies} studies are released")
    for archive in released["owns"]:
        with zipfile.ZipFile(Path("data/studies") / archive) as whole:
            names = whole.namelist()
            if whole.testzip() is not None or len(names) != files or len(set(names)) != files:
                report.lost.append(f"archive of {len(names)} files")
