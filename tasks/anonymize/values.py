"""New values for old, as bytes: what each operation of the policy makes of the value of one element.

Text values of DICOM are bytes in a character set of which ASCII is a part; what stays is checked as text, and what is
written is the old bytes or ASCII. None means that nothing of the value may stay.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass, field

from pydicom.uid import UID_dictionary

from tasks.anonymize import policy, words
from tasks.anonymize.params import Params
from tasks.keys import Keys
from tasks.store.dicom import Header, decode

_DATE = re.compile(r"(\d{4})[.\-]?(\d{2})[.\-]?(\d{2})")
_DATETIME = re.compile(r"(\d{4})(\d{2})?(\d{2})?(\d{2}(?:\d{2}(?:\d{2}(?:\.\d{1,6})?)?)?)?([+-]\d{4})?")
_TIME = re.compile(r"[0-9.: ]{0,16}|[+-]\d{4}")
_AGE = re.compile(r"(\d{3})([DWMY])")
_NUMBERS = re.compile(r"[0-9eE+\-. \\]*")
_CHARACTER_SETS = re.compile(r"(ISO_IR \d{1,3}|ISO 2022 IR \d{1,3}|GB18030|GBK)?")
_DEFINED = re.compile(r"[A-Z0-9 _\-/.+]{0,16}", re.IGNORECASE)
_CODE = re.compile(r"[A-Za-z]{0,3}[-.]?[0-9A-Fa-f.\-]{1,16}|[A-Za-z%/{}\[\]0-9*.^]{1,8}")
_SUSPECT = re.compile(r"\d{7,}|@|\^|\b(?:19|20)\d\d[-/.]\d\d?[-/.]\d\d?\b|\b\d\d?[-/.]\d\d?[-/.](?:19|20)\d\d\b")
_PEOPLE = re.compile(
    r"\b(?:dr|drs|prof|mr\.|mrs|ms\.|herr|frau|name|patient|pt|tel|phone|operator|owner|user|by|of|von|property|contact|"
    r"klinik|klinikum|clinic|hospital|hosp|praxis|universit\w+|institut\w*|infirmary|gmbh \w+|street|str)\b",
    re.IGNORECASE,
)
"""What a person types into a field that the machine should have filled in."""

SCHEMES = frozenset(
    {
        "DCM",
        "SCT",
        "SRT",
        "SNM3",
        "SNM",
        "SNMI",
        "LN",
        "UCUM",
        "RADLEX",
        "FMA",
        "NCIt",
        "NCDR",
        "BI",
        "MDC",
        "UMLS",
        "I9C",
        "I10",
        "I10P",
    }
    | {
        "ICD10",
        "RXNORM",
        "UNS",
        "BARI",
        "NYUMCCG",
        "IEC61217",
        "ISO3166_1",
        "RFC5646",
        "DCMUID",
        "UBERON",
        "ITIS_TSN",
        "MAYOASRG",
        "ICDO3",
        "HPC",
        "NDC",
        "ACR",
        "SDM",
    }
)
"""Coding schemes of PS3.16 clause 8. A code of any other scheme is a site's own, and its item goes."""
CODING_SCHEME_UIDS = re.compile(r"2\.16\.840\.1\.113883\.(6\.\d{1,3}|3\.\d{1,3}|5\.\d{1,4}|11\.\d{1,5})")

OWN_NAMES: tuple[int, ...] = (
    *(0x00100010, 0x00101001, 0x00101005, 0x00101060, 0x00102297, 0x00080090, 0x00081048, 0x00081050),
    *(0x00081060, 0x00081070, 0x00321032, 0x0008009C, 0x00080080, 0x00081040, 0x00081010, 0x00100020),
)
"""Where a header names its people and places; their words stay in no text of this header."""

_DUMMIES = {
    "DA": b"19000101",
    "DT": b"19000101",
    "TM": b"000000",
    "AS": b"000Y",
    "DS": b"0 ",
    "IS": b"0 ",
    "CS": b"OTHER ",
    "PN": b"ANONYMIZED",
    "UR": b"urn:x ",
}


_SAME, _UNKNOWN = b"same", b"unknown"


