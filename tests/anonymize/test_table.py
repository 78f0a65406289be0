"""Every row of Table E.1-1, at the top level and inside a sequence, under the default options and others."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence

import tasks.anonymize
from tasks.anonymize import Params, release
from tasks.keys import Keys

RULES = Path(tasks.anonymize.__file__).parent / "rules" / "e1_1.csv"
CANARY = "QXZVKANARI"
VALUES: dict[str, Any] = {
    "DA": "20210315",
    "DT": "20210315101010",
    "TM": "101010",
    "AS": "034Y",
    "UI": "1.2.3.4.55555",
    "DS": "12.5",
    "IS": "12",
    "US": 7,
    "AT": 0x00100010,
    "CS": CANARY,
    "OB": CANARY.encode(),
    "UN": CANARY.encode(),
    "OW": CANARY.encode(),
}
SET_ELSEWHERE = {"00080016", "00080018", "0020000D", "0020000E", "00100010", "00100020", "00020003", "00080005"}
MARKS = {"00120062", "00120063", "00120064", "00280303"}


def rows() -> list[dict[str, str]]:
    with open(RULES, encoding="utf-8", newline="") as handle:
        return [
            row
            for row in csv.DictReader(handle)
            if row["keyword"] and len(row["tag"]) == 8 and row["tag"] not in SET_ELSEWHERE | MARKS
            and 8 <= int(row["tag"][:4], 16) < 0xFFFA and not int(row["tag"][:4], 16) & 1
        ]  # fmt: skip


def planted(tag: int, vr: str) -> DataElement:
    if vr == "SQ":
        inner = Dataset()
        inner.CodeValue, inner.CodingSchemeDesignator, inner.CodeMeaning = "1", "DCM", CANARY
        inner.ReferencedSOPInstanceUID, inner.PatientComments = "1.2.3.4.55555", CANARY
        return DataElement(tag, vr, Sequence([inner]))
    return DataElement(tag, vr, VALUES.get(vr, CANARY))


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"longitudinal": "removed", "retain_patient_characteristics": False, "clean_descriptors": False},
        {"longitudinal": "full", "retain_uids": True},
    ],
    ids=["default", "basic", "full"],
)
def test_every_row(
    mr: Callable[..., FileDataset],
    as_bytes: Callable[[Dataset], bytes],
    read: Callable[[bytes], FileDataset],
    keys: Keys,
    options: dict[str, Any],
    changed: dict[str, Any],
) -> None:
    params = Params(**(options | changed))
    columns = [name for name, on in params.model_dump().items() if on is True]
    if params.longitudinal != "removed":
        columns.append(f"retain_longitudinal_{params.longitudinal}_dates")
    wrong: list[str] = []
    checked = 0
    source = mr()
    planted_rows = [(row, int(row["tag"], 16), dictionary_VR(row["tag"])[:2]) for row in rows()]
    for _, tag, vr in planted_rows:
        source.add(planted(tag, vr))
    inner = Dataset()
    for _, tag, vr in planted_rows:
        inner.add(planted(tag, vr))
    source.AnatomicRegionSequence = [inner]
    out = read(release(as_bytes(source), "local", keys, params).data)
    for row, tag, vr in planted_rows:
        said = {row[name] for name in columns if row.get(name)}
        for place, found in (("top", out.get(tag)), ("nested", out.AnatomicRegionSequence[0].get(tag))):
            checked += 1
            if (complaint := judge(row, vr, said, found, keys, params)) is not None:
                wrong.append(f"{row['tag']} {row['keyword']} {vr} {place} {row['basic']} {said}: {complaint}")
    assert not wrong, "\n".join(wrong[:40])
    assert checked > 1200


def judge(
    row: dict[str, str], vr: str, said: set[str], found: DataElement | None, keys: Keys, params: Params
) -> str | None:
    text = "" if found is None else str(found.value)
    if CANARY in text:
        return "the canary is there"
    if "K" in said and vr == "UI":
        # retain_uids: what an allowed UID says stays.
        return None if found is None or text == VALUES["UI"] else "a retained UID changed"
    if row["basic"] == "U" and found is not None and text != keys.uid(VALUES["UI"]):
        return f"not the keyed UID: {text}"
    if said & {"K", "C"}:
        if vr == "DA" and found is not None and params.longitudinal == "full" and text not in ("20210315", ""):
            return "a retained date changed"
        if vr == "DA" and found is not None and params.longitudinal == "modified" and text == "20210315":
            return "the date did not move"
        return None
    if row["basic"] == "X" and found is not None:
        return "it is there"
    if row["basic"] == "Z" and text not in ("", "[]", "<Sequence, length 0>"):
        return f"it is not empty: {text}"
    if vr in ("DA", "DT") and "2021" in text:
        return "the date is there"
    return "the UID is there" if "1.2.3.4.55555" in text else None
