"""The audit log of the identified zone: append-only, one JSON line an event, each chained to the line before."""

from __future__ import annotations

import datetime
import fcntl
import hashlib
import json
import os
from pathlib import Path

from tasks.domain.settings import Settings


class Audit:
    """`identified/audit.jsonl`. Who looked behind a pseudonym, who rotated a key, when and why."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or Settings().ensure().identified / "audit.jsonl"

    def write(self, event: str, who: str, reason: str, **facts: str) -> None:
        """Append one event, on disk before this returns. `previous` is the SHA-256 of the line before."""
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            lines = self.path.read_bytes().splitlines()
            previous = hashlib.sha256(lines[-1]).hexdigest() if lines else ""
            now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            line = {"at": now, "event": event, "who": who, "reason": reason, "previous": previous, **facts}
            os.write(handle, json.dumps(line, sort_keys=True, ensure_ascii=False).encode() + b"\n")
            os.fsync(handle)
        finally:
            os.close(handle)

    def broken(self) -> int | None:
        """The number (from 1) of the first line that does not follow from the one before, or None."""
        previous = ""
        lines = self.path.read_bytes().splitlines() if self.path.exists() else []
        for number, line in enumerate(lines, 1):
            try:
                if json.loads(line)["previous"] != previous:
                    return number
            except (ValueError, KeyError, TypeError):
                return number
            previous = hashlib.sha256(line).hexdigest()
        return None
