"""What serve keeps alive, and what it serves: one file of schedules, children that are started again."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from flows import arrive, deployments
from flows.supervise import Child, Supervisor, _answers, end_left, serving
from flows.worker import _Server
from tasks.domain.errors import Unavailable
from tasks.domain.settings import Settings
from tasks.ledger import Ledger


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


def test_the_first_is_started_again_while_another_takes_long_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    monkeypatch.setattr("flows.supervise.FIRST_PAUSE_S", 0.1)
    settings = Settings().ensure()
    supervisor = Supervisor(settings, dict(os.environ))
    first = supervisor.start(sleeper("receiver", settings.home))
    supervisor.running[0].pause = 0.1
    slow = Child("prefect", (sys.executable, "-S", "-c", "import time; time.sleep(600)"), mark=settings.home / "ready")
    starting = threading.Thread(target=supervisor.start, args=(slow,))
    starting.start()
    eventually(lambda: "prefect" in serving(settings))
    for pid in (first, supervisor.running[1].process.pid):  # what is awaited may be killed, too
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: serving(settings)["receiver"].startswith("up, died 1"))
    eventually(lambda: serving(settings)["prefect"].startswith("up, died 1"))
    (settings.home / "ready").touch()
    starting.join(20)
    assert not starting.is_alive()
    supervisor.stop()


def test_a_server_that_lives_and_does_not_work_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    for name, seconds in (("ASK_S", 0.05), ("SILENT_S", 0.2), ("START_PATIENCE_S", 20.0)):
        monkeypatch.setattr(f"flows.supervise.{name}", seconds)
    settings = Settings().ensure()
    supervisor = Supervisor(settings, dict(os.environ))
    monkeypatch.setattr("flows.supervise._answers", lambda url, data=None: (settings.home / "works").exists())
    (settings.home / "works").touch()
    supervisor.start(replace(sleeper("prefect", settings.home), works="http://127.0.0.1:9/api/flows/count"))
    watching = threading.Thread(target=supervisor.watch)
    watching.start()
    eventually(lambda: supervisor.running[0].worked is not None)
    assert serving(settings) == {"prefect": "up"}
    (settings.home / "works").unlink()
    eventually(lambda: "died 1 times, last with -9" in serving(settings)["prefect"])
    supervisor.ending.set()
    watching.join()
    supervisor.stop()


def test_a_child_whose_database_was_removed_or_restored_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds the old one open, answers from it, and what it writes there is lost."""
    import threading

    for name, seconds in (("ASK_S", 0.05), ("FIRST_PAUSE_S", 0.1), ("LONGEST_PAUSE_S", 0.1)):
        monkeypatch.setattr(f"flows.supervise.{name}", seconds)
    settings = Settings().ensure()
    database = settings.home / "prefect.db"
    supervisor = Supervisor(settings, dict(os.environ))
    supervisor.start(replace(sleeper("prefect", settings.home), file=database))
    supervisor.running[0].pause = 0.1
    watching = threading.Thread(target=supervisor.watch)
    watching.start()
    database.touch()  # it makes its own
    eventually(lambda: supervisor.running[0].inode is not None)
    assert serving(settings) == {"prefect": "up"}
    database.with_name("backup").touch()
    database.with_name("backup").rename(database)
    eventually(lambda: serving(settings)["prefect"].startswith("up, died 1 times, last with -9"))
    database.unlink()
    eventually(lambda: serving(settings)["prefect"].startswith("up, died 2 times, last with -9"))
    supervisor.ending.set()
    watching.join()
    supervisor.stop()


