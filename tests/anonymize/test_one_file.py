"""One MR file: nothing that identifies stays, everything that research needs stays."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from tasks.anonymize import Params, release
from tasks.keys import Keys

Make = Callable[..., FileDataset]
Bytes = Callable[[Dataset], bytes]
Read = Callable[[bytes], FileDataset]

SURVIVORS = [
    "ImageType",
    "SOPClassUID",
    "Modality",
    "Manufacturer",
    "ManufacturerModelName",
    "SeriesDescription",
    "PatientSex",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "ScanningSequence",
    "SequenceVariant",
    "ScanOptions",
    "MRAcquisitionType",
    "SequenceName",
    "SliceThickness",
    "RepetitionTime",
    "EchoTime",
    "MagneticFieldStrength",
    "FlipAngle",
    "EchoTrainLength",
    "SpacingBetweenSlices",
    "SoftwareVersions",
    "ProtocolName",
    "PatientPosition",
    "SeriesNumber",
    "InstanceNumber",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "SliceLocation",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "Rows",
    "Columns",
    "PixelSpacing",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "WindowCenter",
    "WindowWidth",
    "RescaleIntercept",
    "RescaleSlope",
    "RescaleType",
    "StudyTime",
    "SeriesTime",
    "AcquisitionTime",
    "ContentTime",
    "PixelData",
    "SpecificCharacterSet",
]


@pytest.mark.parametrize("implicit", [False, True])
def test_what_research_needs_survives(
    mr: Make, as_bytes: Bytes, read: Read, keys: Keys, params: Params, implicit: bool
) -> None:
    source = mr(implicit=implicit)
    out = read(release(as_bytes(source), "local", keys, params).data)
    for keyword in SURVIVORS:
        assert out[keyword].value == source[keyword].value, keyword
        assert out[keyword].VR == source[keyword].VR, keyword


def test_identity_is_replaced_and_stated(mr: Make, as_bytes: Bytes, read: Read, keys: Keys, params: Params) -> None:
    source = mr()
    released = release(as_bytes(source), "local", keys, params)
    out = read(released.data)
    subject = keys.subject("local", "MRN0047110")
    assert out.PatientID == subject and str(out.PatientName) == subject and released.subject == subject
    assert out.StudyInstanceUID == keys.uid(source.StudyInstanceUID) == released.study
    assert out.SOPInstanceUID == out.file_meta.MediaStorageSOPInstanceUID == keys.uid(source.SOPInstanceUID)
    assert out.ReferencedImageSequence[0].ReferencedSOPInstanceUID == keys.uid(
        source.ReferencedImageSequence[0].ReferencedSOPInstanceUID
    )
    assert out.FrameOfReferenceUID == keys.uid(source.FrameOfReferenceUID)
    assert out.StudyDescription == "MR HIP LEFT"
    assert out.AccessionNumber == out.StudyID == out.PatientBirthDate == "" and "InstitutionName" not in out
    assert out.PatientIdentityRemoved == "YES" and out.LongitudinalTemporalInformationModified == "MODIFIED"
    codes = {item.CodeValue for item in out.DeidentificationMethodCodeSequence}
    assert codes == {"113100", "113105", "113107", "113108", "113111"}
    assert all(item.CodingSchemeDesignator == "DCM" for item in out.DeidentificationMethodCodeSequence)
    shift = datetime.timedelta(days=keys.shift_days("local", "MRN0047110"))
    assert out.StudyDate == (datetime.date(2021, 3, 15) + shift).strftime("%Y%m%d")
    assert released.data[:128] == b"\0" * 128
    assert [element.tag.element for element in out.file_meta] == [0, 1, 2, 3, 0x10, 0x12, 0x13]


def test_the_same_input_and_key_give_the_same_bytes(mr: Make, as_bytes: Bytes, keys: Keys, params: Params) -> None:
    data = as_bytes(mr())
    assert release(data, "local", keys, params).data == release(data, "local", Keys.open(), params).data


def test_intervals_stay_and_patients_and_sites_differ(
    mr: Make, as_bytes: Bytes, read: Read, keys: Keys, params: Params
) -> None:
    first = read(release(as_bytes(mr(study="1", day="20200101")), "local", keys, params).data)
    second = read(release(as_bytes(mr(study="2", day="20200629")), "local", keys, params).data)
    days = [datetime.datetime.strptime(ds.StudyDate, "%Y%m%d") for ds in (first, second)]
    assert (days[1] - days[0]).days == 180
    other = read(release(as_bytes(mr(patient="MRN0047111")), "local", keys, params).data)
    elsewhere = read(release(as_bytes(mr()), "other", keys, params).data)
    assert len({first.PatientID, other.PatientID, elsewhere.PatientID}) == 3


@pytest.mark.parametrize(
    ("age", "expected"), [("089Y", "089Y"), ("090Y", "090Y"), ("097Y", "090Y"), ("018M", "018M"), ("x", None)]
)
def test_high_ages_are_capped(
    mr: Make, as_bytes: Bytes, read: Read, keys: Keys, params: Params, age: str, expected: str | None
) -> None:
    source = mr()
    source["PatientAge"]._value = age
    assert read(release(as_bytes(source), "local", keys, params).data).get("PatientAge") == expected


def test_what_a_machine_says_stays_unless_a_person_typed_it(
    mr: Callable[..., FileDataset], as_bytes: Callable[[Dataset], bytes], read: Any, keys: Keys, params: Params
) -> None:
    for keyword, text, stays in (
        ("ManufacturerModelName", "Ingenia Elition X", True),
        ("ManufacturerModelName", "DISCOVERY MR750w", True),
        ("SoftwareVersions", "syngo MR XA30", True),
        ("ReceiveCoilName", "HipCoil_12", True),
        ("ManufacturerModelName", "Prisma of Hans Abendroth", False),
        ("ReceiveCoilName", "Dr Abendroth knee", False),
        ("Manufacturer", "Abendroth Klinik", False),
        ("SoftwareVersions", "E11, tel 0176 12 34", False),
    ):
        source = mr()
        setattr(source, keyword, text)
        out = read(release(as_bytes(source), "local", keys, params).data)
        assert (out.get(keyword) == text) is stays and "Abendroth" not in str(out.get(keyword)), text


def test_options_change_what_the_table_says_they_change(
    mr: Make, as_bytes: Bytes, read: Read, keys: Keys, options: dict[str, Any]
) -> None:
    source = mr()
    source.StationName, source.DeviceSerialNumber = "MRC25641", "25641"

    def out(**changed: Any) -> FileDataset:
        return read(release(as_bytes(source), "local", keys, Params(**(options | changed))).data)

    assert out(longitudinal="full").StudyDate == "20210315"
    assert out(longitudinal="full").LongitudinalTemporalInformationModified == "UNMODIFIED"
    removed = out(longitudinal="removed")
    assert removed.StudyDate == "" and removed.StudyTime == "" and "AcquisitionDate" not in removed
    assert out(retain_uids=True).StudyInstanceUID == source.StudyInstanceUID
    assert out(retain_device_identity=True).DeviceSerialNumber == "25641"
    assert out(retain_institution_identity=True).InstitutionName == "Klinikum Quellental"
    bare = out(retain_patient_characteristics=False, clean_descriptors=False)
    assert bare.PatientSex == "" and "PatientAge" not in bare and "StudyDescription" not in bare
    assert {item.CodeValue for item in bare.DeidentificationMethodCodeSequence} == {"113100", "113107", "113111"}


def test_what_hides_behind_and_before_the_pixels_goes(
    mr: Make, as_bytes: Bytes, read: Read, keys: Keys, params: Params
) -> None:
    source = mr()
    pixels = source.PixelData
    source.PixelData = pixels + b"KUNIGUNDE ZWIEBELHUBER"
    source.preamble = b"KUNIGUNDE".ljust(128, b"\0")
    source.file_meta.PrivateInformationCreatorUID = "1.2.3"
    source.file_meta.PrivateInformation = b"KUNIGUNDE "
    source.file_meta.SourceApplicationEntityTitle = "KUNIGUNDE"
    source.DataSetTrailingPadding = b"KUNIGUNDE "
    released = release(as_bytes(source), "local", keys, params).data
    assert b"KUNIGUNDE" not in released.upper() and read(released).PixelData == pixels


def test_contrast_and_vendor_diffusion_stay_known(
    mr: Make, as_bytes: Bytes, read: Read, keys: Keys, params: Params
) -> None:
    source = mr()
    source.ContrastBolusAgent = "Xyzotol"
    block = source.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    block.add_new(0x0C, "IS", "800")
    block.add_new(0x0E, "FD", [0.1, 0.2, 0.97])
    block.add_new(0x20, "LO", "Kunigunde")
    other = source.private_block(0x0029, "SIEMENS CSA HEADER", create=True)
    other.add_new(0x10, "OB", b"Kunigunde Zwiebelhuber")
    out = read(release(as_bytes(source), "local", keys, params).data)
    assert out.ContrastBolusAgent == "REMOVED"
    assert out[0x0019, 0x100C].value == 800 and out[0x0019, 0x100E].value == [0.1, 0.2, 0.97]
    assert (0x0019, 0x1020) not in out and (0x0029, 0x1010) not in out and (0x0029, 0x0010) not in out


def test_a_private_block_of_another_creator_is_not_taken_for_a_safe_one(
    mr: Make, as_bytes: Bytes, read: Read, keys: Keys, params: Params
) -> None:
    source = mr()
    source.private_block(0x0019, "SIEMENS MR HEADER X", create=True).add_new(0x0C, "IS", "800")
    out = read(release(as_bytes(source), "local", keys, params).data)
    assert not [element.tag for element in out if element.tag.is_private]


@pytest.mark.parametrize("name", ["MR_small_bigendian.dcm", "MR_small_expb.dcm", "MR_small_implicit.dcm"])
def test_other_byte_orders_are_rewritten_too(read: Read, keys: Keys, params: Params, name: str) -> None:
    path = Path(str(pydicom.data.get_testdata_file(name, download=False)))
    out = read(release(path.read_bytes(), "local", keys, params).data)
    source = pydicom.dcmread(path)
    assert (out.pixel_array == source.pixel_array).all() and out.PatientIdentityRemoved == "YES"
    assert out.file_meta.TransferSyntaxUID == source.file_meta.TransferSyntaxUID


def test_a_deflated_file_comes_out_inflated(mr: Make, as_bytes: Bytes, read: Read, keys: Keys, params: Params) -> None:
    source = mr()
    source.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    out = read(release(as_bytes(source), "local", keys, params).data)
    assert out.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian and out.PixelData == source.PixelData


def test_ways_of_writing_a_date(mr: Make, as_bytes: Bytes, read: Read, keys: Keys, params: Params) -> None:
    source = mr()
    source["SeriesDate"]._value = "2021.03.15"
    source["ContentDate"]._value = "yesterday"
    source.AcquisitionDateTime = "20210315101530.123456+0100"
    out = read(release(as_bytes(source), "local", keys, params).data)
    assert out.SeriesDate == out.StudyDate
    assert out.AcquisitionDateTime == out.StudyDate + "101530.123456+0100"
    assert "ContentDate" not in out or out.ContentDate == ""