@dataclass
class Patient:
    """What the values of one patient's files are made with. Answers are cached: the files of a study say the same."""

    keys: Keys
    params: Params
    subject: str
    shift: int
    """Days that every date moves by; 0 when dates are kept in full."""
    own: frozenset[str]
    """Casefolded words of the patient's own names and ids, which stay in no text."""
    character_set: bytes = b""
    cache: dict[tuple[str, int, str, bytes], bytes | None] = field(default_factory=dict)

    @classmethod
    def of(cls, header: Header, site: str, keys: Keys, params: Params) -> Patient:
        patient_id = header.patient_id
        shift = keys.shift_days(site, patient_id) if params.longitudinal == "modified" else 0
        own = {
            word.casefold()
            for tag in OWN_NAMES
            for word in re.split(r"[\W_]+", header.text(tag))
            if len(word) > 1 and not (tag in (0x00080080, 0x00081040, 0x00081010) and words.known(word))
        }
        return cls(
            keys, params, keys.subject(site, patient_id), shift, frozenset(own), header.values.get(0x00080005, b"")
        )

    def value(self, operation: str, tag: int, vr: str, raw: bytes) -> bytes | None:
        """The new value; `raw` itself when it stays, None when it goes."""
        if operation in _PLAIN and len(raw) % 2 == 0 and _PLAIN[operation](raw):
            return raw
        asked = (operation, tag, vr, raw)
        known = self.cache.get(asked, _UNKNOWN)
        if known is not _UNKNOWN:
            return raw if known is _SAME else known
        new = _MAKERS[operation](self, tag, vr, raw)
        if new is not None and len(new) % 2:
            new += b"\0" if vr in ("UI", "OB") else b" "
        if len(raw) < 1024 and len(self.cache) < 20000:
            self.cache[asked] = _SAME if new == raw else new
        return raw if new == raw else new


def _subject(patient: Patient, tag: int, vr: str, raw: bytes) -> bytes:
    return patient.subject.encode()


def _uid(patient: Patient, tag: int, vr: str, raw: bytes) -> bytes:
    return b"\\".join(_one_uid(patient, tag, part) for part in raw.split(b"\\"))


def _one_uid(patient: Patient, tag: int, part: bytes) -> bytes:
    uid = part.strip(b" \0").decode("ascii", "replace")
    well_known = uid in UID_dictionary or (tag == 0x0008010C and CODING_SCHEME_UIDS.fullmatch(uid))
    if not uid or well_known:
        return uid.encode()
    return patient.keys.uid(uid).encode()


def _kept_uid(patient: Patient, tag: int, vr: str, raw: bytes) -> bytes:
    good = all(re.fullmatch(rb"[0-9.]{0,64}", part.strip(b" \0")) for part in raw.split(b"\\"))
    return raw if good else _uid(patient, tag, vr, raw)


def _date(patient: Patient, tag: int, vr: str, raw: bytes) -> bytes | None:
    """DA and DT moved by whole days; the precision and the time of day stay. What is no date goes."""
    moved = []
    for part in raw.strip(b" \0").decode("ascii", "replace").split("\\"):
        if vr == "DA" and part.strip() and not _DATE.fullmatch(part.strip()):
            return None
        new = _shifted(part.strip(), patient.shift)
        if new is None:
            return None
        moved.append(new)
    text = "\\".join(moved).encode()
    return raw if text == raw.strip(b" \0") else text


def _shifted(text: str, days: int) -> str | None:
    if not text:
        return ""
    match = _DATE.fullmatch(text)
    rest, precision = "", 8
    if match is None:
        match = _DATETIME.fullmatch(text)
        if match is None:
            return None
        rest = (match[4] or "") + (match[5] or "")
        precision = 8 if match[3] else 6 if match[2] else 4
    try:
        day = datetime.date(int(match[1]), int(match[2] or 1), int(match[3] or 1))
        return (day + datetime.timedelta(days=days)).strftime("%Y%m%d").zfill(8)[:precision] + rest
    except (ValueError, OverflowError):
        return None


def _time(patient: Patient, tag: int, vr: str, raw: bytes) -> bytes | None:
    text = raw.strip(b" \0").decode("ascii", "replace")
    return raw if all(_TIME.fullmatch(part) for part in text.split("\\")) else None


def _age(patient: Patient, tag: int, vr: str, raw: bytes) -> bytes | None:
    match = _AGE.fullmatch(raw.strip(b" \0").decode("ascii", "replace"))
    if match is None:
        return None
    years = int(match[1]) / {"D": 365.25, "W": 52.18, "M": 12, "Y": 1}[match[2]]
    cap = patient.params.age_cap
    return raw if years < cap + 1 else f"{cap + 1:03d}Y".encode()


