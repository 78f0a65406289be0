"""Predicted masks as DICOM SEG, for a PACS: head and lesion with the series they were drawn on, vessels with theirs.

One file a hip-visit and grid. The masks keep their own grid around the femoral head; it is told in the patient's
coordinates and the source's frame of reference, so that any viewer lays it over the images. Dates are the source
study's own (shifted) ones: when the masks were made would pair a pseudonymous study with a real day.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydicom import Dataset, dcmread

from tasks.domain.errors import WrongUse
from tasks.domain.hip import RESEARCH_ONLY
from tasks.store import archives, hips, tables
from tasks.store.files import replacing

GRIDS = {"head+lesion": ("head", "lesion"), "vessel": ("vessel",)}
_ANATOMY, _ABNORMAL = ("91723000", "Anatomical structure"), ("49755003", "Morphologically abnormal structure")
CODES = {
    "head": (_ANATOMY, ("2812003", "Head of femur"), (230, 200, 60)),
    "lesion": (_ABNORMAL, ("6574001", "Necrosis"), (210, 60, 60)),
    "vessel": (_ANATOMY, ("59820001", "Blood vessel"), (60, 120, 220)),
}
"""SNOMED CT: category, type; and the colour that viewers are told."""
_SIDES = {"L": ("7771000", "Left"), "R": ("24028007", "Right")}
_SERIES = 9000
_TYPE_2 = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime",
           "AccessionNumber", "ReferringPhysicianName")  # fmt: skip
_WHEN = ("Date", "Time")


def export(root: Path, out: Path, studies: Iterable[str] = ()) -> list[Path]:
    """Write data/segments of the workspace `root` (of `studies`, or all) below `out`/<study>/; returns the files."""
    wanted = set(studies)
    manifest = tables.read("studies", root / "data/studies.parquet")
    rows = tables.read("hips", root / "data/hips.parquet")
    unknown = wanted - set(rows["study"])
    if unknown:
        raise WrongUse(f"{len(unknown)} of the named studies have no hips here: {', '.join(sorted(unknown))}")
    written: list[Path] = []
    for study, group in rows[rows["status"] == "ok"].groupby("study"):
        if wanted and study not in wanted:
            continue
        found = {}
        for row in group.itertuples():
            path = root / "data/segments" / f"{row.hip_visit}.safetensors"
            if path.exists():
                found[str(row.hip_visit)] = (hips.read(root / "data/hips" / str(row.file), []), hips.read(path))
        if found:
            series = {uid for hip, _ in found.values() for uid in hip.meta["sources"].values()}
            images = _images(root, manifest, str(group["subject"].iloc[0]), series)
            for hip_visit, (hip, masks) in sorted(found.items()):
                written += _hip(out / str(study), hip_visit, hip, masks, images)
    return written


def _images(root: Path, manifest: pd.DataFrame, subject: str, series: set[str]) -> dict[str, list[Dataset]]:
    """The headers of the images of `series`, in the order of their archives: a visit may hold several studies."""
    out: dict[str, list[Dataset]] = {}
    for archive in manifest[manifest["subject"] == subject]["archive"].dropna().unique():
        path = root / str(archive) if (root / str(archive)).exists() else root / "data/studies" / str(archive)
        for _, data in archives.read(path):
            image = dcmread(BytesIO(data), stop_before_pixels=True)
            if image.get("SeriesInstanceUID") in series:
                out.setdefault(str(image.SeriesInstanceUID), []).append(_whole(image))
    return out


def _whole(image: Dataset) -> Dataset:
    """With what an image must say of its patient and study, empty where it does not."""
    for name in _TYPE_2:
        if name not in image:
            setattr(image, name, "")
    if not image.get("FrameOfReferenceUID"):
        image.FrameOfReferenceUID = image.StudyInstanceUID
    return image


def _hip(
    folder: Path, hip_visit: str, hip: hips.HipFile, masks: hips.HipFile, images: dict[str, list[Dataset]]
) -> Iterator[Path]:
    for number, (name, labels) in enumerate(GRIDS.items()):
        here = [label for label in labels if label in masks.tensors and masks.tensors[label].any()]
        source = hip.meta["sources"].get("contrast_fine" if name == "vessel" else _leading(hip))
        if not here or not images.get(source):
            continue
        path = folder / f"{hip_visit}-{name}.dcm"
        made = segmentation(masks, here, images[source], number + 1)
        with replacing(path) as partial:
            made.save_as(partial, enforce_file_format=True)
        yield path


def _leading(hip: hips.HipFile) -> str:
    return next(name for name in ("t1", "fluid", "contrast") if name in hip.meta["sources"])


def segmentation(masks: hips.HipFile, labels: list[str], images: list[Dataset], number: int) -> Dataset:
    """A SEG object of `labels` of one mask file. Same masks, same bytes."""
    import highdicom as hd  # here: it takes a second to import
    from highdicom.sr.coding import CodedConcept

    side = str(masks.meta["side"])
    affine, array = _ordered(np.array(masks.meta["patient_affine"][labels[0]]), masks, labels)
    described = []
    for i, label in enumerate(labels):
        category, kind, colour = CODES[label]
        one = hd.seg.SegmentDescription(
            segment_number=i + 1,
            segment_label=f"{label} {side}",
            segmented_property_category=CodedConcept(category[0], "SCT", category[1]),
            segmented_property_type=CodedConcept(kind[0], "SCT", kind[1]),
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=hd.AlgorithmIdentificationSequence(
                name="osteoflow segment",
                version=str(masks.meta.get("made_from") or "unknown")[:16],
                family=CodedConcept("123109", "DCM", "Artificial Intelligence"),
            ),
            anatomic_regions=[CodedConcept("2812003", "SCT", "Head of femur")],
            tracking_id=f"{label} {side}",
            tracking_uid=_uid("tracking", label, side, *(str(image.PatientID) for image in images[:1])),
            display_color=hd.color.CIELabColor.from_rgb(*colour) if hasattr(hd.color.CIELabColor, "from_rgb") else None,
        )
        region = one.AnatomicRegionSequence[0]
        region.AnatomicRegionModifierSequence = [CodedConcept(_SIDES[side][0], "SCT", _SIDES[side][1])]
        described.append(one)
    content = hashlib.sha256(array.tobytes() + affine.tobytes()).hexdigest()
    series = str(images[0].SeriesInstanceUID)
    volume = hd.Volume(
        array,
        affine,
        coordinate_system=hd.CoordinateSystemNames.PATIENT,
        frame_of_reference_uid=str(images[0].FrameOfReferenceUID),
        channels={"SegmentNumber": list(range(1, len(labels) + 1))},
    )
    made = hd.seg.Segmentation(
        source_images=images,
        pixel_array=volume,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=described,
        series_instance_uid=_uid("series", series, side, content),
        series_number=_SERIES + number + (10 if side == "R" else 0),
        sop_instance_uid=_uid("instance", series, side, content),
        instance_number=1,
        manufacturer="osteoflow",
        manufacturer_model_name="osteoflow segment",
        software_versions=str(masks.meta.get("made_from") or "unknown")[:16],
        device_serial_number="0",
        content_label="_".join(labels).upper()[:16],
        content_description=RESEARCH_ONLY[:64],
        series_description=f"Predicted {' and '.join(labels)}, {side}. Research use only",
    )
    return _dated(made, images[0])


def _ordered(affine: np.ndarray, masks: hips.HipFile, labels: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """(affine, (D, H, W, labels) array), slices along the direction that rows x columns point in.

    Grids of right hips are mirrored, so that theirs run the other way.
    """
    array = np.stack([masks.tensors[label] > 0 for label in labels], -1).astype(np.uint8)
    along, down, across = affine[:3, 0], affine[:3, 1], affine[:3, 2]
    if float(np.cross(across, down) @ along) < 0:
        affine = affine.copy()
        affine[:3, 3] += along * (array.shape[0] - 1)
        affine[:3, 0] = -along
        array = array[::-1]
    return affine, np.ascontiguousarray(array)


def _dated(made: Any, image: Dataset) -> Dataset:
    """With the dates of the source study in place of today's."""
    for name in ("Content", "InstanceCreation", "Series"):
        for end in _WHEN:
            if f"{name}{end}" in made:
                setattr(made, f"{name}{end}", image.get(f"Study{end}") or ("19000101" if end == "Date" else "000000"))
    for item in made.get("ContributingEquipmentSequence", []):
        if "ContributionDateTime" in item:
            del item.ContributionDateTime
    organization = _uid("dimensions", str(made.SOPInstanceUID))
    for item in (*made.DimensionOrganizationSequence, *made.DimensionIndexSequence):
        item.DimensionOrganizationUID = organization  # a random one otherwise
    for name in ("TimezoneOffsetFromUTC", "ContentCreatorName"):
        if name in made:
            delattr(made, name)
    return made  # type: ignore[no-any-return]


def _uid(*parts: str) -> str:
    digest = hashlib.sha256("|".join(("osteoflow segmentation", *parts)).encode()).digest()
    return f"2.25.{uuid.UUID(bytes=digest[:16], version=4).int}"
