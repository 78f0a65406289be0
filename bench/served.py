"""For benches of arrival: a workspace with a champion, the real `osteoflow serve` in it, a scanner, and who takes what.

The champion has networks of the size of params.yaml and has learnt nothing (tests/support/untrained.py): it takes
seconds to make and as long as a trained one to use. No bench by itself.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml
from pydicom import dcmread

ROOT = Path(__file__).resolve().parents[1]
SUPPORT = str(ROOT / "tests" / "support")
sys.path.insert(0, SUPPORT)
PATIENCE_S = 900.0

CHAMPION = """
import sys, yaml
from pathlib import Path
sys.path.insert(0, {support!r})
from flows.environment import prepare
prepare()
from untrained import champion
champion(Path(".osteoflow/untrained"), yaml.safe_load(Path("params.yaml").read_text()))
"""


def workspace(place: Path, changes: dict[str, Any]) -> Any:
    """An `outages.Hospital` with the parameters of params.yaml and `changes` laid over them, and no studies."""
    from outages import Hospital, free_ports

    from flows.demo import make_workspace
    from tasks.domain.params import lay_over

    made = make_workspace(ROOT, place / "workspace", 1)
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    lay_over(params, changes)
    (made / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    ports = zip(("DICOM", "PREFECT", "MLFLOW", "HTTP"), free_ports(4), strict=True)
    dropped = ("OSTEOFLOW_", "PREFECT_", "MLFLOW_", "DVC_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    environment |= {f"OSTEOFLOW_{name}_PORT": str(port) for name, port in ports}
    environment |= {"OSTEOFLOW_ORIGIN": "phantom", "PYTHONPATH": str(made)}
    return Hospital(made, {}, environment)


def champion(hospital: Any) -> None:
    hospital.command(sys.executable, "-c", CHAMPION.format(support=SUPPORT))


@contextlib.contextmanager
def served(hospital: Any) -> Iterator[Any]:
    from outages import Serve

    serve = Serve(hospital)
    try:
        yield serve
    finally:
        serve.stop()


def send(hospital: Any, studies: Sequence[Sequence[Path]], senders: int = 1) -> int:
    """C-STORE by pynetdicom, a study an association, `senders` of them at a time; returns how many were accepted."""
    from scanner import send as store

    def work(paths: Sequence[Path]) -> int:
        store(hospital.dicom_port, [dcmread(path) for path in paths])
        return len(paths)

    with ThreadPoolExecutor(senders) as pool:
        return sum(pool.map(work, studies))


def wait(what: Callable[[], object], name: str, patience_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + patience_s
    while not what():
        assert time.monotonic() < deadline, f"waited {patience_s:.0f} s for {name}"
        time.sleep(0.1)


class Memory:
    """The most memory (MB) of each child of serve and of what runs below it: PSS, shared pages counted once."""

    def __init__(self, serve: Any) -> None:
        self.serve, self.peaks, self.ended = serve, {}, threading.Event()  # type: ignore[var-annotated]

    def __enter__(self) -> Memory:
        self.thread = threading.Thread(target=self._look, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()

    def _look(self) -> None:
        from outages import below, processes

        while not self.ended.wait(1.0):
            table = processes()
            for name, one in self.serve.state().get("children", {}).items():
                mine = memory_mb(one["pid"])
                self.peaks[name] = round(max(self.peaks.get(name, 0), mine))
                if under := below(one["pid"], table):
                    together = sum(memory_mb(pid) for pid in under)
                    key = f"{name}, its processes together"
                    self.peaks[key] = round(max(self.peaks.get(key, 0), together))


def memory_mb(pid: int) -> float:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0


def cpu_s(serve: Any) -> dict[str, float]:
    """CPU seconds of each child of serve, with those of its processes that live or that it waited for."""
    from outages import below, processes

    tick, table, found = os.sysconf("SC_CLK_TCK"), processes(), {}
    for name, one in serve.state().get("children", {}).items():
        total = 0
        for pid in [one["pid"], *below(one["pid"], table)]:
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
                total += sum(int(field) for field in fields[11:15])
        found[name] = round(total / tick, 2)
    return found
