"""The real `osteoflow serve` under kill -9 (tests/support/outages.py), and faults by hand that the verdict must see.

BENCH_OUTAGE_KILLS: how many (5). With 20 or more also: Prefect's database deleted while its server runs and while it
does not, the ledger restored from before, DVC's files half written, and runs that died told by their heartbeat.
Seconds depend on the machine; what counts is lost 0, doubled 0, fine true.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from outages import Hospital, Killer, Serve

KILLS = int(os.environ.get("BENCH_OUTAGE_KILLS", "5"))
SEED = int(os.environ.get("BENCH_SEED", "4"))
WHOLE = 20
"""From so many kills on the long form."""
PACE_S = (1.0, 8.0)
"""Between two kills."""


def run() -> dict[str, Any]:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
    place = Path(tempfile.mkdtemp(dir=os.environ.get("BENCH_PLACE")))
    try:
        found = outage(place)
    finally:
        if not os.environ.get("BENCH_PLACE"):
            shutil.rmtree(place, ignore_errors=True)
    return found


def outage(place: Path) -> dict[str, Any]:
    from outages import Killer, Scanner, Serve, build, drop

    whole, clock = KILLS >= WHOLE, Clock()
    hospital = build(place, SEED, patients=6, studies=16 if whole else 8)
    *early, second, late = hospital.studies.values()
    clock("build")
    serve = Serve(hospital)
    clock("serve up")
    scanner = Scanner(hospital, early, seconds=KILLS * sum(PACE_S) / 2, seed=SEED)
    killer, said = Killer(serve, random.Random(SEED)), Said(hospital)
    found: dict[str, Any] = {}
    try:
        scanner.start()
        for number in range(KILLS):
            killer.watch(killer.dice.uniform(*PACE_S))
            if whole and number == KILLS // 2:
                back_up(hospital, place / "before.sqlite")
            if whole and number % 10 == 5:
                said.ask()
            killer.strike()
        clock("kills")
        killer.until(lambda: not scanner.is_alive(), "everything to be acknowledged")
        killer.until(lambda: at_rest(hospital, len(early)), "every study to have been through the arrival loop")
        clock("arrived")
        killer.until(lambda: all(one.back for one in killer.killed), "everything killed to be back")
        clock("back")
        print(f"      {killer.by_role()}", flush=True)
        if whole:
            found["crashed after"] = crashed_runs(hospital, serve, killer, second)
            clock("crashed runs")
            found["without its database"] = without_database(hospital, killer, late)
            clock("without its database")
            found["left alive"] = serve.stop()
            found["damage"] = damage(hospital, place / "before.sqlite")
            killer.serve = serve = Serve(hospital)
            clock("serve up after damage")
        else:
            drop(hospital.inbox, second + late)
        killer.until(lambda: at_rest(hospital, len(hospital.studies)), "every study to be known")
        found["last run"] = forced(hospital, killer)
        clock("retrain")
        said.ask(serve)
        found["left alive"] = [*found.get("left alive", []), *serve.stop()]
    finally:
        serve.stop()
    verdict = judge(hospital, scanner.acknowledged | sops(second + late))
    controls = {name: control(hospital, fault) for name, fault in faults(hospital).items()}
    clock("verdict")
    sent = sum(map(len, hospital.studies.values()))
    whole_truth = verdict["acknowledged"] == sent and not found["left alive"] and not said.untrue
    return {
        "fine": fine(verdict) and whole_truth and set(controls.values()) == {"seen"},
        "kills": len(killer.killed), "by role": killer.by_role(), "serve ended by itself": serve.ended,
        "studies": len(hospital.studies), "studies by door": scanner.studies_by, "files sent": sent,
        "sent again after a cut": scanner.again, **verdict,
        "status asked": said.asked, "status untrue": said.untrue, **found,
        "controls": controls, "seconds": clock.laps, "load": [round(x, 1) for x in os.getloadavg()],
    }  # fmt: skip


class Clock:
    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self.last = time.monotonic()

    def __call__(self, name: str) -> None:
        self.laps[name], self.last = round(time.monotonic() - self.last, 1), time.monotonic()
        print(f"      {name}: {self.laps[name]} s", flush=True)


# ---- what may happen besides ----------------------------------------------------------------------------------------


def remove_prefect(hospital: Hospital) -> list[str]:
    gone = sorted((hospital.home / "prefect").glob("prefect.db*"))
    for path in gone:
        path.unlink(missing_ok=True)
    return [path.name for path in gone]


def back_up(hospital: Hospital, target: Path) -> None:
    ledger = hospital.home / "identified" / "ledger.sqlite"
    with contextlib.closing(sqlite3.connect(ledger, timeout=60)) as base:
        with contextlib.closing(sqlite3.connect(target)) as copy:
            base.backup(copy)


def damage(hospital: Hospital, backup: Path) -> list[str]:
    """While nothing runs: Prefect's database is gone, the ledger is the one of before, DVC's files are half written."""
    done = remove_prefect(hospital)
    for path in (hospital.home / "identified").glob("ledger.sqlite*"):
        path.unlink()
    shutil.copyfile(backup, hospital.home / "identified" / "ledger.sqlite")
    done.append("the ledger of before")
    lock = hospital.workspace / "dvc.lock"
    if lock.exists():
        lock.write_bytes(lock.read_bytes()[: lock.stat().st_size // 2])
        done.append("half a dvc.lock")
    (hospital.workspace / ".dvc" / "tmp").mkdir(parents=True, exist_ok=True)
    (hospital.workspace / ".dvc" / "tmp" / "rwlock").write_text('{"cut": ')
    return [*done, "half a rwlock"]


def at_rest(hospital: Hospital, studies: int) -> bool:
    """Whether each of the `studies` is known to the ledger and has been through the arrival loop."""
    rested = "sum(arrived_at is not null or state in ('done', 'quarantined'))"
    return hospital.ledger(f"select count(*), {rested} from studies where current") == [(studies, studies)]


def busy(hospital: Hospital) -> bool:
    """Whether a dataset run goes on: the ledger still says so of one that was killed."""
    from flows.supervise import held

    return held(hospital.home / "retrain.lock")


def forced(hospital: Hospital, killer: Killer) -> str:
    """The deployment `retrain`, asked for until a run that began since has finished; what it did."""
    from outages import PATIENCE_S

    since, words = time.time(), "select why from runs where status = 'finished' and started > {}"
    asked = 0.0

    def finished() -> bool:
        nonlocal asked
        if not busy(hospital) and time.time() - asked > 60:
            ask_for(hospital, "retrain")
            asked = time.time()
        return bool(hospital.ledger(words.format(since)))

    killer.until(finished, "retrain --force to finish", 2 * PATIENCE_S)
    return str(hospital.ledger(words.format(since))[0][0])


def without_database(hospital: Hospital, killer: Killer, paths: list[Path]) -> dict[str, float]:
    """Prefect's database is deleted under its running server: seconds until a study that comes then has been through
    the arrival loop, and until a run by schedule has begun again."""
    from outages import drop

    known = hospital.ledger("select count(*) from studies where current")[0][0]
    killer.until(lambda: not busy(hospital), "the dataset loop to rest")
    at = time.time()
    remove_prefect(hospital)
    drop(hospital.inbox, paths)
    arrived = killer.until(lambda: at_rest(hospital, known + 1), "a study while there is no database")

    def scheduled() -> bool:
        runs = hospital.prefect("flow_runs/filter", {"limit": 200}) or []
        starts = [
            datetime.fromisoformat(run["start_time"]) for run in runs if run["start_time"] and run["deployment_id"]
        ]
        return any(start.timestamp() > at for start in starts) and has_database(hospital)

    again = arrived + killer.until(scheduled, "a run by schedule in a new database")
    return {"a study arrived": round(arrived, 1), "a run by schedule": round(again, 1)}


def has_database(hospital: Hospital) -> bool:
    path = hospital.home / "prefect" / "prefect.db"
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as base,
    ):
        return bool(base.execute("select count(*) from deployment").fetchone()[0])
    return False


def crashed_runs(hospital: Hospital, serve: Serve, killer: Killer, paths: list[Path]) -> dict[str, float]:
    """Seconds until Prefect says that a run has crashed whose process was killed: alone, together with the runner that
    would have told it, or with the resident worker, which has no runner."""
    from outages import PATIENCE_S, ROLES, drop, wait

    seconds = {}
    for name in ("run", "run and runner", "worker"):
        killer.until(lambda: all(serve.answers(role, 0.0) for role in ROLES), "everything to be up")
        killer.until(lambda: not busy(hospital), "the dataset loop to rest")
        children = {child: int(one["pid"]) for child, one in serve.state()["children"].items()}
        if name == "worker":
            drop(hospital.inbox, paths)
            wait(lambda: running(hospital, "arrive"), PATIENCE_S, "a run of arrive")
            run = running(hospital, "arrive")[0]["id"]
            os.killpg(children["worker"], signal.SIGKILL)
        else:
            run = ask_for(hospital, "retrain")
            wait(lambda run=run: state(hospital, run) == "Running", PATIENCE_S, "the run to begin")  # type: ignore[misc]
            time.sleep(3.0)
            if name == "run":
                os.kill(process_of(run, children["deployments"]), signal.SIGKILL)
            else:
                os.killpg(children["deployments"], signal.SIGKILL)
        crashed = killer.until(lambda run=run: state(hospital, run) == "Crashed", f"{name} to be Crashed")  # type: ignore[misc]
        seconds[name] = round(crashed, 1)
        print(f"      {name}: Crashed after {seconds[name]} s", flush=True)
    return seconds


def running(hospital: Hospital, flow: str) -> list[dict[str, Any]]:
    body = {"flows": {"name": {"any_": [flow]}}, "flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}}}
    return hospital.prefect("flow_runs/filter", body) or []


def state(hospital: Hospital, run: str) -> str:
    return str((hospital.prefect(f"flow_runs/{run}") or {}).get("state_name"))


def process_of(run: str, runner: int) -> int:
    """The process of a flow run, below the runner: it is told its run by the environment."""
    from outages import below, processes

    wanted = f"PREFECT__FLOW_RUN_ID={run}".encode()
    return next(pid for pid in below(runner, processes()) if wanted in Path(f"/proc/{pid}/environ").read_bytes())


def ask_for(hospital: Hospital, deployment: str) -> str:
    """A run of a deployment, by hand; its id. A server that has just been started takes its time to answer."""
    from outages import PATIENCE_S, wait

    made: list[str] = []
    body = {"state": {"type": "SCHEDULED"}}

    def asked() -> bool:
        known = hospital.prefect("deployments/filter", {"deployments": {"name": {"any_": [deployment]}}})
        run = known and hospital.prefect(f"deployments/{known[0]['id']}/create_flow_run", body)
        made.extend([str(run["id"])] if run else [])
        return bool(made)

    wait(asked, PATIENCE_S, f"Prefect to take a run of {deployment}")
    return made[0]


class Said:
    """What `osteoflow status` says while everything dies, held against the ledger just before and just after."""

    def __init__(self, hospital: Hospital) -> None:
        self.hospital, self.asked = hospital, 0
        self.untrue: list[str] = []
        self.threads: list[threading.Thread] = []

    def ask(self, serve: Serve | None = None) -> None:
        """Beside the killing; with `serve` at once, and what it says of its children too."""
        self.asked += 1
        if serve is None:
            self.threads.append(threading.Thread(target=self._compare, daemon=True))
            self.threads[-1].start()
            return
        for thread in self.threads:
            thread.join()
        found = self._compare()
        dead = {name: words for name, words in found["serving"].items() if not words.startswith("up")}
        self.untrue += [f"{name} is {words}" for name, words in dead.items()]

    def _compare(self) -> dict[str, Any]:
        before = self.hospital.counts()
        found: dict[str, Any] = json.loads(self.hospital.osteoflow("status", "--json"))
        after = self.hospital.counts()
        # Between the two moments a state may have been filled from one side and emptied to the other.
        moved = before != after
        low, high = sum(before.values()), sum(after.values())
        if not low <= sum(found["studies"].values()) <= high or (not moved and found["studies"] != before):
            self.untrue.append(f"{found['studies']} between {before} and {after}")
        return found


# ---- the verdict ----------------------------------------------------------------------------------------------------


def judge(hospital: Hospital, acknowledged: set[str]) -> dict[str, Any]:
    """What is lost or doubled, by the ledger, by the archives' bytes, by DVC and by `verify`."""
    lost: list[str] = []
    current = hospital.ledger("select row_key, study_uid, n_files, state from studies where current = 1")
    versions = {key: (uid, files, state) for key, uid, files, state in current}
    held = [uid for uid, key in hospital.ledger("select sop_uid, row_key from files") if key in versions]
    reasons = dict(hospital.ledger("select row_key, reason from quarantine where row_key is not null"))
    lost += [f"file {uid}" for uid in sorted(acknowledged - set(held))]
    doubled = [f"file {uid}" for uid, count in Counter(held).items() if count > 1]
    done = 0
    quarantined: Counter[str] = Counter()
    for uid, paths in hospital.studies.items():
        mine = [(key, files, state) for key, (study, files, state) in versions.items() if study == uid]
        if [state for _, _, state in mine] == ["done"] and mine[0][1] == len(paths):
            done += 1
        elif len(mine) == 1 and mine[0][2] == "quarantined" and reasons.get(mine[0][0]):
            quarantined[reasons[mine[0][0]]] += 1
        else:
            lost.append(f"a study of {len(paths)} files: {[(files, state) for _, files, state in mine]}")
    table = pd.read_parquet(hospital.workspace / "data" / "studies.parquet")
    released = table[table["status"] == "released"]
    doubled += [f"study {study}" for study in released["study"][released["study"].duplicated()]]
    if len(released) != done:
        lost.append(f"{len(released)} studies are released, {done} are done")
    for row in released.itertuples():
        if not sound(hospital.workspace / "data" / "studies" / str(row.owns), int(float(str(row.files)))):
            lost.append("an archive does not hold what its row says")
    ends = hospital.ledger("select status, why from runs order by number")
    model = hospital.ledger("select model from runs where model is not null order by number desc limit 1")[0][0]
    verified = hospital.osteoflow("verify", f"model:onfh-progression/{model}", "--json", code=None)
    return {
        "acknowledged": len(acknowledged), "done": done, "quarantined": dict(quarantined),
        "lost": len(lost), "doubled": len(doubled), "first lost or doubled": (lost + doubled)[:3],
        "dataset runs": dict(Counter(status for status, _ in ends)),
        "runs that failed": [why[:160] for status, why in ends if status == "failed"],
        "dvc status": hospital.command(sys.executable, "-m", "dvc", "status", code=None).strip()[-300:],
        "verify differences": len(json.loads(verified)["differences"]) if verified.strip() else -1,
    }  # fmt: skip


