"""A rendered study as DICOM Part 10 files, with the headers that each vendor's scanner writes.

Elements that all files of a series share are encoded once; a file is their bytes with its own few elements between.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.charset import convert_encodings
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element, write_file_meta_info
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, MRImageStorage

from tasks.phantom.identity import REFERRER_PHONE, Hospital, Person, Register
from tasks.phantom.scanners import SCANNERS, Scanner
from tasks.phantom.study import Rendered, Series
from tasks.phantom.vendors import private_of_series, private_of_slice

UID_ROOT = "1.2.826.0.1.3680043.8.498"
IMPLEMENTATION = f"{UID_ROOT}.77.1"


def uid(*parts: object) -> str:
    """A UID that looks like a scanner's and is the same for the same parts."""
    number = int.from_bytes(hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()[:14], "big")
    return f"{UID_ROOT}.{number}"


@dataclass(frozen=True)
class Visit:
    """What the header says about one study."""

    who: Person
    where: Hospital
    scanner: int
    key: str  # seeds UIDs
    day: dt.date
    start: dt.time
    height_m: float
    weight_kg: float
    number: int
    chatty: bool  # free text with the patient's own name in it

    @property
    def study_uid(self) -> str:
        return uid(self.key, "study")

    @property
    def frame_uid(self) -> str:
        return uid(self.key, "frame")

    @property
    def accession(self) -> str:
        return "AX" + hashlib.sha256(f"{self.key}/accession".encode()).hexdigest()[:10].upper()

    def series_uid(self, name: str) -> str:
        return uid(self.key, "series", name)

    def sop_uid(self, name: str, index: int) -> str:
        return uid(self.key, "image", name, index)


def write(folder: Path, visit: Visit, rendered: Rendered, register: Register) -> int:
    """Write every file of the study below `folder`; returns the number of bytes. Strings planted go to `register`."""
    total = 0
    register.add("uids", visit.study_uid, visit.frame_uid)
    register.add("accessions", visit.accession)
    register.add("dates", visit.day.strftime("%Y%m%d"), visit.day.isoformat())
    for number, series in enumerate(rendered.series, start=2):
        total += _write_series(folder, visit, series, number, register)
    return total


