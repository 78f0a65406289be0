"""Canaries in every place where a scanner, a PACS or a gateway puts identity: none comes out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence

from tasks.anonymize import Params, release
from tasks.keys import Keys

TEXT_PLACES = [
    "InstitutionName", "InstitutionAddress", "InstitutionalDepartmentName", "StationName", "ReferringPhysicianAddress",
    "ReferringPhysicianTelephoneNumbers", "StudyDescription", "SeriesDescription", "ProtocolName", "ImageComments",
    "PatientComments", "AdditionalPatientHistory", "PatientAddress", "PatientTelephoneNumbers", "OtherPatientIDs",
    "MedicalRecordLocator", "MilitaryRank", "BranchOfService", "CountryOfResidence", "RegionOfResidence", "Occupation",
    "Allergies", "MedicalAlerts", "PatientReligiousPreference", "EthnicGroup", "AdmissionID", "CurrentPatientLocation",
    "PatientInstitutionResidence", "VisitComments", "RequestedProcedureID", "RequestedProcedureDescription",
    "RequestedProcedureComments", "ReasonForTheRequestedProcedure", "PerformedProcedureStepID",
    "PerformedProcedureStepDescription", "PerformedStationName", "PerformedLocation", "DeviceSerialNumber", "PlateID",
    "GantryID", "DetectorID", "IssuerOfPatientID", "ClinicalTrialSponsorName", "ClinicalTrialSubjectID",
    "ClinicalTrialSiteName", "StudyComments", "ReasonForStudy", "RequestingService", "OrderCallbackPhoneNumber",
    "FillerOrderNumberImagingServiceRequest", "PlacerOrderNumberImagingServiceRequest", "ContrastBolusAgent",
    "DerivationDescription", "AcquisitionComments", "FrameComments", "PatientTelecomInformation", "InterpretationText",
    "TextComments", "ScheduledProcedureStepID", "ScheduledStationName", "SpecialNeeds", "PatientState",
    "RetrieveAETitle", "StationAETitle", "BodyPartExamined", "PatientMotherBirthName", "ResultsComments", "StudyID",
    "AccessionNumber", "TransducerData", "TriggerSourceOrType", "RespiratoryMotionCompensationTechniqueDescription",
    "DeviceDescription", "InterventionDescription", "EquipmentModality", "WindowCenterWidthExplanation",
]  # fmt: skip
NAME_PLACES = [
    "PatientBirthName", "OtherPatientNames", "ReferringPhysicianName", "PhysiciansOfRecord", "OperatorsName",
    "PerformingPhysicianName", "NameOfPhysiciansReadingStudy", "RequestingPhysician", "ConsultingPhysicianName",
    "ResponsiblePerson", "ScheduledPerformingPhysicianName", "NamesOfIntendedRecipientsOfResults", "OrderEnteredBy",
    "ContentCreatorName", "ReviewerName", "HumanPerformerName", "VerifyingObserverName", "PersonName",
]  # fmt: skip


def plant(source: FileDataset) -> list[bytes]:
    """Plant and return all canaries; each is another word, so that one that comes out tells its place."""
    canaries: list[bytes] = []

    def canary() -> str:
        canaries.append(f"KANARI{len(canaries):03d}VOGEL".encode())
        return canaries[-1].decode()

    for keyword in TEXT_PLACES:
        setattr(
            source, keyword, f"COR {canary()}"[:16] if keyword in ("RetrieveAETitle", "StationAETitle") else canary()
        )
    for keyword in NAME_PLACES:
        setattr(source, keyword, f"{canary()}^Kunigunde")
    source.ScanOptions = ["FS", canary()]
    source.ImageType = ["ORIGINAL", "PRIMARY", canary()]
    # Nested, three deep, behind attributes that stay.
    deep = Dataset()
    deep.PatientName, deep.InstitutionName, deep.PatientID = canary(), canary(), canary()
    deep.OperatorsName, deep.ImageComments = canary(), canary()
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "T-1", "SRT", canary()
    local = Dataset()
    local.CodeValue, local.CodingSchemeDesignator, local.CodeMeaning = canary()[:16], "99HOSPITAL", canary()
    deep.PurposeOfReferenceCodeSequence = [code, local]
    inner = Dataset()
    inner.ReferencedSOPClassUID, inner.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4", "1.2.3.4"
    inner.RequestAttributesSequence = [deep]
    inner.PurposeOfReferenceCodeSequence = [code]
    source.ReferencedImageSequence = [inner, deep]
    source.RequestAttributesSequence = [deep]
    source.OriginalAttributesSequence = [deep]
    source.ProcedureCodeSequence = [local]
    source.AnatomicRegionSequence = [code]
    source.OtherPatientIDsSequence = [deep]
    icon = Dataset()
    icon.PixelData = canary().encode() + b" "
    icon["PixelData"].VR = "OB"
    source.IconImageSequence = [icon]
    # Private blocks, safe creators included.
    for group, creator in ((0x0009, "GEMS_IDEN_01"), (0x0019, "SIEMENS MR HEADER"), (0x0029, "SIEMENS CSA HEADER")):
        block = source.private_block(group, creator, create=True)
        block.add_new(0x01, "LO", canary())
        block.add_new(0x02, "UN", canary().encode() + b" ")
        block.add_new(0x0C, "LO", canary())
        block.add_new(0x0D, "SQ", Sequence([deep]))
    source.private_block(0x0051, canary(), create=True).add_new(0x01, "LO", canary())
    # Overlays, curves, unknown elements, what VRs hide.
    source.add(DataElement(0x60000010, "US", 16))
    source.add(DataElement(0x60000022, "LO", canary()))
    source.add(DataElement(0x60003000, "OW", canary().encode() + b" "))
    source.add(DataElement(0x50002600, "LO", canary()))
    source.add(DataElement(0x00090010 + 0x7FF0000, "LO", canary()))
    source.add(DataElement(0x00187777, "LO", canary()))
    source.add(DataElement(0x00080120, "UR", f"urn:{canary()}"))
    source.add(DataElement(0x0040A160, "UT", canary()))
    source.add(DataElement(0x00282000, "OB", canary().encode() + b" "))
    source.add(DataElement(0x00420011, "OB", canary().encode() + b" "))
    source.add(DataElement(0x00400280, "ST", canary()))
    source.add(DataElement(0x00081140 + 0x0F, "SH", canary()[:16]))
    source.add(DataElement(0xFFFCFFFC, "OB", canary().encode() + b" "))
    # A number of the right VR that is far too long to be one.
    source.add(DataElement(0x00280106, "US", np.frombuffer(canary().encode(), "<u2").tolist()))
    source.preamble = canary().encode().ljust(128, b"\0")
    source.file_meta.SourceApplicationEntityTitle = canary()[:16]
    source.file_meta.ImplementationVersionName = canary()[:16]
    source.file_meta.PrivateInformationCreatorUID = "1.2.3.4.5"
    source.file_meta.PrivateInformation = canary().encode() + b" "
    source.PixelData += canary().encode() + b" "
    return canaries


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("descriptors", [False, True])
def test_no_canary_comes_out(
    mr: Callable[..., FileDataset],
    as_bytes: Callable[[Dataset], bytes],
    read: Callable[[bytes], FileDataset],
    keys: Keys,
    options: dict[str, object],
    implicit: bool,
    descriptors: bool,
) -> None:
    source = mr(implicit=implicit)
    canaries = plant(source)
    data = as_bytes(source)
    assert len(canaries) >= 120 and all(canary[:9] in data for canary in canaries)
    params = Params(**(options | {"clean_descriptors": descriptors}))
    released = release(data, "local", keys, params).data
    upper = released.upper()
    assert [canary for canary in canaries if canary[:9] in upper] == []
    for word in (
        b"KUNIGUNDE",
        b"ZWIEBELHUBER",
        b"MRN0047110",
        b"ACC8812345",
        b"QUELLENTAL",
        b"OBERDORFER",
        b"19480612",
    ):
        assert word not in upper
    out = read(released)
    assert out.PixelData == source.PixelData[:512] and out.ImagePositionPatient == source.ImagePositionPatient
    assert out.ImageType[:2] == ["ORIGINAL", "PRIMARY"] and out.AnatomicRegionSequence[0].CodeValue == "T-1"


def test_names_in_other_scripts_go_too(
    mr: Callable[..., FileDataset],
    as_bytes: Callable[[Dataset], bytes],
    read: Callable[[bytes], FileDataset],
    keys: Keys,
    params: Params,
) -> None:
    for character_set, name, text in (
        ("ISO_IR 192", "Yamada^Tarou=山田^太郎=やまだ^たろう", "HIP 山田太郎 COR"),
        ("GB18030", "Wang^XiaoDong=王^小东", "髋 王小东 HIP COR"),
        ("ISO_IR 144", "Люкceмбypг", "HIP Люкceмбypг COR"),
        ("ISO_IR 100", "Buc^Jérôme", "HIP Jérôme COR"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎", "HIP 山田 COR"),
    ):
        source = mr(name=name)
        source.SpecificCharacterSet = character_set
        source.SeriesDescription = source.ImageComments = source.StudyDescription = text
        data = as_bytes(source)
        out = read(release(data, "local", keys, params).data)
        assert out.SeriesDescription == out.ImageComments == "HIP COR", character_set
        assert str(out.PatientName) == out.PatientID
