"""What a received file is by its header: an arrival, an annotation, or the reason why it cannot be used."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tasks.domain.errors import BadInput
from tasks.ledger import Arrival
from tasks.receive.geometry import declared_files, geometry_of
from tasks.store.checks import check_header
from tasks.store.dicom import Header, read_header

ANNOTATIONS = (
    "1.2.840.10008.5.1.4.1.1.66.4",  # Segmentation
    "1.2.840.10008.5.1.4.1.1.66.7",  # Label Map Segmentation
    "1.2.840.10008.5.1.4.1.1.481.3",  # RT Structure Set
    "1.2.840.10008.5.1.4.1.1.88.22",  # Enhanced SR
    "1.2.840.10008.5.1.4.1.1.88.33",  # Comprehensive SR
    "1.2.840.10008.5.1.4.1.1.88.34",  # Comprehensive 3D SR
    "1.2.840.10008.5.1.4.1.1.88.35",  # Extensible SR
)
"""SOP classes of what readers draw and measure (TID 1500 is one of the SR): they go to inbox/annotations."""
DRAWN = ("SEG", "RTSTRUCT", "SR")
"""Modality of such series."""


@dataclass(frozen=True)
class Received:
    """One file in the journal, judged: an arrival, or the reason (and a sentence without PHI) why it is none."""

    path: Path
    sha256: str
    site: str
    origin: str
    arrival: Arrival | None
    reason: str = ""
    detail: str = ""
    annotation: bool = False


def judge(path: Path, data: bytes | None, sha256: str, size: int, site: str, origin: str) -> Received:
    """What a file is by its header: `data`, its bytes, or read from `path`. Never raises for a bad file."""
    try:
        header = read_header(path if data is None else data)
        reason = check_header(header)
        if reason is not None:
            return Received(path, sha256, site, origin, None, reason)
        arrival = _arrival(header, sha256, size, site, origin)
        return Received(path, sha256, site, origin, arrival, annotation=header.sop_class in ANNOTATIONS)
    except BadInput as error:
        return Received(path, sha256, site, origin, None, error.reason, error.detail)
    except (ValueError, ArithmeticError, LookupError, RecursionError):
        return Received(path, sha256, site, origin, None, "malformed", "the header does not parse as DICOM")


def _arrival(header: Header, sha256: str, size: int, site: str, origin: str) -> Arrival:
    return Arrival(
        site=site,
        origin=origin,
        study_uid=header.study_uid,
        patient_id=header.patient_id,
        series_uid=header.series_uid,
        sop_uid=header.sop_uid,
        sha256=sha256,
        size=size,
        geometry=geometry_of(header),
        declared=declared_files(header),
    )


def images_in(series: Iterable[tuple[str, int | None]]) -> int | None:
    """Files of a study by (modality, files) of each of its series, as an archive counts them: without those that are no
    files of a study here. None when the archive does not count."""
    counts = [count for modality, count in series if modality not in DRAWN]
    known = [count for count in counts if count is not None]
    return sum(known) if known and len(known) == len(counts) else None
