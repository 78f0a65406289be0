"""Workers of a process that was killed end too: they keep their own queue open, and would wait for ever."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

PARENT = """
import sys
from tasks.store.mapping import local

if __name__ == "__main__":
    with local(workers=2) as mapper:
        from workers import busy
        for pid in mapper(busy, range(2)):
            pass
"""
WORKERS = """
import os, time
def busy(number):
    open(f"{os.environ['PIDS']}/{os.getpid()}", "w").close()
    time.sleep(600)
"""


def test_they_are_gone_soon_after_it(tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(PARENT)
    (tmp_path / "workers.py").write_text(WORKERS)
    pids = tmp_path / "pids"
    pids.mkdir()
    parent = subprocess.Popen([sys.executable, str(tmp_path / "parent.py")], env=os.environ | {"PIDS": str(pids)})
    try:
        eventually(lambda: len(list(pids.iterdir())) == 2)
    finally:
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    eventually(lambda: not any(Path("/proc", path.name).exists() for path in pids.iterdir()))


def eventually(what: object, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not what():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