def test_a_server_that_asks_who_asks_does_its_work() -> None:
    import http.server
    import threading

    class Server(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_error(int(self.path.removeprefix("/")))

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        there = f"http://127.0.0.1:{server.server_port}"
        assert [_answers(f"{there}/{code}", b"{}") for code in (401, 404, 500, 503)] == [True, True, False, False]
        server.shutdown()


def test_deployments_that_prefect_forgot_are_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.exceptions import ObjectNotFound

    from flows.alone import alone

    said: list[Exception | None] = [ObjectNotFound(None), OSError(), None, OSError(), ObjectNotFound(None)]
    asked: list[str] = []

    class Client:
        def __enter__(self) -> Client:
            return self

        def __exit__(self, *_: object) -> None:
            return None

        def read_deployment_by_name(self, name: str) -> None:
            asked.append(name)
            if len(asked) == 8:
                dataset_run.__exit__(None, None, None)
            if error := said[min(len(asked), len(said)) - 1]:
                raise error

    def end(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr("prefect.client.orchestration.get_client", lambda **_: Client())
    monkeypatch.setattr(deployments, "ASK_S", 0.0)
    monkeypatch.setattr(deployments.os, "_exit", end)
    dataset_run = alone()
    dataset_run.__enter__()
    with pytest.raises(SystemExit):
        deployments.leave_when_forgotten("watch/watch")
    assert asked == ["watch/watch"] * 8, "not before they were known once, and not while a dataset run goes on"


def test_the_watch_lets_a_dataset_run_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.alone import Busy, alone
    from flows.watch import watch

    monkeypatch.setattr("flows.watch.due", lambda _: (True, "new hips"))
    with alone():
        found = watch.fn()
        assert not found["started"] and "another dataset run is going on" in found["why"]
        with pytest.raises(Busy):
            watch.fn(force=True)


def test_a_dataset_run_that_died_is_not_called_running() -> None:
    from flows import facts
    from flows.alone import alone

    settings, ledger = Settings().ensure(), Ledger.open()
    assert facts.last_run(ledger, settings) == {}
    ledger.start_run()
    with alone():
        assert facts.last_run(ledger, settings)["status"] == "running"
    assert facts.last_run(ledger, settings)["status"] == "crashed"


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
    assert all(made[name].concurrency_limit for name in ("arrive", "sweep"))
    # A limit is a lease: when Prefect is away as it is renewed, the run is cancelled. Dataset runs have a lock of ours.
    assert not made["watch"].concurrency_limit and not made["retrain"].concurrency_limit
    assert made["sweep"].schedules and made["watch"].schedules and not made["retrain"].schedules
    assert made["retrain"].parameters == {"force": True}
    assert not made["arrive"].triggers, "the resident worker answers events"
    assert {one.name: one for one in deployments.made(resident=False)}["arrive"].triggers


def test_only_runs_of_ours_are_called_dead_and_they_tell_of_themselves_in_time() -> None:
    from prefect.automations import Automation

    from flows.environment import HEARTBEAT_S

    [one] = [Automation.model_validate(each) for each in deployments._listed("automations.yaml", "automations")]
    flows = {made.flow_name for made in deployments.made()}
    assert set(one.trigger.match_related["prefect.resource.name"]) == flows | {"retrain", "part"}
    assert one.trigger.within.total_seconds() >= 3 * HEARTBEAT_S
    for declared in deployments.declared():  # a worker's process has Prefect's own pace otherwise, which is too slow
        assert declared["work_pool"]["job_variables"]["env"] == {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_S)}


def test_runs_that_were_missed_do_not_all_start_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}
    monkeypatch.setattr("prefect.serve", lambda *made, **how: asked.update(how, made=len(made)))
    monkeypatch.setattr(deployments, "keep_automations", lambda: None)
    monkeypatch.setattr(deployments, "leave_when_forgotten", lambda deployment: asked.update(kept=deployment))
    deployments.run()
    assert asked["made"] == 4 and asked["limit"] == 2
    eventually(lambda: asked.get("kept") == "arrive/arrive")


def test_without_prefect_the_worker_works_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    from flows import worker

    monkeypatch.setattr(arrive, "known", None)
    assert worker.work(_Server()) == {"studies": 0, "scored": 0}


def test_a_prefect_that_is_up_and_busy_keeps_no_study_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client would ask five times, for one to two minutes, before it gives up."""
    import http.server
    import threading

    from flows import worker

    asked: list[str] = []

    class Busy(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200 if self.path == "/api/health" else 503)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    monkeypatch.setattr(arrive.arrive, "fn", lambda: {"studies": 0, "scored": 0})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Busy) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{server.server_port}/api")
        there = _Server()
        assert worker.work(there) == {"studies": 0, "scored": 0}
        assert asked[0] == "/api/health" and len(asked) <= 3, "once more, and then without it"
        assert worker.work(there) == {"studies": 0, "scored": 0} and len(asked) <= 3, "and not again at once"
        server.shutdown()


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
