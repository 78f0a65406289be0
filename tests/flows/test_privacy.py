"""Archives that must not have been released: found everywhere, gone everywhere, released again or withdrawn."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
import pytest
import yaml
from dicom_files import dataset, encoded
from PIL import Image, ImageDraw, ImageFont

from flows import lineage, privacy
from tasks import anonymize, receive
from tasks.anonymize import stage
from tasks.domain.params import load
from tasks.domain.settings import Settings
from tasks.keys import Keys
from tasks.ledger import Ledger
from tasks.store import archives, tables

ROOT = Path(__file__).parents[2]
CACHE = Path(".dvc/cache/files/md5")


def release_all(ledger: Ledger) -> None:
    """What a dataset run does: claim, anonymize, finish."""
    batch = ledger.claim_batch("test")
    assert batch is not None
    rows = [
        {name: row[name] for name in ("commitment", "version", "batch", "origin")} for row in ledger.batch_rows(batch)
    ]
    tables.write("batch", Path(f"data/batches/{batch}.parquet"), pd.DataFrame(rows))
    ledger.batch_written(batch)
    stage.run(load("anonymize", anonymize.Params), map)
    ledger.finish_batch(batch)


def cached(path: Path, name: str) -> str:
    """Put a file into DVC's cache; returns its digest."""
    digest = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() + name
    place = CACHE / digest[:2] / digest[2:]
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, place)
    return digest


def planted(archive: Path, text: str) -> None:
    """A surname back in the description of the first file of an archive, as an older cleaner might have left it."""
    entries = list(archives.read(archive))
    ds = pydicom.dcmread(io.BytesIO(entries[0][1]))
    ds.SeriesDescription = text
    out = io.BytesIO()
    pydicom.dcmwrite(out, ds, enforce_file_format=False)
    archives.write(archive, [(entries[0][0], out.getvalue()), *entries[1:]])


@pytest.fixture
def ledger(workspace: Path) -> Ledger:
    """Three studies of three people, released; two with a leak: one has its originals, the other has not."""
    shutil.copy(ROOT / "params.yaml", "params.yaml")
    for n in (1, 2, 3):
        for number in (1, 2):
            path = Path(f"incoming/{n}-{number}.dcm")
            path.parent.mkdir(exist_ok=True)
            name = ("Zwiebelhuber^Kunigunde", "Oberdorfer^Balthasar", "Abendroth^Eulalia")[n - 1]
            path.write_bytes(encoded(dataset(f"1.2.3.{n}", number=number, patient=f"PAT-{n}", PatientName=name)))
    ledger = Ledger.open()
    params = load("receive", receive.Params)
    receive.ingest(Path("incoming"), ledger, "local", "hospital", params)
    receive.settle(ledger, params, force=True)
    release_all(ledger)
    keys = Keys.open()
    found = {n: next(Path("data/studies").rglob(f"{keys.uid(f'1.2.3.{n}')}-v1.zip")) for n in (1, 2, 3)}
    planted(found[1], "COR ZWIEBELHUBER")
    planted(found[2], "COR Balthasar")
    receive.purge_originals(ledger, ledger.find("1.2.3.2")[0].row_key)
    members = [
        {"md5": cached(path, ""), "relpath": path.relative_to("data/studies").as_posix()} for path in found.values()
    ]
    listing = Path("listing")
    listing.write_text(json.dumps(members))
    folder = cached(listing, ".dir")
    listing.unlink()
    # A recorded run that had them, and a remote to which they were pushed.
    Path("dvc.lock").write_text(
        yaml.safe_dump({"stages": {"anonymize": {"outs": [{"path": "data/studies", "md5": folder}]}}})
    )
    lineage.commit("dataset run")
    with open(".dvc/config", "a", encoding="utf-8") as config:
        config.write(f"['remote \"copy\"']\n    url = {workspace.parent / 'remote'}\n")
    for member in members:
        place = workspace.parent / "remote" / "files" / "md5" / member["md5"][:2] / member["md5"][2:]
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(CACHE / member["md5"][:2] / member["md5"][2:], place)
    return ledger


def everything(workspace: Path) -> bytes:
    """All bytes of the workspace and the remote, outside the identified zone."""
    files = [
        path for folder in (workspace, workspace.parent / "remote") for path in folder.rglob("*") if path.is_file()
    ]
    return b"".join(path.read_bytes() for path in files if "incoming" not in path.parts)


