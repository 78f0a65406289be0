"""Children that are meant to run for ever: started, asked whether they answer, started again when they die, ended.

What each of them does right now is in OSTEOFLOW_HOME/serve.json, which `osteoflow status` shows.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tasks.domain.errors import Unavailable
from tasks.domain.settings import Settings
from tasks.store.files import write_json

log = logging.getLogger("osteoflow.serve")

START_PATIENCE_S = 300.0
"""A slow machine was seen to need 30 s for a fresh Prefect database; ten times that before giving up."""
END_PATIENCE_S = 20.0
FIRST_PAUSE_S, LONGEST_PAUSE_S, STEADY_S = 1.0, 60.0, 120.0
"""Before a child is started again: doubled with each death, and forgotten after it ran for STEADY_S."""
STOP_S = {signal.SIGINT: 5.0, signal.SIGTERM: 5.0, signal.SIGKILL: 5.0}
"""What a child is told at the end, and how long each is waited for. infra/ gives serve more than that together."""
ASK_S, SILENT_S = 10.0, 60.0
"""Between two questions to a child whether it works, and how long it may fail to say so before it is ended."""


@dataclass(frozen=True)
class Child:
    name: str
    command: tuple[str, ...]
    url: str = ""
    """Answers once the child is up."""
    mark: Path | None = None
    """Written by the child once it is up."""
    works: str = ""
    """Asked again and again (POST): a server that lives and cannot do its work is ended, and started again."""
    file: Path | None = None
    """Its database. When that was removed, or another restored in its place, the child works on with one that nobody
    else sees: it is ended, and started again."""


@dataclass
class _Running:
    child: Child
    process: subprocess.Popen[bytes]
    started: float
    deaths: int = 0
    pause: float = FIRST_PAUSE_S
    due: float | None = None
    """When to start it again."""
    last_exit: int | None = field(default=None)
    worked: float | None = None
    """When it was last seen to work; None: not since it was started."""
    inode: int | None = None
    """Of its database, as it began with it or was first seen with it."""


class Supervisor:
    """`start` the children in order, `watch` until told to end, `stop`."""

    def __init__(self, settings: Settings, environment: dict[str, str]) -> None:
        self.settings, self.environment = settings, environment
        self.logs = settings.home / "logs"
        self.logs.mkdir(exist_ok=True)
        self.running: list[_Running] = []
        self.ending = threading.Event()

    def start(self, child: Child, wait: bool = True) -> int:
        inode = _inode(child.file)
        self.running.append(_Running(child, self._spawn(child), time.monotonic(), inode=inode))
        self.say()
        if wait:
            self.wait(child.name)
        return self.running[-1].process.pid

    def wait(self, name: str) -> None:
        """Until the child answers; Unavailable when it ends by itself first. What is killed meanwhile is started again:
        the receiver does not wait for a server that takes long."""
        awaited = next(one for one in self.running if one.child.name == name)
        deadline = time.monotonic() + START_PATIENCE_S
        while time.monotonic() < deadline:
            ended = awaited.process.poll()
            if awaited.due is None and ended is not None and ended >= 0:
                raise Unavailable(f"{name} ended with {ended} while starting; see {self._log(name)}")
            if ended is None and _up(awaited.child):
                return
            for one in self.running:
                self._mend(one)
            time.sleep(0.2)
        raise Unavailable(f"{name} did not answer within {START_PATIENCE_S:.0f} s; see {self._log(name)}")

    def watch(self) -> None:
        """Start again what dies, and end what does not do its work. Returns when `ending` is set."""
        threading.Thread(target=self._ask, daemon=True).start()
        while not self.ending.wait(0.5):
            for one in self.running:
                self._mend(one)

    def _ask(self) -> None:
        while not self.ending.wait(ASK_S):
            for one in self.running:
                if one.due is None and (wrong := self._wrong(one)):
                    log.warning("%s %s: it is ended", one.child.name, wrong)
                    _signal(one.process, signal.SIGKILL)

    def _wrong(self, one: _Running) -> str:
        """Why a child that lives does not do its work, in words."""
        now, inode = time.monotonic(), _inode(one.child.file)
        if one.inode is not None and inode != one.inode:
            return "holds a database that is not there any more"
        one.inode = inode
        if not one.child.works:
            return ""
        if _answers(one.child.works, b"{}"):
            one.worked = now
        silent = now - (one.worked or one.started + START_PATIENCE_S)
        return f"has not done its work for {SILENT_S:.0f} s" if silent > SILENT_S else ""

    def _mend(self, one: _Running) -> None:
        now = time.monotonic()
        if one.due is None and one.process.poll() is not None:
            one.deaths, one.last_exit = one.deaths + 1, one.process.returncode
            _signal(one.process, signal.SIGKILL)  # what it started in its group goes with it
            if now - one.started > STEADY_S:
                one.pause = FIRST_PAUSE_S
            one.due = now + one.pause
            one.pause = min(2 * one.pause, LONGEST_PAUSE_S)
            self.say()
        elif one.due is not None and now >= one.due:
            one.inode = _inode(one.child.file)
            one.process, one.started, one.due, one.worked = self._spawn(one.child), now, None, None
            self.say()

    def stop(self) -> None:
        """End each child's group: first asked, then told."""
        processes = [one.process for one in self.running]
        for sign, patience in STOP_S.items():
            for process in processes:
                if process.poll() is None:
                    _signal(process, sign)
            deadline = time.monotonic() + patience
            while time.monotonic() < deadline and any(process.poll() is None for process in processes):
                time.sleep(0.1)
        for process in processes:
            _signal(process, signal.SIGKILL)  # grandchildren that outlived their parent
        state_file(self.settings).unlink(missing_ok=True)

    def say(self) -> None:
        children = {
            one.child.name: {
                "pid": one.process.pid, "url": one.child.url, "deaths": one.deaths, "last_exit": one.last_exit,
                "waiting": one.due is not None, "started": started(one.process.pid),
            }
            for one in self.running
        }  # fmt: skip
        write_json(state_file(self.settings), {"pid": os.getpid(), "children": children})

    def _spawn(self, child: Child) -> subprocess.Popen[bytes]:
        if child.mark is not None:
            child.mark.unlink(missing_ok=True)
        with open(self._log(child.name), "ab") as log:
            return subprocess.Popen(child.command, stdout=log, stderr=log, env=self.environment, start_new_session=True)

    def _log(self, name: str) -> Path:
        return self.logs / f"{name}.log"


