"""kill -9 at random moments of the real `osteoflow serve`, with studies arriving; then what became of each of them.

A scanner that is never killed sends what it has until it is acknowledged: study by study by C-STORE (pynetdicom, and
dcmtk's dcmsend where there is one) and by the watched folder. Victims: receiver, worker, Prefect's server, the runner
of the deployments, the process of a dataset run, processes below that and below the worker, and serve itself, which is
started again as systemd would. bench/outage.py tells the story and counts: every study is once in the dataset or in
quarantine with a reason.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 600.0
"""For anything to come to rest; a loaded machine is slow."""
ENGINE = "prefect.engine"
"""In the command line of the process that Prefect's runner starts for a flow run."""
WATCH_S = 45
"""Between two looks of the deployment that starts the dataset loop: the schedule of infra/prefect.yaml, cut down."""
ROLES = ("receiver", "worker", "prefect", "deployments")
STATES = ("receiving", "complete", "claimed", "done", "quarantined")
TINY: dict[str, Any] = {
    "receive": {"quiet_seconds": 2.0, "poll_seconds": 0.2, "stable_seconds": 0.2},
    "retrain": {"min_new_hips": 4, "cool_down_hours": 0.0},
    "split": {"folds": 2},
    "standardize": {"sheets": False, "align": {"enabled": False}},
    "annotate": {"agreement": {"bootstrap": 10}},
    "compare": {"networks": ["mobilenet_v3_small"], "size_px": 32, "slices": 2, "bootstrap": 20},
    "classify": {"network": "mobilenet_v3_small", "size_px": 32, "slices": 2, "bootstrap": 20, "width": 32,
                 "reduced": 16, "warm_epochs": 1},
    "segment": {"network": "mobilenet_v3_small", "bootstrap": 20,
                "hip": {"size_px": 48, "slices": 2, "width": 32, "warm_epochs": 1},
                "vessel": {"width": 8, "slabs": 1, "warm_epochs": 1}},
    "measure": {"repeats": 1},
    "effect": {"resamples": 20, "redraws": 0},
    "forecast": {"epochs": 3, "ridge": [10], "inner_folds": 2, "resamples": 3, "metric_resamples": 20,
                 "leave_vendor_out": False},
    "evaluate": {"resamples": 100, "explain_hips": 0},
    "promote": {"bootstrap": 20},
}  # fmt: skip
RECIPE = {"epochs": 1, "batch": 8, "settle": 1, "ema": 0, "checkpoint_steps": 2}


@dataclass
class Hospital:
    """A workspace of its own, the studies that its scanner has, and the surroundings that its commands run in."""

    workspace: Path
    studies: dict[str, list[Path]]
    """StudyInstanceUID -> files."""
    environment: dict[str, str]

    @property
    def home(self) -> Path:
        return self.workspace / ".osteoflow"

    @property
    def inbox(self) -> Path:
        return self.home / "identified" / "inbox"

    @property
    def dicom_port(self) -> int:
        return int(self.environment["OSTEOFLOW_DICOM_PORT"])

    def osteoflow(self, *words: str, code: int | None = 0) -> str:
        return self.command(sys.executable, "-m", "flows.cli", *words, code=code)

    def command(self, *words: str, code: int | None = 0) -> str:
        done = subprocess.run(
            words, cwd=self.workspace, env=self.environment, capture_output=True, text=True, check=False
        )
        if code is not None and done.returncode != code:
            raise AssertionError(f"{words[-3:]}: {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
        return done.stdout

    def ledger(self, query: str) -> list[tuple[Any, ...]]:
        path = self.home / "identified" / "ledger.sqlite"
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=60)) as base:
            return base.execute(query).fetchall()

    def counts(self) -> dict[str, int]:
        found = dict(self.ledger("select state, count(*) from studies where current = 1 group by state"))
        return {state: int(found.get(state, 0)) for state in STATES}

    def prefect(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """What Prefect's server says; None while it is silent."""
        address = f"http://127.0.0.1:{self.environment['OSTEOFLOW_PREFECT_PORT']}/api/{path}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(address, data, {"Content-Type": "application/json"})
        with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)
        return None


