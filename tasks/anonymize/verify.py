"""The verifier: a second pair of eyes on every file, before it is released.

It shares no code with the modules that make the file (policy, values, rewrite, series, words): it has its own parser,
reads Table E.1-1 itself, and asks two questions. Does the released file hold an identifier of its own source (names
and their parts, ids, dates, UIDs, phones, addresses, wherever the source has them, nested and private included)? Does
it hold anything that the policy forbids, whoever it may be of? Answers name the kind and the tag, never the value.

What it has found good in the files before, it finds again by equal bytes (verified.py), and looks at the rest.
"""

from __future__ import annotations

import struct
import zlib

from pydicom import errors

from tasks.anonymize.forbidden import Found, judge
from tasks.anonymize.identifiers import Facts, Search
from tasks.anonymize.params import Params
from tasks.anonymize.parser import Parsed, Unreadable, by_pydicom, parse
from tasks.anonymize.verified import find, good_of, remember


def leaks(source: bytes, released: bytes, params: Params, subject: str, shift: int) -> list[str]:
    """What is wrong with `released`, as 'kind (gggg,eeee)'; empty when it may go out."""
    if find(source, released, (params, subject, shift)):
        return []
    return in_full(source, released, params, subject, shift)


def in_full(source: bytes, released: bytes, params: Params, subject: str, shift: int) -> list[str]:
    """`leaks` without what was found before; what passes is remembered."""
    try:
        out = parse(released)
    except (Unreadable, struct.error):
        return ["unreadable"]
    original: Parsed | None = None
    try:
        original = parse(source)
        elements = original.elements
    except (Unreadable, struct.error):
        try:
            elements = by_pydicom(source)
        except _PYDICOM_FAILS:
            return ["source unreadable"]
    found = Found(out.meta, out.elements, out.preamble, out.size - out.end)
    complaints = list(judge(found, params, subject, good_of(params, subject)))
    complaints += Search(Facts(elements), params, shift).through(out.elements)
    if original is not None and not complaints:
        remember(source, released, original, out, (params, subject, shift))
    return complaints


_PYDICOM_FAILS = (
    *(errors.InvalidDicomError, errors.BytesLengthException, ValueError, TypeError, LookupError, AttributeError),
    *(NotImplementedError, EOFError, OverflowError, AssertionError, OSError, zlib.error, struct.error),
    *(RecursionError, MemoryError),
)