def serving(settings: Settings) -> dict[str, str]:
    """What `osteoflow serve` runs here right now, in words; empty when it does not run."""
    try:
        state = json.loads(state_file(settings).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not _alive(int(state.get("pid", 0))):
        return {"itself": "it ended without stopping its children; start it again, which ends them first"}
    return {
        name: ("up" if _alive(one["pid"]) and not one["waiting"] else "down, will be started again")
        + (f", died {one['deaths']} times, last with {one['last_exit']}" if one["deaths"] else "")
        for name, one in state.get("children", {}).items()
    }


def end_left(settings: Settings) -> None:
    """End the children that a `serve` which was killed has left: they hold the ports. Called by the one that runs."""
    try:
        state = json.loads(state_file(settings).read_text(encoding="utf-8"))
        left = [(int(one["pid"]), str(one["started"])) for one in state["children"].values()]
    except (OSError, ValueError, KeyError, TypeError):
        return
    left = [(pid, since) for pid, since in left if since.isdigit() and started(pid) == since]
    for pid, _ in left:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
    deadline = time.monotonic() + END_PATIENCE_S
    while time.monotonic() < deadline and any(_alive(pid) and started(pid) == since for pid, since in left):
        time.sleep(0.05)
    state_file(settings).unlink(missing_ok=True)


def started(pid: int) -> str:
    """When a process began, in ticks since the machine did; '' when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[19]
    except FileNotFoundError:
        return "" if Path("/proc/self").exists() else "unknown"
    except (OSError, IndexError):
        return "unknown"


def held(lock: Path) -> bool:
    """Whether a process of this machine holds the file lock, asked without touching it. Where the system does not say,
    and the file is there: perhaps, hence yes."""
    try:
        inode = lock.stat().st_ino
        taken = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return lock.exists()
    return any("FLOCK" in line and f":{inode} " in line for line in taken)


def state_file(settings: Settings) -> Path:
    return settings.home / "serve.json"


def _up(child: Child) -> bool:
    if child.mark is not None and not child.mark.exists():
        return False
    return not child.url or _answers(child.url)


def _inode(path: Path | None) -> int | None:
    try:
        return path.stat().st_ino if path is not None else None
    except OSError:
        return None


def _answers(url: str, data: bytes | None = None) -> bool:
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"} if data else {})
    try:
        with urllib.request.urlopen(request, timeout=2 if data is None else 10):
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500  # it works, and this is not for everybody
    except (urllib.error.URLError, OSError):
        return False


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return True


def _signal(process: subprocess.Popen[bytes], sign: signal.Signals) -> None:
    try:
        os.killpg(process.pid, sign)
    except (ProcessLookupError, PermissionError):
        return
