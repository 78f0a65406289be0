"""Every test gets its own OSTEOFLOW_HOME, so that none can touch another's state or this checkout's."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

NEEDS_ALL = "OSTEOFLOW_TEST_NEEDS_ALL"
"""Set in CI: a test whose program is missing fails there instead of skipping."""

PACKAGES = {
    "tesseract": "tesseract-ocr",
    "/usr/share/tesseract-ocr/5/tessdata/chi_sim.traineddata": "tesseract-ocr-chi-sim",
    "/usr/share/fonts/truetype/wqy/wqy-zenhei.ttc": "fonts-wqy-zenhei",
    "dciodvfy": "dicom3tools",
    "dcmcjpeg": "dcmtk",
    "dcmsend": "dcmtk",
    "Orthanc": "orthanc",
    "/usr/share/orthanc/plugins/libOrthancDicomWeb.so": "orthanc-dicomweb",
}
"""Program, or file, that a test names with `needs` → the Debian package that brings it."""

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.update(
    {"DVC_NO_ANALYTICS": "1", "DO_NOT_TRACK": "1", "MLFLOW_DISABLE_TELEMETRY": "true", "MPLBACKEND": "Agg"}
)
for name in [name for name in os.environ if name.startswith("OSTEOFLOW_") and name != NEEDS_ALL]:
    del os.environ[name]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """OSTEOFLOW_HOME of this test."""
    folder = tmp_path / "home"
    monkeypatch.setenv("OSTEOFLOW_HOME", str(folder))
    return folder


def pytest_runtest_setup(item: pytest.Item) -> None:
    for program in [name for mark in item.iter_markers("needs") for name in mark.args]:
        if shutil.which(program) is None and not Path(program).is_file():
            pytest.skip(f"{program} is not installed (Debian: {PACKAGES[program]})")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> pytest.TestReport:
    """Where every program is said to be there, a skip is a failure."""
    report = yield
    if report.skipped and os.environ.get(NEEDS_ALL):
        report.outcome = "failed"
    return report


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest file first, so that one worker has it while the other does the rest."""
    items.sort(key=lambda item: "test_life.py" not in item.nodeid)
