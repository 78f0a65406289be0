"""DICOM SR measurement reports (PS3.16 TID 1500): stages, angles and collapse of a hip, to rows of the label table.

A measurement group names its hip by the laterality of its finding site, else by words of its tracking identifier; what
was measured is known by the meaning of its concept, else (for a plain 'Angle' or 'Depth') by the tracking identifier.
The study is that of the images that the report cites, which need not be the report's own.

Regions that a group draws are masks: polygons in space (SCOORD3D), and closed lines, circles and ellipses in the pixels
of an image (SCOORD), which wait for that image. Segments that it cites are files of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError
from pydicom.dataset import Dataset

from tasks.annotate import clinical, pixel_regions, rtstruct
from tasks.annotate.drawn import Drawn, label_of, side_of
from tasks.domain.errors import BadInput

SOP_CLASSES = tuple(f"1.2.840.10008.5.1.4.1.1.88.{n}" for n in (22, 33, 34, 35))
"""Enhanced, Comprehensive, Comprehensive 3D and Extensible SR."""

REPORT, GROUP, EVALUATIONS = ("126000", "DCM"), ("125007", "DCM"), ("C0034375", "UMLS")
PERSON, DEVICE, TRACKING = ("121008", "DCM"), ("121013", "DCM"), ("112039", "DCM")
FINDING = ("121071", "DCM")
SITES = (("363698007", "SCT"), ("G-C0E3", "SRT"))

WORDS: dict[str, tuple[tuple[str, ...], ...]] = {
    "arco": (("arco",), ("association research circulation osseous",)),
    "ficat": (("ficat",),),
    "steinberg": (("steinberg",), ("university of pennsylvania",)),
    "jic": (("jic",), ("japanese investigation committee",)),
    "kerboul_coronal_deg": (("kerboul", "coronal"), ("necrotic angle", "coronal"), ("combined necrotic", "coronal")),
    "kerboul_sagittal_deg": (
        ("kerboul", "sagittal"),
        ("necrotic angle", "sagittal"),
        ("combined necrotic", "sagittal"),
    ),
    "collapse_mm": (("collapse",), ("depression", "head"), ("head depression",)),
    "lesion": (("osteonecrosis",), ("avascular necrosis",), ("femoral head necrosis",), ("lesion",)),
}
"""Label -> what the name of a concept contains, all words of one of these."""

UNITS = {"collapse_mm": {"mm": 1.0, "cm": 10.0, "um": 0.001}}
ANGLES = {"deg": 1.0, "°": 1.0, "rad": 57.29577951308232}
"""UCUM units -> the label's own."""

PRESENT = {"present": "1", "yes": "1", "positive": "1", "absent": "0", "no": "0", "negative": "0", "not present": "0"}


def read(dataset: Dataset) -> tuple[list[tuple[int, Any]] | None, list[Drawn], list[str]]:
    """([(number of the first group, row of labels.csv)], masks, notes), one row a hip; None when it is no TID 1500
    report."""
    if _code(dataset, "ConceptNameCodeSequence") != REPORT:
        return None, [], []
    groups = [item for item in _walk(dataset) if _code(item, "ConceptNameCodeSequence") in (GROUP, EVALUATIONS)]
    by_hip: dict[tuple[str, str], dict[str, str]] = {}
    first: dict[tuple[str, str], int] = {}
    unknown = 0
    polygons: dict[tuple[str, str, str, str], list[Dataset]] = {}
    planes: list[Drawn] = []
    notes: list[str] = []
    owner = {"patient_id": str(dataset.get("PatientID") or "").strip(), "reader": _observer(dataset)}
    for number, group in enumerate(groups, 1):
        labels = _labels(group, number)
        drawn, told = _region(dataset, group, number)
        flat, none = _in_pixels(dataset, group, owner)
        planes += flat
        told += [f"measurement group {number} draws {what}; its region was left out" for what in none]
        notes += told
        for key, contours in drawn.items():  # groups of one plane each make one mask
            polygons.setdefault(key, []).extend(contours)
        unknown += not (labels or drawn or flat or told)
        for side, name, value in labels:
            if not side:
                raise BadInput("no_side", f"measurement group {number} does not say which hip it measured")
            hip = side, _study(dataset, group)
            known = by_hip.setdefault(hip, {}).setdefault(name, value)
            first.setdefault(hip, number)
            if known != value:
                raise BadInput("contradiction", f"measurement group {number} gives {name} again, with another value")
    if unknown:
        notes.append(f"{unknown} measurement groups hold no stage, angle or collapse and were left out")
    if not (by_hip or polygons or planes):
        why = f"; {notes[0]}" if notes else ""
        raise BadInput("no_known_measurement", f"measures no stage, angle or collapse of a femoral head{why}")
    rows = []
    for (side, study), given in sorted(by_hip.items()):
        cells = owner | {"study_instance_uid": study, "side": side} | given
        rows.append((first[side, study], _row({name: cell for name, cell in cells.items() if cell})))
    return rows, [_mask(dataset, *key, contours) for key, contours in polygons.items()] + planes, notes


