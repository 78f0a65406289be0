"""MR files with invented people in them, the default options, and a key of the test's own."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from tasks.anonymize import Params
from tasks.keys import Keys
from tasks.keys.keyfile import default_path

ROOT = "1.2.826.0.1.3680043.10.99."


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OSTEOFLOW_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("OSTEOFLOW_KEY_FILE", raising=False)
    return tmp_path / "home"


@pytest.fixture
def keys(home: Path) -> Keys:
    """Of a key that is the same in every run, so that what comes out is too: some UIDs made of a random one would hold
    the very digits that a test looks for."""
    path = default_path()
    path.parent.mkdir(parents=True)
    path.write_text("6b1f9d3c8a5e70412d9bc6f8035ea7914c2d8b60f7e19a3548d0bc61fe72a593")
    path.chmod(0o600)
    return Keys.open()


@pytest.fixture
def options() -> dict[str, Any]:
    """The product's defaults, as params.yaml has them."""
    return {
        "retain_safe_private": True,
        "retain_uids": False,
        "retain_device_identity": False,
        "retain_institution_identity": False,
        "retain_patient_characteristics": True,
        "longitudinal": "modified",
        "clean_descriptors": True,
        "clean_structured_content": False,
        "clean_graphics": False,
        "clean_pixel_data": True,
        "text_every": 32,
        "clean_recognizable_visual_features": False,
        "age_cap": 89,
        "secondary_captures": "refuse",
    }


@pytest.fixture
def params(options: dict[str, Any]) -> Params:
    return Params(**options)


def _mr(
    patient: str = "MRN0047110",
    name: str = "Zwiebelhuber^Kunigunde",
    study: str = "1",
    series: str = "1",
    instance: int = 1,
    day: str = "20210315",
    implicit: bool = False,
) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    meta.MediaStorageSOPInstanceUID = f"{ROOT}{study}.{series}.{instance}"
    meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND", "NORM"]
    ds.SOPClassUID = meta.MediaStorageSOPClassUID
    ds.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = day
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = "101530.25"
    ds.AccessionNumber = "ACC8812345"
    ds.Modality = "MR"
    ds.Manufacturer = "SIEMENS"
    ds.ManufacturerModelName = "Prisma_fit"
    ds.InstitutionName = "Klinikum Quellental"
    ds.ReferringPhysicianName = "Oberdorfer^Balthasar"
    ds.StudyDescription = "MR HIP LEFT Zwiebelhuber"
    ds.SeriesDescription = "COR PD FS"
    ds.PatientName, ds.PatientID = name, patient
    ds.PatientBirthDate, ds.PatientSex, ds.PatientAge = "19480612", "F", "072Y"
    ds.PatientSize, ds.PatientWeight = "1.64", "71"
    ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions = "SE", ["SK", "SP"], "FS"
    ds.MRAcquisitionType, ds.SequenceName = "2D", "*tse2d1_11"
    ds.SliceThickness, ds.RepetitionTime, ds.EchoTime = "3", "3000", "28.5"
    ds.MagneticFieldStrength, ds.FlipAngle, ds.EchoTrainLength = "3", "150", "7"
    ds.SpacingBetweenSlices, ds.SoftwareVersions = "3.3", "syngo MR E11"
    ds.ProtocolName, ds.PatientPosition = "pd_tse_fs_cor", "HFS"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = f"{ROOT}{study}", f"{ROOT}{study}.{series}"
    ds.FrameOfReferenceUID = f"{ROOT}{study}.77"
    ds.StudyID, ds.SeriesNumber, ds.InstanceNumber = "ST991", "4", str(instance)
    ds.ImagePositionPatient = ["-180.5", "20.25", str(100 - 3.3 * instance)[:16]]
    ds.ImageOrientationPatient = ["1", "0", "0", "0", "0", "-1"]
    ds.PositionReferenceIndicator, ds.SliceLocation = "", "12.5"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows = ds.Columns = 16
    ds.PixelSpacing = ["0.4", "0.4"]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.WindowCenter, ds.WindowWidth = "500", "1000"
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = "0", "1.5", "US"
    reference = Dataset()
    reference.ReferencedSOPClassUID = ds.SOPClassUID
    reference.ReferencedSOPInstanceUID = f"{ROOT}{study}.{series}.{instance + 1}"
    ds.ReferencedImageSequence = [reference]
    pixels = np.random.default_rng(instance).integers(0, 4096, (16, 16)).astype("<u2")
    ds.PixelData = pixels.tobytes()
    ds["PixelData"].VR = "OW"
    return ds


def _bytes(ds: Dataset) -> bytes:
    out = io.BytesIO()
    pydicom.dcmwrite(out, ds, enforce_file_format=False)
    return out.getvalue()


@pytest.fixture
def mr() -> Callable[..., FileDataset]:
    """An MR image of an invented patient."""
    return _mr


@pytest.fixture
def as_bytes() -> Callable[[Dataset], bytes]:
    return _bytes


@pytest.fixture
def read() -> Callable[[bytes], FileDataset]:
    return lambda data: pydicom.dcmread(io.BytesIO(data))
