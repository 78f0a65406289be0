"""C-STORE beside dcmtk's storescp and Orthanc: dcmsend over loopback, files a second of the receiver's CPU and of wall.

The receiver is timed with everything that it does before and after SUCCESS: bytes on disk, header judged, ledger row.
Each receiver gets the same files (MR slices of a phantom, fresh UIDs), one association, and starts empty.
"""

from __future__ import annotations

import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pydicom import dcmread

from tasks.phantom import one_study

FILES, ROUNDS = int(os.environ.get("BENCH_RECEIVE_FILES", "1000")), int(os.environ.get("BENCH_RECEIVE_ROUNDS", "3"))

OURS = """
import sys
from tasks.domain.params import load
from tasks.domain.settings import Settings
from tasks.ledger import Ledger
from tasks.receive import Params
from tasks.receive.scp import serving
with serving(Ledger.open(), load("receive", Params), Settings()) as receiver:
    print(receiver.port, flush=True)
    sys.stdin.read()
"""
EXAMPLE = """
import sys
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, evt
def store(event):
    event.dataset.file_meta = event.file_meta
    event.dataset.save_as(sys.argv[2] + "/" + event.request.AffectedSOPInstanceUID, enforce_file_format=True)
    return 0
ae = AE()
for context in AllStoragePresentationContexts:
    ae.add_supported_context(context.abstract_syntax, ALL_TRANSFER_SYNTAXES)
ae.add_supported_context("1.2.840.10008.1.1")
ae.start_server(("127.0.0.1", int(sys.argv[1])), evt_handlers=[(evt.EVT_C_STORE, store)], block=False)
sys.stdin.read()
"""
"""The documented example of a storage SCP with pynetdicom: decodes, writes, no fsync, no ledger."""


def run() -> dict[str, object]:
    if shutil.which("dcmsend") is None:
        return {"skipped": "dcmsend (Debian package dcmtk) is not installed"}
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_PLACE")) as place:
        sent = Path(place) / "sent"
        size = make(sent, FILES)
        found: dict[str, object] = {"files": FILES, "mean_bytes": size, "rounds": ROUNDS}
        for name, start in receivers().items():
            if start is None:
                found[name] = "not installed"
                continue
            rounds = [one_round(start, sent, Path(place) / f"{name}{n}") for n in range(ROUNDS)]
            found[name] = {
                "files_per_cpu_s": round(FILES / statistics.median(cpu for cpu, _ in rounds)),
                "files_per_wall_s": round(FILES / statistics.median(wall for _, wall in rounds)),
                "cpu_s": [round(cpu, 3) for cpu, _ in rounds],
            }
        return found


def make(folder: Path, files: int) -> int:
    """`files` slices in studies of as many as the phantom has; returns their mean size."""
    one_study(folder / "template", matrix=1.0)
    templates = sorted(path for path in (folder / "template").rglob("*") if path.is_file())
    total = 0
    for number in range(files):
        study, slot = divmod(number, len(templates))
        ds = dcmread(templates[slot])
        for word in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            setattr(ds, word, f"{getattr(ds, word)[:55]}.{study + 1}")
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        ds.PatientID = f"BENCH-{study}"
        path = folder / f"{number:06d}.dcm"
        ds.save_as(path)
        total += path.stat().st_size
    shutil.rmtree(folder / "template")
    return total // files


Started = tuple[subprocess.Popen[bytes], int, str, Callable[[], bool]]


def receivers() -> dict[str, Callable[[Path], Started] | None]:
    return {
        "osteoflow": ours,
        "pynetdicom_example": example,
        "storescp": storescp if shutil.which("storescp") else None,
        "orthanc": orthanc if shutil.which("Orthanc") else None,
    }


def ours(place: Path) -> Started:
    environment = os.environ | {"OSTEOFLOW_HOME": str(place), "OSTEOFLOW_DICOM_PORT": "0"}
    child = subprocess.Popen(
        [sys.executable, "-c", OURS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    )
    assert child.stdout is not None
    port = int(child.stdout.readline())

    def filed() -> bool:
        return not list(place.glob("identified/incoming/*/*/*.dcm"))

    return child, port, "OSTEOFLOW", filed


def example(place: Path) -> Started:
    port = free_port()
    return (*started([sys.executable, "-c", EXAMPLE, str(port), str(place)], port, stdin=True), "ANY", lambda: True)


def storescp(place: Path) -> Started:
    port = free_port()
    return (*started(["storescp", "-od", str(place), "+xa", str(port)], port), "STORESCP", lambda: True)


def orthanc(place: Path) -> Started:
    port = free_port()
    config = place / "orthanc.json"
    config.write_text(
        f'{{"StorageDirectory": "{place}/storage", "IndexDirectory": "{place}/index", "DicomPort": {port},'
        f'"HttpServerEnabled": false, "DicomAlwaysAllowStore": true, "DicomCheckCalledAet": false}}'
    )
    return (*started(["Orthanc", str(config)], port), "ORTHANC", lambda: True)


def started(command: list[str], port: int, stdin: bool = False) -> tuple[subprocess.Popen[bytes], int]:
    child = subprocess.Popen(
        command, stdin=subprocess.PIPE if stdin else None, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    for _ in range(300):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return child, port
        time.sleep(0.1)
    raise TimeoutError(f"{command[0]} did not listen")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def one_round(start: Callable[[Path], Started], sent: Path, place: Path) -> tuple[float, float]:
    """(CPU seconds of the receiver, wall seconds) for all files, the ledger included."""
    place.mkdir()
    child, port, title, done = start(place)
    try:
        before, clock = cpu_of(child.pid), time.perf_counter()
        subprocess.run(
            ["dcmsend", "-aec", title, "+sd", "-nuc", "127.0.0.1", str(port), str(sent)],
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while not done():
            time.sleep(0.05)
        return cpu_of(child.pid) - before, time.perf_counter() - clock
    finally:
        child.terminate()
        child.wait()
        shutil.rmtree(place, ignore_errors=True)


def cpu_of(pid: int) -> float:
    """User and system seconds of a process, all threads, from /proc."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
