"""What a training step frees is kept for the next one.

A step takes and frees the same large blocks each time. glibc gives blocks of this size back to the system at once and
takes them anew, zeroed page by page. While a fit runs they stay.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_USUAL = 32 * 2**20
"""As far as glibc's own threshold grows."""


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Within, freed memory stays with the process; afterwards it goes back. Without glibc nothing is done."""
    try:
        libc = ctypes.CDLL(None)
        change, give_back = libc.mallopt, libc.malloc_trim
    except (OSError, AttributeError):
        yield
        return
    change(_MMAP_THRESHOLD, 2**30)
    change(_TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        change(_MMAP_THRESHOLD, _USUAL)
        change(_TRIM_THRESHOLD, 2 * _USUAL)
        give_back(0)
