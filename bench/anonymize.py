"""Anonymize and verify beside a plain copy of the same files, one core, CPU seconds."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from bench.measure import ROUNDS, cpu
from tasks.anonymize import Params, release
from tasks.domain.params import load
from tasks.keys import Keys
from tasks.phantom import one_study


def run() -> dict[str, object]:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as place:
        os.environ["OSTEOFLOW_HOME"] = str(Path(place) / "home")
        source, target = Path(place) / "source", Path(place) / "target"
        one_study(source, matrix=1.0)
        files = sorted(path for path in source.rglob("*") if path.is_file())
        target.mkdir()
        keys, params = Keys.open(), load("anonymize", Params)
        copied = cpu(lambda: [shutil.copyfile(path, target / str(i)) for i, path in enumerate(files)])
        released = cpu(lambda: [release(path.read_bytes(), "local", keys, params) for path in files])
    return {
        "files": len(files),
        "rounds": ROUNDS,
        "copy_cpu_s": round(copied, 4),
        "anonymize_and_verify_cpu_s": round(released, 4),
        "ratio_to_copy": round(released / copied, 2),
        "ms_per_file": round(1000 * released / len(files), 3),
    }
