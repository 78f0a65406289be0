"""`python -m bench`: anonymize and verify beside a plain copy of the same files, one core, CPU seconds.

The machine is noisy: the ratio of medians within one run is the figure, not the seconds.
"""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tasks.anonymize import Params, release
from tasks.domain.params import load
from tasks.keys import Keys
from tasks.phantom import one_study
from tasks.store.files import write_json

ROUNDS = 5


def cpu(action: Callable[[], object]) -> float:
    """Median CPU seconds (user and system) of `action` over ROUNDS runs."""
    taken = []
    for _ in range(ROUNDS):
        start = time.process_time()
        action()
        taken.append(time.process_time() - start)
    return statistics.median(taken)


def main() -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as place:
        os.environ["OSTEOFLOW_HOME"] = str(Path(place) / "home")
        source, target = Path(place) / "source", Path(place) / "target"
        one_study(source, matrix=1.0)
        files = sorted(path for path in source.rglob("*") if path.is_file())
        target.mkdir()
        keys, params = Keys.open(), load("anonymize", Params)
        copied = cpu(lambda: [shutil.copyfile(path, target / str(i)) for i, path in enumerate(files)])
        released = cpu(lambda: [release(path.read_bytes(), "local", keys, params) for path in files])
    result = {
        "files": len(files),
        "rounds": ROUNDS,
        "copy_cpu_s": round(copied, 4),
        "anonymize_and_verify_cpu_s": round(released, 4),
        "ratio_to_copy": round(released / copied, 2),
        "ms_per_file": round(1000 * released / len(files), 3),
    }
    write_json(Path("bench/results/anonymize.json"), result)
    print(result)


if __name__ == "__main__":
    main()
