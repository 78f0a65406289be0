"""A file that was released before, by the rules of today: with its original where that exists, else with what the
crosswalk knows of its person. Its pixels are searched as today's parameters say."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from tasks.anonymize import pixels
from tasks.anonymize.lettering import ENGINE_FAILED
from tasks.anonymize.marks import CLEANED
from tasks.anonymize.params import Params
from tasks.anonymize.verify import leaks
from tasks.domain.errors import BadInput, Unavailable
from tasks.keys import Keys, Person
from tasks.store import archives, checks


class Original(Protocol):
    """A received file, as the ledger has it."""

    @property
    def path(self) -> Path: ...

    @property
    def sop_uid(self) -> str: ...


def recheck(
    archive: Path, keys: Keys, params: Params, person: Person | None, originals: Iterable[Original]
) -> dict[str, list[str]]:
    """What is wrong with the files of a study archive, by name; empty when all may stay."""
    sources = {sop: one.path for one in originals for sop in (keys.uid(one.sop_uid), one.sop_uid)}
    looks = pixels.Looks(params.text_every)
    found: dict[str, list[str]] = {}
    for name, data in archives.read(archive):
        source = sources.get(Path(name).stem)
        wrong = _header(data, source if source and source.exists() else None, keys, params, person)
        if not wrong:
            wrong = _pixels(data, params, looks)
        if wrong:
            found[name] = sorted(set(wrong))
    return found


def subject_of(archive: Path) -> str:
    """The pseudonym that the files of an archive name, '' when they name none or cannot be read."""
    for _, data in archives.read(archive):
        try:
            return checks.checked_header(data).patient_id
        except BadInput:
            continue
    return ""


def _header(data: bytes, source: Path | None, keys: Keys, params: Params, person: Person | None) -> list[str]:
    try:
        subject = checks.checked_header(data).patient_id
    except BadInput:
        return ["unreadable"]
    shift = 0
    if person is not None:
        subject = keys.subject(person.site, person.patient_id)
        shift = keys.shift_days(person.site, person.patient_id) if params.longitudinal == "modified" else 0
    original = source.read_bytes() if source is not None and person is not None else _stand_in(person)
    return leaks(original, data, params, subject, shift)


def _stand_in(person: Person | None) -> bytes:
    """A source that says what the crosswalk knows, for a file whose own is gone."""
    known: list[tuple[int, bytes, bytes]] = []
    if person is not None:
        names = dict.fromkeys(name.encode(code, "ignore") for name in person.names for code in ("utf-8", "latin-1"))
        uids = [uid.encode() for uid in person.studies.values()]
        known = [
            (0x00100010, b"PN", b"\\".join(names)),
            (0x00100020, b"LO", person.patient_id.encode()),
            (0x0020000D, b"UI", b"\\".join(uids)),
        ]
    head = b"\2\0\x10\0UI\x14\x001.2.840.10008.1.2.1\0"
    return b"\0" * 128 + b"DICM" + head + b"".join(_element(tag, vr, value[:0xFFFE]) for tag, vr, value in known)


def _element(tag: int, vr: bytes, value: bytes) -> bytes:
    value += b" " * (len(value) % 2)
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value


def _pixels(data: bytes, params: Params, looks: pixels.Looks) -> list[str]:
    header = checks.checked_header(data)
    try:
        looked = pixels.look(data, header, params, looks)
    except BadInput as bad:
        if bad.reason == ENGINE_FAILED:  # says nothing of the file: whoever asked must not act on it
            raise Unavailable(f"{bad}: nothing was decided; look at tesseract and verify again") from None
        # Marked as cleaned already: what cannot be looked at again here was looked at when it was released.
        return [] if bad.reason in ("undecodable_pixels", "no_text_engine") else [f"pixels {bad.reason}"]
    return ["text in pixels"] if looked is not None and (looked.outcome == CLEANED or looked.data != data) else []
