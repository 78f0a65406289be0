"""The peers beside which the anonymizer is measured, each a small program run in its own interpreter.

`OSTEOFLOW_PEERS` names a Python interpreter (of a virtual environment) in which they may be installed; gdcmanon is
looked for on the PATH. What is not there is reported as "not installed". A program gets the files' folder, a folder
for its output and the number of files, and is charged the CPU seconds of its process, its start taken off.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

_FILES = "import sys,os\nfrom pathlib import Path\nsrc,out,n=Path(sys.argv[1]),Path(sys.argv[2]),int(sys.argv[3])\n"
_FILES += "files=sorted(src.rglob('*.dcm'))[:n]\n"
PROGRAMS = {
    "pydicom read + write": (
        "import pydicom\nfor i,f in enumerate(files): pydicom.dcmread(f).save_as(out/f'{i}.dcm')\n"
    ),
    "dcmanon (Rust)": (
        "from dcmanon import Anonymizer\nx=Anonymizer()\n"
        "for i,f in enumerate(files): (out/f'{i}.dcm').write_bytes(x.anonymize(str(f)))\n"
    ),
    "dicognito": (
        "import pydicom\nfrom dicognito.anonymizer import Anonymizer\nx=Anonymizer(seed='s')\n"
        "for i,f in enumerate(files):\n    d=pydicom.dcmread(f); x.anonymize(d); d.save_as(out/f'{i}.dcm')\n"
    ),
    "dicom-anonymizer": (
        "from dicomanonymizer import anonymize_dicom_file\n"
        "for i,f in enumerate(files): anonymize_dicom_file(str(f),str(out/f'{i}.dcm'))\n"
    ),
}


def measured(source: Path, many: int) -> dict[str, float | str]:
    """Peer -> CPU milliseconds a file, or why there is no figure."""
    python = os.environ.get("OSTEOFLOW_PEERS") or sys.executable
    found: dict[str, float | str] = {}
    for name, program in PROGRAMS.items():
        found[name] = _slope([python, "-c", _FILES + program, str(source)], many)
    found["gdcmanon"] = _gdcmanon(source, many) if shutil.which("gdcmanon") else "not installed"
    return found


def _slope(command: list[str], many: int) -> float | str:
    """CPU milliseconds a file between a short run and a long one, so that start-up does not count."""
    few = max(many // 10, 1)
    with tempfile.TemporaryDirectory(dir=place()) as out:
        short = _cpu([*command, out, str(few)])
        if isinstance(short, str):
            return short
        if len(os.listdir(out)) < few:
            return "wrote too few files"
        long = _cpu([*command, out, str(many)])
        return long if isinstance(long, str) else round(1000 * (long - short) / (many - few), 3)


def _cpu(command: list[str]) -> float | str:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        missing = "ModuleNotFoundError" in done.stderr or "No module named" in done.stderr
        return "not installed" if missing else "failed"
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _gdcmanon(source: Path, many: int) -> float | str:
    """In its dumb mode with a short list of attributes: its least work (its own profile needs a certificate)."""
    tags = ["8,50", "8,80", "8,90", "10,10", "10,20", "10,30"]
    files = sorted(source.rglob("*.dcm"))
    with tempfile.TemporaryDirectory(dir=place()) as folder:
        for name, some in (("few", files[: many // 10]), ("many", files[:many])):
            Path(folder, name).mkdir()
            for number, path in enumerate(some):
                os.link(path, Path(folder, name, f"{number}.dcm"))
        times = []
        for name in ("few", "many"):
            options = [f"--empty={tag}" for tag in tags]
            command = ["gdcmanon", "--dumb", *options, "-i", f"{folder}/{name}", "-o", f"{folder}/out-{name}"]
            Path(folder, f"out-{name}").mkdir()
            taken = _cpu(command)
            if isinstance(taken, str):
                return taken
            times.append(taken)
        return round(1000 * (times[1] - times[0]) / (many - many // 10), 3)


def place() -> str | None:
    """A RAM disk, where there is one."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None
