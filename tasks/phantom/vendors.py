"""Private elements as the three vendors write them: some harmless, some with the patient's name in them."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from tasks.phantom.identity import Hospital, Person
from tasks.phantom.scanners import Scanner
from tasks.phantom.study import Series


def private_of_series(ds: Dataset, scanner: Scanner, series: Series, who: Person, where: Hospital) -> None:
    name, serial = f"{who.latin[0]}^{who.latin[1]}", where.serials[["siemens", "ge", "philips"].index(scanner.vendor)]
    if scanner.vendor == "siemens":
        header = ds.private_block(0x0029, "SIEMENS CSA HEADER", create=True)
        text = (
            f'### ASCCONV BEGIN ###\ntPatientName = "{name}"\nsPatPosition = "HFS"\nsProtConsistencyInfo.'
            f'tBaselineString = "N4_VE11C"\nalTR[0] = {series.protocol.tr * 1000:.0f}\n### ASCCONV END ###\n'
        )
        header.add_new(0x08, "CS", "IMAGE NUM 4")
        header.add_new(0x09, "LO", "20180201")
        header.add_new(0x18, "CS", "MR")
        header.add_new(0x20, "OB", _even(b"SV10\x04\x03\x02\x01" + text.encode()))
        medcom = ds.private_block(0x0029, "SIEMENS MEDCOM HEADER", create=True)
        medcom.add_new(0x60, "LO", "com")
        measured = ds.private_block(0x0051, "SIEMENS MR HEADER", create=True)
        rows, columns = (
            series.protocol.shape[1] * series.protocol.spacing[1],
            series.protocol.shape[2] * series.protocol.spacing[2],
        )
        measured.add_new(0x08, "CS", "IMAGE NUM 4")
        measured.add_new(0x0B, "LO", f"{series.protocol.shape[1]}*{series.protocol.shape[2]}")
        measured.add_new(0x0C, "LO", f"FoV {rows:.0f}*{columns:.0f}")
        measured.add_new(0x0F, "LO", "BO1,2;SP2-4")
    elif scanner.vendor == "ge":
        identity = ds.private_block(0x0009, "GEMS_IDEN_01", create=True)
        identity.add_new(0x01, "LO", "GE_GENESIS_FF")
        identity.add_new(0x02, "SH", "MR01")
        identity.add_new(0x04, "SH", "SIGNA")
        identity.add_new(0x31, "LO", serial)
        patient = ds.private_block(0x0011, "GEMS_PATI_01", create=True)
        patient.add_new(0x10, "SS", 0)
        patient.add_new(0x20, "LO", name)
        acquisition = ds.private_block(0x0019, "GEMS_ACQU_01", create=True)
        acquisition.add_new(0x9C, "LO", "fse-xl" if series.protocol.name != "ce" else "efgre3d")
        acquisition.add_new(0x9F, "IS", str(series.protocol.train))
        parameters = ds.private_block(0x0043, "GEMS_PARM_01", create=True)
        parameters.add_new(0x39, "IS", ["0", "0", "0", "0"])
        parameters.add_new(0x61, "UI", "1.2.826.0.1.3680043.8.498.43.61")
    else:
        imaging = ds.private_block(0x2001, "Philips Imaging DD 001", create=True)
        imaging.add_new(0x03, "FL", 0.0)
        imaging.add_new(0x0B, "CS", "CORONAL")
        imaging.add_new(0x18, "SL", series.protocol.shape[0])
        imaging.add_new(0xC8, "LO", f"HIP AVN {who.latin[0]}")
        more = ds.private_block(0x2005, "Philips MR Imaging DD 001", create=True)
        more.add_new(0x0D, "FL", 0.0)
        more.add_new(0x0E, "FL", float(np.float32(0.0123)))
        item = Dataset()
        item.PatientName = name
        item.DeviceSerialNumber = serial
        more.add_new(0x8F, "SQ", Sequence([item]))


def private_of_slice(own: Dataset, scanner: Scanner, series: Series, index: int, position: np.ndarray) -> None:
    if scanner.vendor == "siemens":
        own.add_new(0x00190010, "LO", "SIEMENS MR HEADER")
        own.add_new(0x00191008, "CS", "IMAGE NUM 4")
        own.add_new(0x00191015, "FD", [float(v) for v in position])
    elif scanner.vendor == "ge":
        own.add_new(0x00270010, "LO", "GEMS_IMAG_01")
        own.add_new(0x00271040, "SH", f"{'P' if position[1] > 0 else 'A'}{abs(position[1]):.2f}")
        own.add_new(0x00271041, "FL", float(np.float32(position[1])))
    else:
        own.add_new(0x20010010, "LO", "Philips Imaging DD 001")
        own.add_new(0x2001100A, "IS", str(index + 1))


def _even(data: bytes) -> bytes:
    return data if len(data) % 2 == 0 else data + b"\0"