def fine(verdict: dict[str, Any]) -> bool:
    counted = verdict["lost"] == verdict["doubled"] == verdict["verify differences"] == 0
    return counted and "up to date" in verdict["dvc status"]


def sound(archive: Path, files: int) -> bool:
    try:
        with zipfile.ZipFile(archive) as whole:
            names = whole.namelist()
            return whole.testzip() is None and len(set(names)) == len(names) == files
    except (OSError, zipfile.BadZipFile):
        return False


def sops(paths: list[Path]) -> set[str]:
    from pydicom import dcmread

    return {str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in paths}


# ---- the controls ---------------------------------------------------------------------------------------------------


def control(hospital: Hospital, fault: Callable[[], Callable[[], None]]) -> str:
    """Whether the verdict sees what must not be."""
    undo = fault()
    try:
        return "NOT SEEN" if fine(judge(hospital, set())) else "seen"
    finally:
        undo()


def faults(hospital: Hospital) -> dict[str, Callable[[], Callable[[], None]]]:
    """Each does a wrong by hand and returns what undoes it."""
    data = hospital.workspace / "data"

    def truncated() -> Callable[[], None]:
        path = min((data / "studies").rglob("*.zip"))
        return replaced(path, path.read_bytes()[:-4000])

    def doubled() -> Callable[[], None]:
        path = data / "studies.parquet"
        frame = pd.read_parquet(path)
        twice = path.with_name("twice.parquet")
        pd.concat([frame, frame[:1]]).to_parquet(twice)
        changed = twice.read_bytes()
        twice.unlink()
        return replaced(path, changed)

    return {"an archive is cut short": truncated, "a row is there twice": doubled}


def replaced(path: Path, data: bytes) -> Callable[[], None]:
    """A new file in its place: DVC's cache may be the same file by another name."""
    kept = path.read_bytes()

    def put(these: bytes) -> None:
        partial = path.with_name(f"{path.name}.part")
        partial.write_bytes(these)
        shutil.move(partial, path)

    put(data)
    return lambda: put(kept)
