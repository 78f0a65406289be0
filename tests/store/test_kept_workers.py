"""Workers that live on keep what they have loaded, and are replaced when they die or grow."""

from __future__ import annotations

import functools
import operator
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool

import pytest

from tasks.store.mapping import Kept


@pytest.fixture
def pool() -> Iterator[Kept]:
    kept = Kept(workers=1)
    yield kept
    kept.close()


def call(pool: Kept, function: object) -> object:
    [answer] = pool(operator.call, [function])
    return answer


def test_they_hold_what_was_loaded_until_they_die(pool: Kept) -> None:
    pool.renew(functools.partial(sys.setrecursionlimit, 1234))
    pid = call(pool, os.getpid)
    assert pid != os.getpid() and call(pool, sys.getrecursionlimit) == 1234
    list(pool(sys.setrecursionlimit, [2345]))
    assert call(pool, sys.getrecursionlimit) == 2345 and call(pool, os.getpid) == pid

    with pytest.raises(BrokenProcessPool):
        list(pool(signal.raise_signal, [signal.SIGKILL]))
    assert pool.pids() == []
    assert call(pool, sys.getrecursionlimit) == 1234, "the next call has a new one, as it begins"

    [second] = pool.pids()
    pool.most_mb = 1.0
    assert call(pool, os.getpid) != second, "one that has grown is replaced"


def test_one_that_cannot_get_ready_works_all_the_same(pool: Kept) -> None:
    pool.renew(operator.truth)  # type: ignore[arg-type]  # asks for an argument that it is not given
    assert call(pool, os.getpid) in pool.pids()