def _region(
    dataset: Dataset, group: Dataset, number: int
) -> tuple[dict[tuple[str, str, str, str], list[Dataset]], list[str]]:
    """What one group draws: {(label, side, study, frame of reference): polygons in space}, and why the rest is none."""
    notes: list[str] = []
    spatial = [item for item in _walk(group) if item.get("ValueType") == "SCOORD3D"]
    if not spatial:
        return {}, notes
    label, side = _named(group)
    found: dict[tuple[str, str, str, str], list[Dataset]] = {}
    for item in spatial:
        if label is None or item.get("GraphicType") != "POLYGON":
            what = "neither head, lesion nor vessel" if label is None else "no closed polygon"
            notes.append(f"measurement group {number} draws what is {what}; its region was left out")
            continue
        frame = str(item.get("ReferencedFrameOfReferenceUID", ""))
        contour = Dataset()
        contour.ContourData = list(item.GraphicData)
        found.setdefault((label, side, _study(dataset, group), frame), []).append(contour)
    return found, list(dict.fromkeys(notes))


def _in_pixels(dataset: Dataset, group: Dataset, owner: dict[str, str]) -> tuple[list[Drawn], list[str]]:
    """The planes that one group draws on images, and why the rest is none."""
    label, side = _named(group)
    drawn, notes = [], []
    for item in _walk(group):
        if item.get("ValueType") != "SCOORD":
            continue
        try:
            if label is None:
                raise BadInput("other", "what is neither head, lesion nor vessel")
            plane = pixel_regions.fill(item)
            sop, frame = pixel_regions.image(dataset, item)
            study, series = _cited(dataset).get(sop, ("", ""))
            if not series:
                raise BadInput("no_image", "on an image that the report does not list among its evidence")
        except BadInput as error:
            notes.append(error.detail)
            continue
        drawn.append(Drawn(
            label, plane, None, "scoord", study=study, series=series, sop=sop, reader=owner["reader"], side=side,
            patient_id=owner["patient_id"] or None, thick=False, extra={"index": frame},
        ))  # fmt: skip
    return drawn, list(dict.fromkeys(notes))


def _named(group: Dataset) -> tuple[str | None, str]:
    """What a group draws (head, lesion, vessel or nothing of these), and the side that it claims."""
    children = list(group.get("ContentSequence", []))
    names = [str(c.get("TextValue", "")) for c in children if _code(c, "ConceptNameCodeSequence") == TRACKING]
    names += [_meaning(c, "ConceptCodeSequence") for c in children if _code(c, "ConceptNameCodeSequence") == FINDING]
    return label_of(*names), _side(children) or side_of(*names)


def _mask(dataset: Dataset, label: str, side: str, study: str, frame: str, contours: list[Dataset]) -> Drawn:
    array, affine, thick = rtstruct.fill(contours)
    return Drawn(
        label, array, affine, "tid1500", study=study, frame=frame, reader=_observer(dataset), side=side, thick=thick,
        patient_id=str(dataset.get("PatientID") or "").strip() or None,
    )  # fmt: skip


def _row(cells: dict[str, str]) -> Any:
    try:
        return clinical.TABLES["labels"].model_validate(cells)
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise BadInput("impossible", f"{where + ' ' if where else ''}{clinical.in_words(fault)}") from None


def _labels(group: Dataset, number: int) -> list[tuple[str, str, str]]:
    """(side or nothing, label, cell) of one measurement group."""
    children = list(group.get("ContentSequence", []))
    tracking = next(
        (str(c.get("TextValue", "")) for c in children if _code(c, "ConceptNameCodeSequence") == TRACKING), ""
    )
    common = _side(children) or side_of(tracking)
    found = []
    for item in children:
        meaning = _meaning(item, "ConceptNameCodeSequence")
        if _code(item, "ConceptNameCodeSequence") in (TRACKING, *SITES):
            continue
        name = _label(meaning) or (_label(f"{meaning} {tracking}") if item.get("ValueType") == "NUM" else None)
        cell = None if name is None else _cell(item, name, number)
        if name and cell is not None:
            own = list(item.get("ContentSequence", []))
            found.append((_side(own) or side_of(meaning) or common, name, cell))
    return found


