"""Mutated headers through the anonymizer, most of them of series that it knows.

None may crash, hang, or come out unverified: what is released is verified once more, in full and without memory, and
every 20th is compared with what the long way makes of the same bytes. 20,000 headers by default; bench/results holds a
longer run (`OSTEOFLOW_FUZZ_FILES`, and `OSTEOFLOW_FUZZ_SECONDS` to end it). A failure raises, and `seed` repeats it.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections import Counter
from pathlib import Path

from bench.anonymizing import corpus
from tasks.anonymize import Params, release, verify
from tasks.anonymize.release import _memory
from tasks.domain.errors import BadInput
from tasks.domain.params import load
from tasks.keys import Keys

SLOWEST_S = 5.0
_PUT = (b"SQ", b"UN", b"OB", b"UT", b"PN", b"??", b"\xff" * 4, b"\0" * 4, b"\xfe\xff\0\xe0", b"\xfe\xff\xdd\xe0")


def run() -> dict[str, object]:
    many = int(os.environ.get("OSTEOFLOW_FUZZ_FILES", "20000"))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["OSTEOFLOW_HOME"] = str(Path(folder) / "home")
        params = load("anonymize", Params).model_copy(update={"clean_pixel_data": False})
        return fuzzed(many, Keys.open(), params, seed=1)


def fuzzed(many: int, keys: Keys, params: Params, seed: int) -> dict[str, object]:
    pick = random.Random(seed)
    kinds = [(study, implicit) for study in range(4) for implicit in (False, True)]
    seeds = [
        corpus.file(study, 0, n, pick, small=True, implicit=implicit) for study, implicit in kinds for n in range(3)
    ]
    for data in seeds:
        release(data, "local", keys, params)
    outcomes: Counter[str] = Counter()
    slowest, started = 0.0, time.process_time()
    until = time.monotonic() + float(os.environ.get("OSTEOFLOW_FUZZ_SECONDS", "600"))
    for number in range(many):
        if time.monotonic() > until:
            many = number
            break
        data = mutated(pick.choice(seeds), pick)
        began = time.process_time()
        out = _outcome(data, keys, params)
        slowest = max(slowest, time.process_time() - began)
        if slowest > SLOWEST_S:
            raise AssertionError(f"mutation {number} of seed {seed} took {slowest:.1f} CPU-s")
        outcomes["released" if isinstance(out, bytes) else out] += 1
        if number % 20 == 0 and out != _without_memory(data, keys, params):
            raise AssertionError(f"mutation {number} of seed {seed}: the two ways differ")
    cpu = round(time.process_time() - started, 1)
    counts = dict(outcomes.most_common())
    return {
        "headers": many,
        "seed": seed,
        "crashes": 0,
        "slowest_s": round(slowest, 3),
        "cpu_s": cpu,
        "outcomes": counts,
    }


def mutated(data: bytes, pick: random.Random) -> bytes:
    """One to three changes before the pixel data: bytes, lengths, delimiters, VRs, cuts, insertions."""
    made = bytearray(data)
    end = len(made) - 520
    for _ in range(pick.randrange(1, 4)):
        at, action = pick.randrange(128, end), pick.randrange(5)
        if action == 0:
            made[at] = pick.randrange(256)
        elif action == 1:
            del made[at : at + pick.randrange(1, 9)]
        elif action == 2:
            made[at:at] = pick.randbytes(pick.randrange(1, 9))
        elif action == 3:
            made[at : at + 4] = pick.randbytes(4)
        else:
            new = pick.choice(_PUT)
            made[at : at + len(new)] = new
    return bytes(made)


def _outcome(data: bytes, keys: Keys, params: Params) -> bytes | str:
    """What is released, seen to pass in full, or the reason why nothing is."""
    try:
        one = release(data, "local", keys, params)
    except BadInput as bad:
        return bad.reason
    shift = keys.shift_days("local", one.header.patient_id)
    wrong = verify.in_full(data, one.data, params, one.subject, shift)
    if wrong:
        raise AssertionError(f"released, though {wrong[:3]}")
    return one.data


def _without_memory(data: bytes, keys: Keys, params: Params) -> bytes | str:
    memory = _memory("local", keys, params)
    kept, memory.kept = memory.kept, ()
    try:
        return _outcome(data, keys, params)
    finally:
        memory.kept = kept
