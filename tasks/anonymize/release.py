"""One file: judged, rewritten, verified. The only way by which bytes are released."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from tasks.anonymize import lenient, policy
from tasks.anonymize.encoding import encoding_of
from tasks.anonymize.marks import Mark, file_meta, marks
from tasks.anonymize.params import Params
from tasks.anonymize.rewrite import Chunk, Rewriter, Unusual
from tasks.anonymize.values import OWN_NAMES, Patient
from tasks.anonymize.verify import leaks
from tasks.domain.errors import BadInput
from tasks.keys import Keys
from tasks.store import dicom
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

REFUSALS = frozenset(REFUSED.values()) | {"duplicate", "screenshot", "unknown_sop_class"}
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

    @property
    def name(self) -> str:
        return f"{self.series}/{self.sop}.dcm"


def refusal(header: Header, params: Params) -> str | None:
    """The reason why this kind of object is not released, or None."""
    kind = policy.kind_of(header.sop_class)
    if kind is None:
        return "unknown_sop_class"
    family = kind[1]
    if family == "secondary_capture" and params.secondary_captures == "release":
        return None
    if family == "structured_report" and params.clean_structured_content:
        return None
    if family == "presentation_state" and params.clean_graphics:
        return None
    if family in REFUSED:
        return REFUSED[family]
    if header.text(0x00280301).upper() == "YES":
        return "burned_in_annotation"
    image_type = header.text(0x00080008).upper()
    if params.secondary_captures == "refuse" and ("SCREEN SAVE" in image_type or "SCREENSHOT" in image_type):
        return "screenshot"
    return None


def inspect(data: bytes, params: Params) -> Header:
    """The header of a file that may be released. Raises BadInput with the reason of quarantine or refusal."""
    header = dicom.checked_header(data)
    reason = refusal(header, params)
    if reason is not None:
        raise BadInput(reason)
    return header


def release(data: bytes, site: str, keys: Keys, params: Params, header: Header | None = None) -> Released:
    """De-identify and verify the bytes of one file; raises BadInput with the reason when it may not go out."""
    header = header or inspect(data, params)
    patient, wanted = _patient(header, site, keys, params)
    try:
        pieces, syntax = _rewritten(data, header, patient, wanted)
    except Unusual:
        data_in_order = lenient.in_order(data)
        header_in_order = inspect(data_in_order, params)
        try:
            pieces, syntax = _rewritten(data_in_order, header_in_order, patient, wanted)
        except Unusual:
            raise BadInput("malformed", "the file does not follow the encoding rules of DICOM") from None
    sop = header.sop_uid if params.retain_uids else keys.uid(header.sop_uid)
    series = header.series_uid if params.retain_uids else keys.uid(header.series_uid)
    study = header.study_uid if params.retain_uids else keys.uid(header.study_uid)
    released = b"".join([file_meta(header.sop_class, sop, syntax), *pieces])
    found = leaks(data, released, params, patient.subject, patient.shift)
    if found:
        raise BadInput("verification_failed", "; ".join(sorted(set(found))[:5]))
    return Released(released, study, series, sop, patient.subject, header)


def _rewritten(data: bytes, header: Header, patient: Patient, wanted: tuple[Mark, ...]) -> tuple[list[Chunk], str]:
    """The new dataset, and the transfer syntax in which it is."""
    syntax = header.transfer_syntax
    if syntax == dicom.DEFLATED_LITTLE:
        data, syntax = dicom.inflate(data, header.dataset), dicom.EXPLICIT_LITTLE
    kind = policy.kind_of(header.sop_class)
    if kind is None:
        raise BadInput("unknown_sop_class")
    rewriter = Rewriter(policy.policy_for(kind[0], patient.params), patient, data, encoding_of(header))
    return rewriter.dataset(header, wanted), syntax


@lru_cache(maxsize=4)
def _recent(fingerprint: tuple[bytes, ...], site: str, keys: Keys, params: Params) -> list[Patient]:
    return []


def _patient(header: Header, site: str, keys: Keys, params: Params) -> tuple[Patient, tuple[Mark, ...]]:
    """The patient of a file, with what was worked out for the files before it when they name the same people."""
    fingerprint = tuple(header.values.get(tag, b"") for tag in (*OWN_NAMES, dicom.SPECIFIC_CHARACTER_SET))
    kept = _recent(fingerprint, site, keys, params)
    if not kept:
        kept.append(Patient.of(header, site, keys, params))
    return kept[0], marks(params, kept[0].subject)
