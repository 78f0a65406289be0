"""Files that hold masks, found in SRC and read by their importer: what each reader drew, or why not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset

from tasks.annotate import dicom_seg, label_studio, nifti, nrrd, rtstruct, tid1500
from tasks.annotate.clinical import Refusal
from tasks.annotate.drawn import MAX_BYTES, Drawn
from tasks.domain.errors import BadInput
from tasks.store.parsed import UNREADABLE

MAX_JSON = 512 * 2**20

IMPORTERS: dict[str, Callable[[Dataset], tuple[list[Drawn], list[str]]]] = {
    **dict.fromkeys(dicom_seg.SOP_CLASSES, dicom_seg.read),
    rtstruct.SOP_CLASS: rtstruct.read,
}
"""SOP class -> its importer."""


@dataclass
class Found:
    """What a set of files gave."""

    drawn: list[Drawn] = field(default_factory=list)
    labels: list[tuple[int, Any]] = field(default_factory=list)
    """(measurement group, row of labels.csv) of a measurement report."""
    refused: list[Refusal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def sop_class(path: Path) -> str | None:
    """The SOP class of a DICOM file; None for anything else. Reads the header's start alone."""
    with open(path, "rb") as handle:
        start = handle.read(132)
    if start[128:] != b"DICM" and path.suffix.lower() not in (".dcm", ".ima"):
        return None
    try:
        dataset = pydicom.dcmread(path, force=True, stop_before_pixels=True, specific_tags=["SOPClassUID"])
    except (*UNREADABLE, OSError):
        return None
    return str(dataset.get("SOPClassUID") or "") or None


def read_dicom(path: Path, where: str) -> Found | None:
    """None when the file is a structured report that measures nothing (TID 1500)."""
    found = Found()
    try:
        if path.stat().st_size > MAX_BYTES:
            raise BadInput("too_large", f"a mask file may have {MAX_BYTES // 2**20} MiB")
        dataset = pydicom.dcmread(path, force=True)
        if str(dataset.SOPClassUID) in tid1500.SOP_CLASSES:
            labels, found.drawn, notes = tid1500.read(dataset)
            if labels is None:
                return None
            found.labels = labels
        else:
            found.drawn, notes = IMPORTERS[str(dataset.SOPClassUID)](dataset)
        found.notes = [f"{where}: {note}" for note in notes]
    except BadInput as error:
        found.refused.append(Refusal(where, None, "", str(error)))
    except (*UNREADABLE, OSError, RuntimeError) as error:
        # pydicom and its decoders raise these for files that break the standard; their texts may quote the file.
        reason = f"malformed: cannot be read as DICOM SEG, RTSTRUCT or SR ({type(error).__name__})"
        found.refused.append(Refusal(where, None, "", reason))
    return found


def read_label_studio(path: Path, where: str) -> Found | None:
    """None when the file is no Label Studio export."""
    found = Found()
    try:
        if path.stat().st_size > MAX_JSON:
            raise BadInput("too_large", f"an export may have {MAX_JSON // 2**20} MiB")
        value = json.loads(path.read_bytes())
        if not label_studio.is_export(value):
            return None
        found.drawn, notes = label_studio.read(value)
        found.notes = [f"{where}: {note}" for note in notes]
    except BadInput as error:
        found.refused.append(Refusal(where, None, "", str(error)))
    except (UnicodeDecodeError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        found.refused.append(Refusal(where, None, "", f"malformed: not a JSON export ({type(error).__name__})"))
    return found


def read_listed(rows: list[tuple[int, Any]], folder: Path, where: str) -> Found:
    """The NIfTI and NRRD files that masks.csv (in `folder`) names, one label a row."""
    found = Found()
    for number, row in rows:
        try:
            found.drawn.append(_listed(row, folder, number))
        except BadInput as error:
            found.refused.append(Refusal(where, number, "file", str(error)))
    return found


def named(row: Any, folder: Path) -> Path:
    """The file of one row of masks.csv, written with / or \\."""
    return folder / row.file.replace("\\", "/")


def _listed(row: Any, folder: Path, number: int) -> Drawn:
    path = named(row, folder)
    if not path.resolve().is_relative_to(folder.resolve()):
        raise BadInput("outside", "names a file outside the folder of masks.csv")
    name = path.name.lower()
    if not name.endswith((*nifti.SUFFIXES, *nrrd.SUFFIXES)):
        raise BadInput(
            "unknown_format", "is neither NIfTI (.nii, .nii.gz), NRRD (.nrrd, .nhdr) nor MetaImage (.mha, .mhd)"
        )
    if not path.is_file():
        raise BadInput("missing_file", "is not there")
    if path.stat().st_size > MAX_BYTES:
        raise BadInput("too_large", f"a mask file may have {MAX_BYTES // 2**20} MiB")
    if name.endswith(nifti.SUFFIXES):
        kind = "nifti"
        array, affine = nifti.read(path, row.value)
    else:
        array, affine, own = nrrd.read(path, row.label, row.value, row.side or "")
        kind = "seg.nrrd" if own else "nrrd"
    return Drawn(
        row.label, array, affine, kind, study=row.study_instance_uid, series=row.series_instance_uid,
        reader=row.reader, side=row.side or "", patient_id=row.patient_id, site=row.site, row=number,
    )  # fmt: skip
