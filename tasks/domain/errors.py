"""The one error tree.

    OsteoflowError            exit 1
    ├── BadInput              one item is unusable: quarantined with `reason`, the batch goes on
    ├── WrongUse              exit 2: a command, parameter or setting is wrong
    ├── Refused               exit 3: a gate, a leak check or a verification said no
    │   ├── KeyRefused        the project key is missing, weak or readable by others
    │   ├── LeakFound         identifiers (or a patient on two sides of a split) would get out
    │   └── Differs           a recomputed digest is not the recorded one
    └── Unavailable           a server, a lock or a disk is not there now: may be retried

A message says what, where and what to do next, and never holds PHI: an item is named by its opaque key.
"""

from __future__ import annotations


class OsteoflowError(Exception):
    """Anything that osteoflow raises on purpose."""

    exit_code = 1


class BadInput(OsteoflowError):
    """One item that cannot be used. `reason` is a short slug that `status` counts by; `detail` is for a person."""

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(reason, detail)

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


class WrongUse(OsteoflowError):
    exit_code = 2


class Refused(OsteoflowError):
    exit_code = 3


class KeyRefused(Refused):
    pass


class LeakFound(Refused):
    pass


class Differs(Refused):
    pass


class Unavailable(OsteoflowError):
    pass