def _text(patient: Patient, tag: int, vr: str, raw: bytes) -> bytes | None:
    text = _decoded(patient, raw)
    values = text.split("\\") if vr in ("LO", "SH", "UC") else [text]
    cleaned = [words.clean(value, patient.own) for value in values]
    if [value.strip() for value in values] == cleaned:
        return raw
    new = "\\".join(cleaned).strip("\\")
    # Words outside ASCII stay only where the whole value stays: the bytes written then are the bytes read.
    return "".join(letter if letter.isascii() else "" for letter in new).strip().encode() or None


def _technical(patient: Patient, tag: int, vr: str, raw: bytes) -> bytes | None:
    """What a machine writes about itself: as it is, unless it shows the patient's words or the shape of a number,
    a date, a name or an address that a person typed."""
    text = _decoded(patient, raw)
    tokens = re.split(r"[\W_]+", text.casefold())
    mine = any(token in patient.own and not words.known(token) for token in tokens)
    return None if mine or _SUSPECT.search(text) or _PEOPLE.search(text) or len(text) > 256 else raw


def _code(patient: Patient, tag: int, vr: str, raw: bytes) -> bytes | None:
    """A code item stays when its scheme is one of the standard's; None tells the item's rewriter to drop it."""
    text = _decoded(patient, raw).strip()
    if tag == 0x00080102:
        return raw if text in SCHEMES else None
    if tag == 0x00080104:
        return _text(patient, tag, vr, raw) or b"REMOVED"
    if tag == 0x00080103:
        return raw if re.fullmatch(r"[0-9.]{0,16}", text) else b""
    return raw if _CODE.fullmatch(text) else b"0"


def _word(patient: Patient, tag: int, vr: str, raw: bytes) -> bytes | None:
    text = raw.strip(b" \0").decode("ascii", "replace")
    if tag == 0x00080005:
        return raw if all(_CHARACTER_SETS.fullmatch(part.strip()) for part in text.split("\\")) else None
    if tag == 0x00100040:
        return raw if text in ("M", "F", "O", "") else None
    parts = [part.strip() for part in text.split("\\")]
    checked = [part if _DEFINED.fullmatch(part) and words.defined_term(part) else "OTHER" for part in parts]
    return raw if checked == parts else "\\".join(checked).encode()


def _number(patient: Patient, tag: int, vr: str, raw: bytes) -> bytes | None:
    text = raw.strip(b" \0").decode("ascii", "replace")
    good = _NUMBERS.fullmatch(text) and all(len(part) <= 20 for part in text.split("\\"))
    return raw if good else None


def _dummy(patient: Patient, tag: int, vr: str, raw: bytes) -> bytes:
    if vr == "UI":
        return patient.keys.uid(raw.strip(b" \0").decode("ascii", "replace")).encode()
    if vr in policy.NUMERIC_VRS:
        return b"\0" * len(raw)
    if vr in ("OB", "OW", "UN", "OF", "OD", "OL", "OV"):
        return b"\0" * 8
    return b"" if vr == "SQ" else _DUMMIES.get(vr, b"REMOVED")


def _decoded(patient: Patient, raw: bytes) -> str:
    raw = raw.rstrip(b" \0")
    if raw.isascii() and b"\x1b" not in raw:
        return raw.decode("ascii")
    return decode(raw, patient.character_set)


_MAKERS = {
    policy.SUBJECT: _subject,
    policy.UID: _uid,
    policy.KEPT_UID: _kept_uid,
    policy.DATE: _date,
    policy.TIME: _time,
    policy.AGE: _age,
    policy.TEXT: _text,
    policy.TECHNICAL: _technical,
    policy.CODE: _code,
    policy.WORD: _word,
    policy.NUMBER: _number,
    policy.DUMMY: _dummy,
    policy.EMPTY: lambda patient, tag, vr, raw: b"",
}
_PLAIN = {
    policy.NUMBER: re.compile(rb"[-+]?[0-9]{1,9}(?:\.[0-9]{0,8})? ?").fullmatch,
    policy.TIME: re.compile(rb"[0-9]{6}(?:\.[0-9]{1,6})? ?").fullmatch,
}
"""What nearly all values look like that stay whoever's they are: not worth a place in the cache."""
BY_VALUE = frozenset(_MAKERS)
