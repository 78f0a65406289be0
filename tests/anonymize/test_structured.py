"""Structured reports and presentation states, where the options release them: per concept, and every text in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ImplicitVRLittleEndian

from tasks.anonymize import Params, release
from tasks.anonymize.verify import leaks
from tasks.domain.errors import BadInput
from tasks.keys import Keys

Bytes = Callable[[Dataset], bytes]
Read = Callable[[bytes], FileDataset]


def code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def content(kind: str, concept: Dataset, **values: Any) -> Dataset:
    item = Dataset()
    item.RelationshipType, item.ValueType = "CONTAINS", kind
    item.ConceptNameCodeSequence = [concept]
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


@pytest.fixture
def report(mr: Callable[..., FileDataset]) -> FileDataset:
    source = mr()
    source.SOPClassUID = source.file_meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.88.33")
    source.Modality, source.ValueType, source.ContinuityOfContent = "SR", "CONTAINER", "SEPARATE"
    for keyword in ("PixelData", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"):
        delattr(source, keyword)
    source.ConceptNameCodeSequence = [code("126000", "DCM", "Imaging Measurement Report")]
    source.CompletionFlag, source.VerificationFlag = "COMPLETE", "VERIFIED"
    observer = Dataset()
    observer.VerifyingObserverName, observer.VerifyingOrganization = "Meier^Ottokar", "Klinikum Quellental"
    observer.VerificationDateTime = "20210316101500"
    source.VerifyingObserverSequence = [observer]
    measured = Dataset()
    measured.NumericValue, measured.MeasurementUnitsCodeSequence = "12.5", [code("mm", "UCUM", "mm")]
    source.ContentSequence = Sequence(
        [
            content("PNAME", code("121008", "DCM", "Person Observer Name"), PersonName="Meier^Ottokar"),
            content("TEXT", code("121106", "DCM", "Comment"), TextValue="hip pain, asked by Dr Abendroth"),
            content("TEXT", code("121013", "DCM", "Device Observer Name"), TextValue="MRC25641"),
            content("TEXT", code("121071", "DCM", "Finding"), TextValue="necrosis femoral, Kunigunde Zwiebelhuber"),
            content("UIDREF", code("121012", "DCM", "Device Observer UID"), UID="1.2.3.4.55555"),
            content("DATETIME", code("111526", "DCM", "DateTime Started"), DateTime="20210315101500"),
            content("TEXT", code("L1", "99LOCAL", "Oberdorfer's field"), TextValue="Oberdorfer 4711"),
            content("NUM", code("103339001", "SCT", "Long axis"), MeasuredValueSequence=[measured]),
            content(
                "CONTAINER",
                code("125007", "DCM", "Measurement Group"),
                ContentSequence=[content("TEXT", code("121106", "DCM", "Comment"), TextValue="Eulalia, 0176 1234567")],
            ),
        ]
    )
    return source


SECRETS = (b"Meier", b"Ottokar", b"Abendroth", b"Kunigunde", b"Eulalia", b"1234567", b"4711", b"Oberdorfer", b"55555",
           b"MRC25641", b"Quellental", b"20210315", b"20210316")  # fmt: skip


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("descriptors", [False, True])
def test_a_report_by_its_concepts(
    report: FileDataset, as_bytes: Bytes, read: Read, keys: Keys, options: dict[str, Any], implicit: bool,
    descriptors: bool,
) -> None:  # fmt: skip
    params = Params(**(options | {"clean_structured_content": True, "clean_descriptors": descriptors}))
    if implicit:
        report.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    data = as_bytes(report)
    released = release(data, "local", keys, params).data
    assert all(secret in data and secret.upper() not in released.upper() for secret in SECRETS)
    out = read(released)
    named = [item for item in out.ContentSequence if item.ConceptNameCodeSequence]
    items = {item.ConceptNameCodeSequence[0].CodeValue: item for item in named}
    assert items["103339001"].MeasuredValueSequence[0].NumericValue == 12.5
    assert items["121008"].PersonName == "ANONYMIZED" and "121013" not in items
    assert items["121012"].UID.startswith("2.25.")
    assert items["121071"].ValueType == "TEXT" and items["121071"].RelationshipType == "CONTAINS"
    shifted = keys.shift_days("local", "MRN0047110")
    assert shifted and items["111526"].DateTime != "20210315101500"
    if descriptors:
        assert items["121106"].TextValue == "hip pain by" and items["121071"].TextValue == "necrosis femoral"
    else:
        assert "121106" not in items and items["121071"].TextValue == "REMOVED"
        assert len(items["125007"].get("ContentSequence") or []) == 0
    assert "113104" in [item.CodeValue for item in out.DeidentificationMethodCodeSequence]


def test_the_verifier_knows_the_concepts_too(
    report: FileDataset, as_bytes: Bytes, read: Read, keys: Keys, options: dict[str, Any]
) -> None:
    params = Params(**(options | {"clean_structured_content": True, "clean_descriptors": False}))
    data = as_bytes(report)
    subject, shift = keys.subject("local", "MRN0047110"), keys.shift_days("local", "MRN0047110")
    for concept, value in (
        (code("121106", "DCM", "Comment"), "hip"),
        (code("121013", "DCM", "Device Observer Name"), "coil"),
        (code("121071", "DCM", "Finding"), "necrosis"),
    ):
        out = read(release(data, "local", keys, params).data)
        out.ContentSequence.append(content("TEXT", concept, TextValue=value))
        out.file_meta.ImplementationVersionName = "OSTEOFLOW_1"
        assert any("(0040,A" in wrong for wrong in leaks(data, as_bytes(out), params, subject, shift)), concept


def test_by_default_neither_is_released(report: FileDataset, as_bytes: Bytes, keys: Keys, params: Params) -> None:
    with pytest.raises(BadInput) as caught:
        release(as_bytes(report), "local", keys, params)
    assert caught.value.reason == "structured_report"


def test_the_text_and_graphics_of_a_presentation_state(
    mr: Callable[..., FileDataset], as_bytes: Bytes, read: Read, keys: Keys, options: dict[str, Any]
) -> None:
    params = Params(**(options | {"clean_graphics": True}))
    source = mr()
    source.SOPClassUID = source.file_meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.11.1")
    source.Modality, source.ContentLabel, source.ContentDescription = "PR", "ABENDROTH", "for Dr Meier: hip left"
    source.ContentCreatorName, source.PresentationCreationDate = "Meier^Ottokar", "20210316"
    for keyword in ("PixelData", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"):
        delattr(source, keyword)
    text, line = Dataset(), Dataset()
    text.BoundingBoxAnnotationUnits, text.UnformattedTextValue = "PIXEL", "Zwiebelhuber 19480612\nhip left"
    text.AnchorPoint, text.AnchorPointVisibility, text.AnchorPointAnnotationUnits = [1.0, 2.0], "Y", "PIXEL"
    line.GraphicAnnotationUnits, line.GraphicDimensions, line.NumberOfGraphicPoints = "PIXEL", 2, 2
    line.GraphicData, line.GraphicType = [1.0, 2.0, 3.0, 4.0], "POLYLINE"
    annotation, layer = Dataset(), Dataset()
    annotation.GraphicLayer, annotation.TextObjectSequence, annotation.GraphicObjectSequence = "MEIER", [text], [line]
    layer.GraphicLayer, layer.GraphicLayerOrder, layer.GraphicLayerDescription = "MEIER", 1, "marks of Dr Meier"
    source.GraphicAnnotationSequence, source.GraphicLayerSequence = [annotation], [layer]
    data = as_bytes(source)
    released = release(data, "local", keys, params).data
    for secret in (b"MEIER", b"ZWIEBELHUBER", b"19480612", b"ABENDROTH", b"20210316"):
        assert secret in data.upper() and secret not in released.upper()
    out = read(released).GraphicAnnotationSequence[0]
    assert out.TextObjectSequence[0].UnformattedTextValue == "hip left"
    assert list(out.GraphicObjectSequence[0].GraphicData) == [1.0, 2.0, 3.0, 4.0]