def _write_series(folder: Path, visit: Visit, series: Series, number: int, register: Register) -> int:
    scanner = SCANNERS[visit.scanner]
    syntax = ImplicitVRLittleEndian if scanner.vendor == "ge" else ExplicitVRLittleEndian
    start = dt.datetime.combine(visit.day, visit.start) + dt.timedelta(minutes=6 * (number - 2))
    shared = header(visit, scanner, series, number, start, register)
    encoded = {int(element.tag): _encode(element, syntax, visit.who.charset) for element in shared}
    name = series.protocol.name
    register.add("uids", visit.series_uid(name))
    slices = series.protocol.shape[0]
    numbers = instance_numbers(slices, scanner.order)
    steps = series.affine
    low, high = (float(v) for v in np.percentile(series.pixels[:: max(slices // 6, 1), ::4, ::4], (2, 99.2)))
    bytes_written = 0
    for index in range(slices):
        own = Dataset()
        sop = visit.sop_uid(name, index)
        position = steps[:3, 3] + index * steps[:3, 0]
        moment = start + dt.timedelta(seconds=1.7 * index)
        own.SOPInstanceUID = sop
        own.InstanceCreationTime = own.ContentTime = own.AcquisitionTime = moment.strftime("%H%M%S.%f")
        own.InstanceNumber = int(numbers[index])
        own.ImagePositionPatient = [f"{value:.4f}" for value in position]
        own.SliceLocation = f"{position[1]:.4f}"
        own.WindowCenter, own.WindowWidth = f"{(low + high) / 2:.1f}", f"{max(high - low, 1):.1f}"
        pixels = series.pixels[index]
        smallest = "SS" if scanner.signed else "US"
        own.add_new(0x00280106, smallest, int(pixels.min()))
        own.add_new(0x00280107, smallest, int(pixels.max()))
        private_of_slice(own, scanner, series, index, position)
        own.add_new(0x7FE00010, "OW", pixels.astype("<u2").tobytes())
        parts = encoded | {int(element.tag): _encode(element, syntax, visit.who.charset) for element in own}
        meta = FileMetaDataset()
        meta.FileMetaInformationVersion = b"\x00\x01"
        meta.MediaStorageSOPClassUID = MRImageStorage
        meta.MediaStorageSOPInstanceUID = UID(sop)
        meta.TransferSyntaxUID = syntax
        meta.ImplementationClassUID = UID(IMPLEMENTATION)
        meta.ImplementationVersionName = "OFPHANTOM_1"
        buffer = DicomBytesIO()
        buffer.write(b"\0" * 128 + b"DICM")
        write_file_meta_info(buffer, meta)
        for tag in sorted(parts):
            buffer.write(parts[tag])
        path = folder / _file_name(visit, scanner, number, int(numbers[index]))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(buffer.getvalue())
        bytes_written += buffer.tell()
        register.add("uids", sop)
    return bytes_written


def instance_numbers(slices: int, order: str) -> list[int]:
    """InstanceNumber of each slice, anterior to posterior, as the scanner counts them."""
    if order == "descending":
        return list(range(slices, 0, -1))
    if order == "interleaved":
        acquired = [*range(0, slices, 2), *range(1, slices, 2)]
        return [acquired.index(index) + 1 for index in range(slices)]
    return list(range(1, slices + 1))


def _file_name(visit: Visit, scanner: Scanner, series: int, instance: int) -> str:
    if scanner.vendor == "siemens":
        family, given = (part.upper() for part in visit.who.latin)
        day = visit.day.strftime("%Y.%m.%d")
        return f"{family}_{given}.MR.HUEFTE_BDS.{series:04d}.{instance:04d}.{day}.IMA"
    if scanner.vendor == "ge":
        return f"E{visit.number:05d}/S{series}/I{instance:03d}.dcm"
    return f"S{series}0{series}/IM_{instance:04d}"


def _encode(element: DataElement, syntax: str, charset: tuple[str, ...]) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian = True
    buffer.is_implicit_VR = syntax == ImplicitVRLittleEndian
    write_data_element(buffer, element, convert_encodings(list(charset) or None))
    return bytes(buffer.getvalue())


def header(
    visit: Visit, scanner: Scanner, series: Series, number: int, start: dt.datetime, register: Register
) -> Dataset:
    """What all images of a series say."""
    who, where, protocol = visit.who, visit.where, series.protocol
    family = who.latin[0]
    day, time = visit.day.strftime("%Y%m%d"), visit.start.strftime("%H%M%S.%f")
    ds = Dataset()
    ds.SpecificCharacterSet = list(who.charset) if len(who.charset) > 1 else who.charset[0]
    ds.ImageType = list(protocol.image_type)
    ds.InstanceCreationDate = ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = day
    ds.SOPClassUID = MRImageStorage
    ds.StudyTime, ds.SeriesTime = time, start.strftime("%H%M%S.%f")
    ds.AccessionNumber = visit.accession
    ds.Modality = "MR"
    ds.Manufacturer, ds.ManufacturerModelName = scanner.manufacturer, scanner.model
    ds.InstitutionName, ds.InstitutionAddress = where.name, where.address
    ds.InstitutionalDepartmentName = where.department
    ds.ReferringPhysicianName = where.physicians[visit.number % 3]
    ds.ReferringPhysicianTelephoneNumbers = REFERRER_PHONE
    ds.PhysiciansOfRecord = where.physicians[5]
    ds.PerformingPhysicianName = where.physicians[3]
    ds.NameOfPhysiciansReadingStudy = where.physicians[5]
    ds.OperatorsName = where.physicians[4].removesuffix("^^Dr.")
    ds.StationName = where.stations[visit.scanner]
    ds.StudyDescription = "MRT Huefte bds. nativ und KM"
    ds.SeriesDescription = protocol.description
    ds.AdmittingDiagnosesDescription = "M87.05 Femurkopfnekrose"
    ds.PatientName, ds.PatientID, ds.IssuerOfPatientID = who.name, who.patient_id, f"{where.stations[0]}KIS"
    ds.PatientBirthDate, ds.PatientSex = who.birth_date.strftime("%Y%m%d"), who.sex
    other = Dataset()
    other.PatientID, other.IssuerOfPatientID, other.TypeOfPatientID = who.other_id, "KVNR", "TEXT"
    ds.OtherPatientIDsSequence = [other]
    years = (visit.day - who.birth_date).days // 365.25
    ds.PatientAge = f"{int(years):03d}Y"
    ds.PatientSize, ds.PatientWeight = f"{visit.height_m:.2f}", f"{visit.weight_kg:.1f}"
    ds.PatientAddress, ds.PatientTelephoneNumbers = who.address, who.phone
    ds.PatientMotherBirthName = who.mother
    ds.BodyPartExamined = "HIP"
    ds.ScanningSequence = protocol.sequence[0].split("\\")
    ds.SequenceVariant = protocol.sequence[1].split("\\")
    ds.ScanOptions = protocol.options.split("\\") if protocol.options else ""
    ds.MRAcquisitionType = "3D" if protocol.name == "ce" else "2D"
    ds.SliceThickness = f"{protocol.thickness:g}"
    ds.RepetitionTime, ds.EchoTime = f"{protocol.tr:g}", f"{protocol.te:g}"
    if protocol.ti is not None:
        ds.InversionTime = f"{protocol.ti:g}"
    ds.NumberOfAverages = "1"
    ds.ImagingFrequency = f"{42.577 * scanner.field:.4f}"
    ds.ImagedNucleus, ds.EchoNumbers = "1H", 1
    ds.MagneticFieldStrength = f"{scanner.field:g}"
    ds.SpacingBetweenSlices = f"{protocol.spacing[0]:g}"
    ds.EchoTrainLength, ds.FlipAngle = protocol.train, f"{protocol.flip:g}"
    ds.PercentSampling, ds.PercentPhaseFieldOfView = "100", f"{100 * protocol.shape[1] / protocol.shape[2]:.1f}"
    ds.DeviceSerialNumber = where.serials[visit.scanner]
    ds.SoftwareVersions = scanner.software.split("\\") if "\\" in scanner.software else scanner.software
    ds.ProtocolName = protocol.protocol
    ds.ReceiveCoilName = "BODY_18"
    ds.AcquisitionMatrix = [0, protocol.shape[2], protocol.shape[1], 0]
    ds.InPlanePhaseEncodingDirection = "COL"
    ds.PatientPosition = "HFS" if scanner.vendor != "ge" else "FFS"
    if protocol.name == "ce":
        ds.ContrastBolusAgent = "GADOBUTROL"
        ds.ContrastBolusRoute = "IV"
        ds.ContrastBolusVolume = f"{visit.weight_kg * 0.1:.1f}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = visit.study_uid, visit.series_uid(protocol.name)
    ds.StudyID, ds.SeriesNumber, ds.AcquisitionNumber = f"S{visit.number:05d}", number, 1
    direction = [f"{v:.8f}".rstrip("0").rstrip(".") for v in (*_unit(series.affine, 2), *_unit(series.affine, 1))]
    ds.ImageOrientationPatient = ["0" if value in ("-0", "") else value for value in direction]
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = visit.frame_uid, ""
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = protocol.shape[1], protocol.shape[2]
    ds.PixelSpacing = [f"{protocol.spacing[1]:.6g}", f"{protocol.spacing[2]:.6g}"]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, scanner.bits, scanner.bits - 1
    ds.PixelRepresentation = int(scanner.signed)
    if scanner.vendor == "philips":
        ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = "0", "1.78315", "normalized"
    ds.RequestingPhysician, ds.RequestedProcedureDescription = where.physicians[1], "MR Huefte beidseits"
    ds.CurrentPatientLocation = where.department
    ds.PerformedProcedureStepStartDate, ds.PerformedProcedureStepStartTime = day, time
    ds.PerformedProcedureStepID, ds.PerformedProcedureStepDescription = f"PPS{visit.number:06d}", "MR Huefte"
    step = Dataset()
    step.RequestedProcedureDescription, step.ScheduledProcedureStepDescription = "MR Huefte beidseits", "MR Huefte"
    step.ScheduledProcedureStepID, step.RequestedProcedureID = f"SPS{visit.accession[2:]}", f"RP{visit.accession[2:]}"
    ds.RequestAttributesSequence = [step]
    register.add("accessions", step.ScheduledProcedureStepID, step.RequestedProcedureID)
    if visit.chatty:
        ds.AdditionalPatientHistory = f"{family}, {who.latin[1]}: Leistenschmerz seit 3 Monaten, Cortison."
        ds.PatientComments = f"Angehoerige von {family} anrufen: {who.phone}"
        ds.ImageComments = f"Aufnahme {family} unruhig"
        ds.ReasonForTheRequestedProcedure = f"Verlauf Kopfnekrose bei {family}"
        ds.SeriesDescription = f"{protocol.description} {family.upper()}"
    private_of_series(ds, scanner, series, visit.who, where)
    return ds


def _unit(affine: np.ndarray, axis: int) -> list[float]:
    column = affine[:3, axis]
    return list(column / np.linalg.norm(column))