def build(place: Path, seed: int, patients: int, studies: int) -> Hospital:
    """A workspace with the smallest training there is, and a cohort of small phantoms."""
    from flows.demo import make_workspace
    from tasks.domain.params import lay_over
    from tasks.phantom import write_cohort

    workspace = make_workspace(ROOT, place / "workspace", seed)
    params = yaml.safe_load((workspace / "params.yaml").read_text(encoding="utf-8"))
    lay_over(params, TINY)
    for section in (params["compare"], params["classify"], params["segment"]["hip"], params["segment"]["vessel"]):
        section["recipe"] |= RECIPE
    (workspace / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    schedules = workspace / "infra" / "prefect.yaml"
    declared = yaml.safe_load(schedules.read_text(encoding="utf-8"))
    for deployment in declared["deployments"]:
        if deployment["name"] == "watch":
            deployment["schedules"] = [{"interval": WATCH_S}]
    schedules.write_text(yaml.safe_dump(declared), encoding="utf-8")
    cohort = place / "cohort"
    write_cohort(cohort, patients=patients, seed=seed, matrix=2.0)
    ports = {name: str(port) for name, port in zip(("DICOM", "PREFECT", "MLFLOW", "HTTP"), free_ports(4), strict=True)}
    dropped = ("OSTEOFLOW_", "PREFECT_", "MLFLOW_", "DVC_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    environment |= {f"OSTEOFLOW_{name}_PORT": port for name, port in ports.items()}
    environment |= {"OSTEOFLOW_ORIGIN": "phantom", "DVC_NO_ANALYTICS": "1", "PYTHONPATH": str(workspace)}
    hospital = Hospital(workspace, _studies(cohort / "dicom", studies), environment)
    hospital.osteoflow("annotate", str(cohort / "annotations"), "--origin", "phantom")
    return hospital


def _studies(folder: Path, wanted: int) -> dict[str, list[Path]]:
    """The first `wanted` by the day on which they were made: patients come in turn."""
    from pydicom import dcmread

    found: dict[str, list[Path]] = {}
    days: dict[str, str] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        header = dcmread(path, specific_tags=["StudyInstanceUID", "StudyDate"], stop_before_pixels=True)
        found.setdefault(str(header.StudyInstanceUID), []).append(path)
        days.setdefault(str(header.StudyInstanceUID), str(header.StudyDate))
    return {uid: found[uid] for uid in sorted(found, key=lambda uid: (days[uid], uid))[:wanted]}


def free_ports(count: int) -> list[int]:
    """Below 32768, where no outgoing connection of Linux is given one while the server that had it is dead."""
    dice, found = random.SystemRandom(), []
    while len(found) < count:
        port = dice.randrange(20000, 32000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found += [port] if port not in found else []
    return found


# ---- serve and its processes ----------------------------------------------------------------------------------------


class Serve:
    """`osteoflow serve` in a workspace: started, looked into, killed, ended by Ctrl-C."""

    def __init__(self, hospital: Hospital) -> None:
        self.hospital, self.ended = hospital, 0
        self.start()
        wait(lambda: all(self.answers(role, 0.0) for role in ROLES), PATIENCE_S, "serve to be up")

    def start(self) -> None:
        with open(self.hospital.home / "serve.log", "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "flows.cli", "serve"], cwd=self.hospital.workspace,
                env=self.hospital.environment, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def keep(self) -> None:
        """Start it again if it ended by itself, as systemd would."""
        if self.process.poll() is not None:
            self.ended += 1
            self.start()

    def state(self) -> dict[str, Any]:
        with contextlib.suppress(OSError, ValueError):
            state: dict[str, Any] = json.loads((self.hospital.home / "serve.json").read_text(encoding="utf-8"))
            if state["pid"] == self.process.pid:
                return state
        return {}

    def victims(self) -> dict[str, int]:
        """What may be killed now: serve, each role's process, a process of the worker's pool, a process that runs a
        dataset flow, and one below that."""
        children = self.state().get("children", {})
        found = {name: one["pid"] for name, one in children.items() if name in ROLES and not one["waiting"]}
        table = processes()
        runs = [pid for pid in below(found.get("deployments", -1), table) if ENGINE in table[pid][1]]
        if runs:
            found["run"] = runs[0]
            work = [pid for pid in below(runs[0], table) if "forkserver" in table[pid][1]]
            found |= {"child": work[-1]} if work else {}
        pool = [pid for pid in below(found.get("worker", -1), table) if "forkserver" in table[pid][1]]
        found |= {"pool": pool[-1]} if pool else {}
        return {name: pid for name, pid in found.items() if pid in table} | {"serve": self.process.pid}

    def answers(self, role: str, since: float) -> bool:
        """Whether a process of `role` that began after `since` does its work."""
        hospital = self.hospital
        if role == "receiver":
            with socket.socket() as probe:
                probe.settimeout(2)
                return probe.connect_ex(("127.0.0.1", hospital.dicom_port)) == 0
        if role == "prefect":
            return hospital.prefect("health") is not None
        if role == "serve":
            return all(self.answers(one, since) for one in ROLES)
        if role == "pool":
            # Its worker goes on: what waited has been done, or something was done since.
            waiting = "current and state = 'complete' and arrived_at is null"
            done = hospital.ledger(f"select 1 from studies where arrived_at > {since}")
            return bool(done) or not hospital.ledger(f"select 1 from studies where {waiting}")
        if role in ("run", "child"):
            # The next run goes on where that one stopped; a child that died may be tried again by its own run.
            return bool(hospital.ledger(f"select 1 from runs where started > {since} or ended > {since}"))
        with contextlib.suppress(OSError):
            return (hospital.home / f"{role}.up").stat().st_mtime > since
        return False

    def stop(self) -> list[str]:
        """Ctrl-C; returns what is still alive of all that it ever started."""
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGINT)
        self.process.wait(60)
        time.sleep(2.0)
        here = str(self.hospital.workspace)
        return [command for pid, (_, command) in processes().items() if _place(pid) == here]


def processes() -> dict[int, tuple[int, str]]:
    """pid -> (parent, command line) of everything that runs."""
    found = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, IndexError):
            if entry.name.isdigit():
                after = (entry / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if after[0] != "Z":
                    found[int(entry.name)] = (int(after[1]), command)
    return found


def below(pid: int, table: dict[int, tuple[int, str]]) -> list[int]:
    children = [one for one, (parent, _) in table.items() if parent == pid]
    return children + [deeper for child in children for deeper in below(child, table)]


def _place(pid: int) -> str:
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/{pid}/cwd")
    return ""


def wait(what: Callable[[], object], seconds: float, name: str) -> float:
    started = time.monotonic()
    while not what():
        if time.monotonic() - started > seconds:
            raise AssertionError(f"waited {seconds:.0f} s for {name}")
        time.sleep(0.2)
    return time.monotonic() - started


# ---- the scanner ----------------------------------------------------------------------------------------------------


class Scanner(threading.Thread):
    """Sends every file, study after study with pauses, again until it is acknowledged, by one door after the other."""

    def __init__(self, hospital: Hospital, studies: Iterable[list[Path]], seconds: float, seed: int) -> None:
        super().__init__(daemon=True)
        self.hospital, self.todo = hospital, list(studies)
        self.pause = seconds / max(len(self.todo), 1)
        self.dice = random.Random(seed)
        self.doors: list[tuple[str, Callable[[list[Path]], None]]] = [("C-STORE", self._store), ("folder", self._drop)]
        if shutil.which("dcmsend"):
            self.doors.append(("dcmsend", self._dcmsend))
        self.acknowledged: set[str] = set()
        self.studies_by: dict[str, int] = {}
        self.again = 0
        """Times that a connection was refused or cut and the rest was sent again."""

    def run(self) -> None:
        for number, paths in enumerate(self.todo):
            name, door = self.doors[number % len(self.doors)]
            door(paths)
            self.studies_by[name] = self.studies_by.get(name, 0) + 1
            time.sleep(self.pause * self.dice.uniform(0.2, 1.0))

    def _store(self, paths: list[Path]) -> None:
        from pydicom import dcmread
        from scanner import send

        datasets = [dcmread(path) for path in paths]
        self.dice.shuffle(datasets)
        self.again += send(
            self.hospital.dicom_port, datasets, lambda one: self.acknowledged.add(str(one.SOPInstanceUID))
        )

    def _dcmsend(self, paths: list[Path]) -> None:
        words = ["dcmsend", "-aet", "SCANNER", "-aec", "OSTEOFLOW", "-ta", "10", "-td", "10"]
        words += ["127.0.0.1", str(self.hospital.dicom_port), *map(str, paths)]
        while subprocess.run(words, capture_output=True, check=False).returncode != 0:
            self.again += 1
            time.sleep(0.3)
        self._all_acknowledged(paths)

    def _drop(self, paths: list[Path]) -> None:
        """Into the watched folder, where a folder that is gone has been taken."""
        folder = self.hospital.inbox / f"from scanner {self.dice.random()}"
        folder.mkdir(parents=True)
        drop(folder, paths)
        while folder.exists():
            time.sleep(0.2)
        self._all_acknowledged(paths)

    def _all_acknowledged(self, paths: list[Path]) -> None:
        from pydicom import dcmread

        self.acknowledged |= {str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in paths}


def drop(folder: Path, paths: list[Path]) -> None:
    """Copies under names of their own, which they get when they are whole."""
    for number, path in enumerate(paths):
        partial = folder / f"{number}.part"
        shutil.copyfile(path, partial)
        partial.rename(folder / f"{number}.dcm")


# ---- the killing ----------------------------------------------------------------------------------------------------


@dataclass
class Killed:
    role: str
    pid: int
    at: float
    """Seconds since the epoch, as files' times are."""
    back: float | None = None


@dataclass
class Killer:
    """kill -9 of random victims, and when each was back."""

    serve: Serve
    dice: random.Random
    killed: list[Killed] = field(default_factory=list)

    def strike(self) -> None:
        """One of the rare ones (a dataset run goes on only now and then) half of the times that there is one."""
        victims = self.serve.victims()
        rare = [name for name in ("run", "child") if name in victims]
        often = sorted(set(victims) - {"serve"}) * 2 + ["serve"]  # with serve everything is down
        role = self.dice.choice(rare if rare and self.dice.random() < 0.5 else often)
        with contextlib.suppress(ProcessLookupError):
            os.kill(victims[role], signal.SIGKILL)
            self.killed.append(Killed(role, victims[role], time.time()))
        if role == "serve":
            self.serve.process.wait()
            time.sleep(self.dice.uniform(0.0, 2.0))  # systemd takes a moment, too
            self.serve.start()

    def watch(self, seconds: float) -> None:
        """Pass the time, and see who is back."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.serve.keep()
            self.look()
            time.sleep(min(0.2, max(0.0, deadline - time.monotonic())))

    def look(self) -> None:
        for role in {one.role for one in self.killed if one.back is None}:
            missing = [one for one in self.killed if one.role == role and one.back is None]
            if self.serve.victims().get(role) in [one.pid for one in missing]:
                continue  # it has not died yet
            if self.serve.answers(role, max(one.at for one in missing)):
                for one in missing:
                    one.back = time.time()

    def until(self, what: Callable[[], object], name: str, seconds: float = PATIENCE_S) -> float:
        started = time.monotonic()
        while not what():
            if time.monotonic() - started > seconds:
                raise AssertionError(f"waited {seconds:.0f} s for {name}")
            self.watch(0.5)
        return time.monotonic() - started

    def by_role(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for role in sorted({one.role for one in self.killed}):
            mine = [one for one in self.killed if one.role == role]
            took = sorted(one.back - one.at for one in mine if one.back is not None)
            found[role] = {
                "kills": len(mine), "back": len(took),
                "seconds_median": round(took[len(took) // 2], 1) if took else None,
                "seconds_longest": round(took[-1], 1) if took else None,
            }  # fmt: skip
        return found
