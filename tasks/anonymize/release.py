"""One file: judged, rewritten, verified. The only way by which bytes are released."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from tasks.anonymize import lenient, pixels, policy
from tasks.anonymize.encoding import encoding_of
from tasks.anonymize.marks import NOT_LOOKED, file_meta, marks
from tasks.anonymize.params import Params
from tasks.anonymize.pixels import Looks
from tasks.anonymize.rewrite import Chunk, Rewriter, Unusual
from tasks.anonymize.series import Memory
from tasks.anonymize.values import OWN_NAMES, Patient
from tasks.anonymize.verify import leaks
from tasks.domain.errors import BadInput
from tasks.keys import Keys
from tasks.store import checks, dicom
from tasks.store.dicom import Header

REFUSED = {
    "dicomdir": "dicomdir",
    "secondary_capture": "secondary_capture",
    "encapsulated_document": "encapsulated_document",
    "structured_report": "structured_report",
    "presentation_state": "presentation_state",
    "photograph_or_video": "photograph_or_video",
    "waveform": "waveform",
    "raw_data": "raw_data",
    "other": "not_an_image",
}
"""Families of SOP classes that are not released, and the reason given. Images, segmentations, RT structure sets and
registrations are released; structured reports, presentation states and secondary captures where an option says so."""

REFUSALS = frozenset(REFUSED.values()) | {*("duplicate", "screenshot", "unknown_sop_class", "recognizable_features")}
"""Reasons that are policy (outcome `refused`); any other reason means that somebody should look (`quarantined`)."""


@dataclass(frozen=True)
class Released:
    """A de-identified file that has passed verification."""

    data: bytes
    study: str
    series: str
    sop: str
    subject: str
    header: Header
    """Of the original: identified."""
    pixels: str = NOT_LOOKED
    """What became of the pixels (marks.PIXELS)."""

    @property
    def name(self) -> str:
        return f"{self.series}/{self.sop}.dcm"


def refusal(header: Header, params: Params) -> str | None:
    """The reason why this kind of object is not released, or None."""
    family, head, burned_in, screen = _said(header)
    if not family:
        return "unknown_sop_class"
    if family == "secondary_capture" and params.secondary_captures == "release":
        return None
    if family == "structured_report" and params.clean_structured_content:
        return None
    if family == "presentation_state" and params.clean_graphics:
        return None
    if family in REFUSED:
        return REFUSED[family]
    if params.clean_recognizable_visual_features and head:
        return "recognizable_features"
    if burned_in and not params.clean_pixel_data:
        return "burned_in_annotation"
    return "screenshot" if screen and params.secondary_captures == "refuse" else None


@dicom.by_values(
    dicom.SPECIFIC_CHARACTER_SET, dicom.SOP_CLASS_UID, 0x00080008, 0x00180015, 0x00081030, 0x0008103E, 0x00181030,
    0x00082218, 0x00280301,
)  # fmt: skip
def _said(header: Header) -> tuple[str, bool, bool, bool]:
    """The family of the object ('' when unknown), and whether the file says that it shows a head, that text is burned
    in, that it is a picture of a screen."""
    kind = policy.kind_of(header.sop_class)
    image_type = header.text(0x00080008).upper()
    burned_in = header.text(0x00280301).upper() == "YES"
    screen = "SCREEN SAVE" in image_type or "SCREENSHOT" in image_type
    return kind[1] if kind else "", pixels.shows_a_head(header), burned_in, screen


def inspect(data: bytes, params: Params) -> Header:
    """The header of a file that may be released. Raises BadInput with the reason of quarantine or refusal."""
    header = checks.checked_header(data)
    reason = refusal(header, params)
    if reason is not None:
        raise BadInput(reason)
    return header


def release(data: bytes, site: str, keys: Keys, params: Params, looks: Looks | None = None) -> Released:
    """De-identify and verify the bytes of one file; raises BadInput with the reason when it may not go out.

    `looks` says which files of a series are searched for burned-in text, beside those that their attributes mark."""
    patient, one = _unverified(data, site, keys, params, looks)
    found = leaks(data, one.data, params, patient.subject, patient.shift)
    if found:
        raise BadInput("verification_failed", "; ".join(sorted(set(found))[:5]))
    return one


def _unverified(data: bytes, site: str, keys: Keys, params: Params, looks: Looks | None) -> tuple[Patient, Released]:
    """The file de-identified. Nobody but `release` hands this on."""
    memory = _memory(site, keys, params)
    draft = _as_before(data, memory, params)
    header = draft.header if draft else inspect(data, params)
    looked = pixels.look(data, header, params, looks)
    searched = looked.outcome if looked else NOT_LOOKED
    if looked is not None and looked.data is not data:
        draft = _the_long_way(looked.data, inspect(looked.data, params), site, keys, params, searched)
    elif draft is None or looked is not None:
        draft = _the_long_way(data, header if header.layout else inspect(data, params), site, keys, params, searched)
    header, patient = draft.header, draft.patient
    sop, series, study = (
        uid if params.retain_uids else keys.uid(uid) for uid in (header.sop_uid, header.series_uid, header.study_uid)
    )
    released = b"".join([file_meta(header.sop_class, sop, draft.syntax), *draft.pieces])
    if draft.teacher is not None and draft.teacher.data is data:
        memory.learn(header, draft.teacher, marks(params, patient.subject))
    return patient, Released(released, study, series, sop, patient.subject, header, searched)


@dataclass(frozen=True)
class _Draft:
    """A rewritten file before its verification."""

    header: Header
    patient: Patient
    pieces: list[Chunk]
    syntax: str
    teacher: Rewriter | None = None
    """What rewrote it, where the next file can learn from this one."""


def _as_before(data: bytes, memory: Memory, params: Params) -> _Draft | None:
    """The file by what it has in common with the files before it, or None when it must go the long way."""
    found = memory.find(data)
    if found is None:
        return None
    likeness, header, pieces = found
    if checks.check_header(header) is not None or refusal(header, params) is not None:
        return None
    return _Draft(header, likeness.patient, pieces, header.transfer_syntax)


def _the_long_way(data: bytes, header: Header, site: str, keys: Keys, params: Params, searched: str) -> _Draft:
    """The file element by element, put in order by pydicom first where it is unusual."""
    patient = _patient(header, site, keys, params)
    try:
        return _rewritten(data, header, patient, header, searched)
    except Unusual:
        data_in_order = lenient.in_order(data)
        header_in_order = inspect(data_in_order, params)
        try:
            return _rewritten(data_in_order, header_in_order, patient, header, searched)
        except Unusual:
            raise BadInput("malformed", "the file does not follow the encoding rules of DICOM") from None


def _rewritten(data: bytes, header: Header, patient: Patient, original: Header, searched: str) -> _Draft:
    syntax = header.transfer_syntax
    if syntax == dicom.DEFLATED_LITTLE:
        data, syntax = dicom.inflate(data, header.dataset), dicom.EXPLICIT_LITTLE
    kind = policy.kind_of(header.sop_class)
    if kind is None:
        raise BadInput("unknown_sop_class")
    decisions = policy.policy_for(kind[0], patient.params)
    rewriter = Rewriter(decisions, patient, data, encoding_of(header))
    pieces = rewriter.dataset(header, marks(patient.params, patient.subject, searched))
    return _Draft(original, patient, pieces, syntax, rewriter if header is original else None)


@lru_cache(maxsize=4)
def _memory(site: str, keys: Keys, params: Params) -> Memory:
    return Memory()


@lru_cache(maxsize=4)
def _recent(fingerprint: tuple[bytes, ...], site: str, keys: Keys, params: Params) -> list[Patient]:
    return []


def _patient(header: Header, site: str, keys: Keys, params: Params) -> Patient:
    """The patient of a file, with what was worked out for the files before it when they name the same people."""
    fingerprint = tuple(header.values.get(tag, b"") for tag in (*OWN_NAMES, dicom.SPECIFIC_CHARACTER_SET))
    kept = _recent(fingerprint, site, keys, params)
    if not kept:
        kept.append(Patient.of(header, site, keys, params))
    return kept[0]
