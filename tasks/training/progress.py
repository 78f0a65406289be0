"""run.jsonl: what a training room did, line by line, for whoever mirrors it to a tracker. Holds no time of day."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import TracebackType
from typing import Any

from tasks.domain.params import Section
from tasks.store.files import settle_time


class Progress:
    """Use as a context: the first line holds the parameters, the last one says how the run ended."""

    def __init__(self, path: Path, params: Section) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("", encoding="utf-8")
        self._write({"event": "params", "params": params.model_dump(mode="json")})

    def metric(self, model: str, name: str, value: float, step: int = 0) -> None:
        if math.isfinite(value):
            self._write({"event": "metric", "model": model, "name": name, "step": step, "value": float(value)})

    def curve(self, model: str, history: list[dict[str, float]]) -> None:
        """One metric line for each number of each epoch of a fit."""
        for epoch, row in enumerate(history):
            for name, value in row.items():
                self.metric(model, name, value, epoch)

    def figure(self, path: Path) -> None:
        self._write({"event": "figure", "path": path.as_posix()})

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        status = {"status": "finished"} if kind is None else {"status": "failed", "reason": kind.__name__}
        self._write({"event": "end", **status})
        settle_time(self.path)

    def _write(self, line: dict[str, Any]) -> None:
        with open(self.path, "a", encoding="utf-8") as handle:
            handle.write(json.dumps(line, sort_keys=True, allow_nan=False) + "\n")
