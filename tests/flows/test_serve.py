"""What serve keeps alive, and what it serves: one file of schedules, children that are started again."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flows import arrive, deployments
from flows.supervise import Child, Supervisor, end_left, serving
from flows.worker import _Server
from tasks.domain.errors import Unavailable
from tasks.domain.settings import Settings


def eventually(what: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def sleeper(name: str, home: Path) -> Child:
    mark = home / f"{name}.up"
    code = f"import pathlib, time; pathlib.Path({str(mark)!r}).touch(); time.sleep(600)"
    return Child(name, (sys.executable, "-S", "-c", code), mark=mark)


def test_a_child_that_is_killed_is_started_again_and_status_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    monkeypatch.setattr("flows.supervise.FIRST_PAUSE_S", 0.1)
    settings = Settings().ensure()
    supervisor = Supervisor(settings, dict(os.environ))
    first = supervisor.start(sleeper("one", settings.home))
    supervisor.start(sleeper("two", settings.home))
    supervisor.running[0].pause = 0.1
    supervisor.say()
    assert serving(settings) == {"one": "up", "two": "up"}
    watching = threading.Thread(target=supervisor.watch)
    watching.start()
    os.kill(first, signal.SIGKILL)
    eventually(lambda: "died 1 times, last with -9" in serving(settings).get("one", ""))
    eventually(lambda: serving(settings)["one"].startswith("up"))
    supervisor.ending.set()
    watching.join()
    pids = [one.process.pid for one in supervisor.running]
    supervisor.stop()
    assert all(not Path(f"/proc/{pid}").exists() for pid in pids)
    assert serving(settings) == {}


def test_a_child_that_cannot_start_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings().ensure()
    supervisor = Supervisor(settings, dict(os.environ))
    with pytest.raises(Unavailable, match=r"broken ended with 3"):
        supervisor.start(Child("broken", (sys.executable, "-S", "-c", "raise SystemExit(3)"), mark=Path("never")))
    supervisor.stop()


def test_serve_that_died_itself_is_said() -> None:
    settings = Settings().ensure()
    (settings.home / "serve.json").write_text(json.dumps({"pid": 2**22 + 1, "children": {}}))
    assert "start it again" in serving(settings)["itself"]


def test_every_deployment_of_the_file_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made = {one.name: one for one in deployments.made()}
    assert set(made) == {one["name"] for one in deployments.declared()} >= {"arrive", "sweep", "watch", "retrain"}
    assert all(one.concurrency_limit == 1 or one.concurrency_options for one in made.values())
    assert made["sweep"].schedules and made["watch"].schedules and not made["retrain"].schedules
    assert made["retrain"].parameters == {"force": True}
    assert not made["arrive"].triggers, "the resident worker answers events"
    assert {one.name: one for one in deployments.made(resident=False)}["arrive"].triggers


def test_without_prefect_the_worker_works_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    from flows import worker

    monkeypatch.setattr(arrive, "known", None)
    assert worker.work(_Server()) == {"studies": 0, "scored": 0}


def test_a_lease_of_a_process_that_is_gone_or_is_another_by_now() -> None:
    owner = arrive._owner()
    assert not arrive._is_gone(owner)
    assert arrive._is_gone(owner.rpartition(":")[0] + ":1"), "the same number, another process"
    assert not arrive._is_gone("elsewhere:1:1")


def test_children_of_a_serve_that_was_killed_are_ended_by_the_next(home: Path) -> None:
    settings = Settings().ensure()
    supervisor = Supervisor(settings, dict(os.environ))
    supervisor.start(sleeper("one", settings.home))
    supervisor.start(sleeper("two", settings.home))
    one, two = (running.process for running in supervisor.running)
    left = json.loads((settings.home / "serve.json").read_text())  # as kill -9 leaves it
    left["children"]["two"]["started"] = "1"  # its number is another process's by now
    (settings.home / "serve.json").write_text(json.dumps(left))
    end_left(settings)
    assert one.poll() == -signal.SIGKILL and two.poll() is None
    assert not (settings.home / "serve.json").exists()
    end_left(settings)
    supervisor.stop()
