"""The dataset stage: claimed versions to archives and rows; versions, purges and erasures over several runs."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset

import tasks.ledger
from tasks.anonymize import Params, item_of, quarantined_keys, run, stage
from tasks.keys import Crosswalk, Keys
from tasks.store import archives, items, tables

Make = Callable[..., FileDataset]
Bytes = Callable[[Dataset], bytes]


@dataclass
class File:
    path: Path
    sop_uid: str
    sha256: str


@dataclass
class Version:
    row_key: str
    study_uid: str
    patient_id: str
    version: int
    files: list[File]
    digest: str
    batch: str | None = None
    origin: str = "hospital"
    site: str = "local"
    purged: bool = False


@dataclass
class Ledger:
    """As much of the ledger as the stage asks."""

    versions: dict[str, Version] = field(default_factory=dict)

    def resolve(self, commitment: str) -> Version | None:
        return self.versions.get(commitment)


@pytest.fixture
def ledger(keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    made = Ledger()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tasks.ledger.Ledger, "open", staticmethod(lambda *args, **kwargs: made))
    return made


def claim(ledger: Ledger, batch: str, *versions: Version) -> None:
    rows = []
    for version in versions:
        commitment = hashlib.sha256(f"{version.row_key}{batch}".encode()).hexdigest()
        version.batch = batch
        ledger.versions[commitment] = version
        rows.append({"commitment": commitment, "version": version.version, "batch": batch, "origin": version.origin})
    tables.write("batch", Path(f"data/batches/{batch}.parquet"), pd.DataFrame(rows))


def version_of(spool: Path, datas: list[bytes], study: str, number: int = 1, patient: str = "MRN0047110") -> Version:
    spool.mkdir(parents=True, exist_ok=True)
    files = []
    for n, data in enumerate(datas):
        path = spool / f"{study}-{number}-{n}.dcm"
        path.write_bytes(data)
        files.append(File(path, f"1.2.{n}", hashlib.sha256(data).hexdigest()))
    uid = f"1.2.826.0.1.3680043.10.99.{study}"
    digest = hashlib.sha256("".join(file.sha256 for file in files).encode()).hexdigest()
    return Version(f"row-{study}-{number}", uid, patient, number, files, digest)


def studies() -> pd.DataFrame:
    return tables.read("studies", Path("data/studies.parquet"))


def test_no_batches_give_an_empty_table(ledger: Ledger, params: Params) -> None:
    run(params, map)
    assert len(studies()) == 0 and Path("data/studies").is_dir()


def test_the_life_of_a_study(
    tmp_path: Path,
    ledger: Ledger,
    keys: Keys,
    params: Params,
    mr: Make,
    as_bytes: Bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spool = tmp_path / "home" / "identified" / "spool"
    first = version_of(spool, [as_bytes(mr(study="1", instance=n)) for n in (1, 2)], "1")
    second = version_of(spool, [as_bytes(mr(study="2", day="20210614"))], "2")
    broken = version_of(spool, [as_bytes(mr(study="3"))[:-50]], "3")
    mixed = version_of(spool, [as_bytes(mr(study="4")), as_bytes(mr(study="4", instance=2, patient="B"))], "4")
    claim(ledger, "0001", first, second, broken, mixed)
    run(params, map)
    table = studies().set_index("study")
    one, two = table.loc[keys.uid(first.study_uid)], table.loc[keys.uid(second.study_uid)]
    assert one["status"] == two["status"] == "released" and (one["days"], two["days"]) == (0.0, 91.0)
    assert one["files"] == 2.0 and one["archive"] == f"0001/{keys.uid(first.study_uid)}-v1.zip" and one["reason"] == ""
    assert one["subject"] == keys.subject("local", "MRN0047110") and one["origin"] == "hospital"
    assert table.loc[keys.uid(broken.study_uid)]["reason"] == "truncated"
    assert table.loc[keys.uid(mixed.study_uid)]["reason"] == "two_patients_in_study"
    assert sorted(quarantined_keys(ledger)) == [("row-3-1", "truncated"), ("row-4-1", "two_patients_in_study")]  # type: ignore[arg-type]
    entries = dict(archives.read(Path("data/studies") / str(one["archive"])))
    headers = [pydicom.dcmread(io.BytesIO(data)) for data in entries.values()]
    assert all(
        name == f"{ds.SeriesInstanceUID}/{ds.SOPInstanceUID}.dcm" for name, ds in zip(entries, headers, strict=True)
    )
    assert one["date"].replace("-", "") == headers[0].AcquisitionDate
    person = Crosswalk(keys).find(str(one["subject"]))
    assert person is not None and set(person.studies.values()) == {first.study_uid, second.study_uid}

    # Nothing new: nothing is done again, and the bytes are the same.
    before = Path("data/studies.parquet").read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(stage, "process", lambda *args: pytest.fail("done again"))
        run(params, map)
    assert Path("data/studies.parquet").read_bytes() == before

    # A late slice makes a second version; the first is superseded.
    late = version_of(spool, [as_bytes(mr(study="1", instance=n)) for n in (1, 2, 3)], "1", 2)
    claim(ledger, "0002", late)
    run(params, map)
    table = studies()
    both = table[table["study"] == keys.uid(first.study_uid)].set_index("version")["status"].to_dict()
    assert both == {1.0: "superseded", 2.0: "released"}

    # Originals are purged: the archive stays, frozen, whatever else changes.
    for file in second.files:
        file.path.unlink()
    second.purged = True
    run(Params(**(params.model_dump() | {"age_cap": 80})), map)
    table = studies().set_index(["study", "version"])
    kept = table.loc[(keys.uid(second.study_uid), 1.0)]
    assert kept["status"] == "frozen" and (Path("data/studies") / str(kept["archive"])).exists()

    # A patient is erased: rows and files go.
    ledger.versions.clear()
    run(params, map)
    assert len(studies()) == 0 and not list(Path("data/studies").rglob("*.zip"))


def test_an_arrived_study_is_adopted(
    tmp_path: Path,
    ledger: Ledger,
    keys: Keys,
    params: Params,
    mr: Make,
    as_bytes: Bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    version = version_of(tmp_path / "home" / "identified" / "spool", [as_bytes(mr(study="1"))], "1")
    item = item_of(version)  # type: ignore[arg-type]
    pickle.dumps(item)
    rows, folder = items.arrive("anonymize", item, stage.process, params)
    assert rows[0]["status"] == "released" and (folder / rows[0]["owns"]).exists()
    claim(ledger, "0007", version)
    monkeypatch.setattr(stage, "process", lambda *args: pytest.fail("done again"))
    run(params, map)
    row: dict[str, Any] = studies().iloc[0].to_dict()
    assert row["archive"].startswith("0007/") and row["batch"] == "0007" and row["days"] == 0.0
    assert (Path("data/studies") / row["archive"]).exists()


def test_policy_keeps_some_files_of_a_study_back(
    tmp_path: Path, ledger: Ledger, keys: Keys, params: Params, mr: Make, as_bytes: Bytes
) -> None:
    capture = mr(study="1", instance=9)
    capture.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    spool = tmp_path / "home" / "identified" / "spool"
    claim(
        ledger,
        "0001",
        version_of(spool, [as_bytes(mr(study="1")), as_bytes(capture)], "1"),
        version_of(spool, [as_bytes(capture).replace(b".99.1", b".99.2")], "2"),
    )
    run(params, map)
    rows = {row["status"]: row for row in studies().to_dict("records")}
    assert rows["released"]["files"] == 1.0 and rows["released"]["reason"] == "secondary_capture"
    assert rows["quarantined"]["reason"] == "secondary_capture"
