"""`python -m bench [NAME...]`: every bench, or those named; each a module here with `run() -> dict`.

Each result is printed and written to bench/results/NAME.json with the machine it was taken on.
"""

from __future__ import annotations

import importlib
import signal
import sys
from pathlib import Path

from bench.measure import machine
from tasks.store.files import write_json

HERE = Path(__file__).parent


def main(names: list[str]) -> None:
    known = sorted({path.stem for path in HERE.glob("*.py")} - {"__init__", "__main__", "measure", "served"})
    unknown = sorted(set(names) - set(known))
    if unknown:
        sys.exit(f"no such bench: {', '.join(unknown)}; there are: {', '.join(known)}")
    # A shell's background job ignores Ctrl-C, and so would every server that a bench starts and ends.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in names or known:
        print(f"── {name}", flush=True)
        result = importlib.import_module(f"bench.{name}").run()
        for key, value in result.items():
            print(f"   {key}: {value}", flush=True)
        write_json(HERE / "results" / f"{name}.json", {**result, "machine": machine()})


if __name__ == "__main__":
    main(sys.argv[1:])