def test_every_copy_goes(workspace: Path, ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    keys = Keys.open()
    told = privacy.verify(dry_run=True)
    assert told["checked"] == 3 and len(told["leaks"]) == 2 and b"ZWIEBELHUBER" in everything(workspace)
    assert all(not leak["outcome"] for leak in told["leaks"])

    done = privacy.verify(again=lambda: release_all(ledger))
    leaks: dict[str, dict[str, Any]] = {leak["subject"]: leak for leak in done["leaks"]}
    first, second = (leaks[keys.subject("local", f"PAT-{n}")] for n in (1, 2))
    assert first["outcome"] == "released again as version 2" and second["outcome"] == "withdrawn: no original is left"
    for leak in (first, second):
        assert len(leak["copies"]) == 3 and "remote copy" in leak["copies"] and len(leak["dataset_runs"]) == 1
        assert any("(0008,103E)" in kind for kind in leak["wrong"])
    assert done["left"] == []
    left = everything(workspace)
    for secret in (b"ZWIEBELHUBER", b"Balthasar"):
        assert secret not in left and secret.decode() not in json.dumps(done)

    studies = tables.read("studies", Path("data/studies.parquet"))
    now = {(row.study, row.version): row.status for row in studies.itertuples()}
    assert now == {(keys.uid("1.2.3.1"), 2.0): "released", (keys.uid("1.2.3.3"), 1.0): "released"}
    assert ledger.quarantined() == {"privacy": 1}
    assert privacy.verify(again=lambda: None) == {"checked": 2, "leaks": [], "left": []}


def test_an_archive_that_cannot_be_read_ends_nothing(workspace: Path, ledger: Ledger) -> None:
    whole = next(Path("data/studies").rglob(f"{Keys.open().uid('1.2.3.3')}-v1.zip"))
    cut = whole.with_name("1.2.3.4.5-v1.zip")
    cut.write_bytes(whole.read_bytes()[:-40])
    done = privacy.verify(again=lambda: release_all(ledger))
    outcomes = {leak["outcome"].partition(":")[0] for leak in done["leaks"]}
    assert outcomes == {"kept", "released again as version 2", "withdrawn"}
    assert done["left"] == [] and b"ZWIEBELHUBER" not in everything(workspace)


def test_what_was_removed_is_certified_though_the_arrival_loop_fails(workspace: Path, ledger: Ledger) -> None:
    def fails() -> None:
        raise RuntimeError("no server")

    with pytest.raises(RuntimeError):
        privacy.verify(again=fails)
    [certificate] = (Settings().home / "certificates").glob("privacy-*.json")
    told = json.loads(certificate.read_text())
    assert len(told["leaks"]) == 2 and told["left"] is None
    assert b"ZWIEBELHUBER" not in everything(workspace)


@pytest.mark.needs("tesseract")
def test_text_in_pixels_is_a_leak_too(workspace: Path, ledger: Ledger) -> None:
    """An archive from before pictures were searched for text."""
    today = Path("params.yaml").read_text()
    Path("params.yaml").write_text(today.replace("clean_pixel_data: true", "clean_pixel_data: false"))
    picture = Image.new("L", (160, 160))
    drawing = ImageDraw.Draw(picture)
    drawing.fontmode = "1"
    drawing.text((6, 6), "ABENDROTH EULALIA", fill=255, font=ImageFont.load_default(12))
    pixels = np.random.default_rng(1).integers(0, 300, (160, 160)).astype("<u2")
    pixels[np.asarray(picture) > 127] = 4095
    shown = {"Rows": 160, "Columns": 160, "PixelData": pixels.tobytes()}
    for number in (1, 2):
        Path(f"later-{number}.dcm").write_bytes(encoded(dataset("1.2.3.4", number=number, patient="PAT-4", **shown)))
        receive.ingest(Path(f"later-{number}.dcm"), ledger, "local", "hospital", load("receive", receive.Params))
    receive.settle(ledger, load("receive", receive.Params), force=True)
    release_all(ledger)
    Path("params.yaml").write_text(today)
    found = privacy.verify(dry_run=True)["leaks"]
    subject = Keys.open().subject("local", "PAT-4")
    assert [leak["wrong"] for leak in found if leak["subject"] == subject] == [["text in pixels"]]

    # What was made of the picture: a hip, under the name of the first study of its visit. The archive itself lies in
    # the cache under no name.
    study, visit = Keys.open().uid("1.2.3.4"), "2.25.77"
    cached(next(Path("data/studies").rglob(f"{study}-v1.zip")), "")
    hip = Path(f"data/hips/{visit}-L.bin")
    hip.parent.mkdir(parents=True)
    hip.write_bytes(b"pixels of a hip")
    hips = [{"md5": cached(hip, ""), "relpath": hip.name}]
    Path("listing").write_text(json.dumps(hips))
    cached(Path("listing"), ".dir")
    rows = Settings().home / "arrived" / "standardize" / visit / "rows.json"
    rows.parent.mkdir(parents=True)
    rows.write_text(json.dumps({"rows": [{"study": study}]}))
    others = {path for path in CACHE.rglob("*") if path.is_file() and b"Balthasar" not in path.read_bytes()}

    done = privacy.verify(again=lambda: release_all(ledger))
    assert done["left"] == []
    assert not hip.exists() and not rows.exists() and not (CACHE / hips[0]["md5"][:2] / hips[0]["md5"][2:]).exists()
    gone = {path for path in others if not path.exists()}
    assert len(gone) == 3  # the hip, the archive without a name, and that of the surname in a description