def _label(meaning: str) -> str | None:
    text = meaning.lower()
    return next((name for name, ways in WORDS.items() if any(all(w in text for w in way) for way in ways)), None)


def _cell(item: Dataset, name: str, number: int) -> str | None:
    """What a cell of labels.csv would hold; None when the item tells something else about it (a finding, a volume)."""
    kind = item.get("ValueType")
    if kind == "NUM":
        units = UNITS.get(name, ANGLES if name.endswith("_deg") else None)
        values = item.get("MeasuredValueSequence", [])
        if units is None or not values:
            return None
        unit = _code(values[0], "MeasurementUnitsCodeSequence")[0]
        if unit not in units:
            raise BadInput(
                "unknown_unit", f"measurement group {number} gives {name} in another unit than {', '.join(units)}"
            )
        return f"{float(values[0].NumericValue) * units[unit]:g}"
    text = (
        _meaning(item, "ConceptCodeSequence")
        if kind == "CODE"
        else str(item.get("TextValue", ""))
        if kind == "TEXT"
        else ""
    )
    if name == "lesion":
        return PRESENT.get(text.lower().strip())
    return text or None if not name.endswith(("_mm", "_deg")) else None


def _side(items: list[Dataset]) -> str:
    """By the finding site among `items`: its laterality, else its name."""
    for item in items:
        if _code(item, "ConceptNameCodeSequence") in SITES:
            turned = [_meaning(part, "ConceptCodeSequence") for part in item.get("ContentSequence", [])]
            if side := side_of(*turned, _meaning(item, "ConceptCodeSequence")):
                return side
    return ""


def _study(dataset: Dataset, group: Dataset) -> str:
    """That of the images which the group cites, else which the report cites, else the report's own."""
    owner = {sop: study for sop, (study, _) in _cited(dataset).items()}
    cited = {
        owner.get(str(image.get("ReferencedSOPInstanceUID")))
        for item in _walk(group)
        for image in item.get("ReferencedSOPSequence", [])
    } - {None}
    studies = cited or set(owner.values()) or {str(dataset.StudyInstanceUID)}
    if len(studies) > 1 and str(dataset.StudyInstanceUID) not in studies:
        raise BadInput("several_studies", f"cites images of {len(studies)} studies; a measurement belongs to one")
    return str(dataset.StudyInstanceUID) if len(studies) > 1 else str(next(iter(studies)))


def _cited(dataset: Dataset) -> dict[str, tuple[str, str]]:
    """{SOPInstanceUID: (study, series)} of the images that the report lists as its evidence."""
    found: dict[str, tuple[str, str]] = {}
    for name in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence"):
        for study in dataset.get(name, []):
            for series in study.get("ReferencedSeriesSequence", []):
                for image in series.get("ReferencedSOPSequence", []):
                    where = str(study.StudyInstanceUID), str(series.get("SeriesInstanceUID", ""))
                    found[str(image.get("ReferencedSOPInstanceUID"))] = where
    return found


def _observer(dataset: Dataset) -> str:
    """Who measured: a person, else who verified or wrote the report, else the device."""
    named: dict[tuple[str, str], str] = {}
    for item in _walk(dataset):
        value = item.get("PersonName") or item.get("TextValue")
        if value:
            named.setdefault(_code(item, "ConceptNameCodeSequence"), str(value))
    people = [
        str(person.get(name) or "")
        for sequence, name in (
            ("VerifyingObserverSequence", "VerifyingObserverName"),
            ("AuthorObserverSequence", "PersonName"),
        )
        for person in dataset.get(sequence, [])
    ]
    return next((name for name in (named.get(PERSON), *people, named.get(DEVICE)) if name), "not named")


def _walk(item: Dataset) -> Iterator[Dataset]:
    """All content items below `item`, in order."""
    waiting = list(reversed(item.get("ContentSequence", [])))
    while waiting:
        one = waiting.pop()
        yield one
        waiting += list(reversed(one.get("ContentSequence", [])))


def _code(item: Dataset, name: str) -> tuple[str, str]:
    codes = item.get(name) or [Dataset()]
    return str(codes[0].get("CodeValue") or codes[0].get("LongCodeValue") or ""), str(
        codes[0].get("CodingSchemeDesignator", "")
    )


def _meaning(item: Dataset, name: str) -> str:
    codes = item.get(name) or [Dataset()]
    return str(codes[0].get("CodeMeaning") or codes[0].get("CodeValue") or "")
