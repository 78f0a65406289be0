"""Where things are: the OSTEOFLOW_* environment. Nothing here changes a result; what does is in params.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic_settings import BaseSettings, SettingsConfigDict

OCR = "tesseract"
"""The program that reads text in pictures, found by PATH."""


class Settings(BaseSettings):
    """Read anew each time (`Settings()`), so that `osteoflow -C DIR` and tests see the environment as it is now."""

    model_config = SettingsConfigDict(env_prefix="OSTEOFLOW_", frozen=True)

    home: Path = Path(".osteoflow")
    key_file: Path | None = None
    ledger_url: str | None = None
    dicom_port: int = 11112
    dicom_host: str = "127.0.0.1"
    """The address that C-STORE binds to: loopback unless told otherwise."""
    dicom_peers: str = ""
    """Who may send, as `AET` or `AET@host`, separated by commas; empty: anyone who reaches the port."""
    dicom_tls_cert: Path | None = None
    dicom_tls_key: Path | None = None
    dicom_tls_ca: Path | None = None
    """PEM files: with a certificate, C-STORE speaks TLS only; with a CA, senders need a certificate of it."""
    dicom_sites: str = ""
    """Further titles that are answered, each the door of a site: `AET=site`, separated by commas."""
    dicom_query: str = ""
    """`AET@host:port` of the PACS that is asked by C-FIND how many files a study has; empty: none is."""
    dicom_query_tls_ca: Path | None = None
    """A PEM file: that PACS is asked by TLS only, and its certificate must be of this CA and name the host."""
    origin: Literal["hospital", "phantom"] = "hospital"
    """What everything that is received is: `phantom` for a rehearsal."""
    orthanc_url: str | None = None
    dicomweb_url: str | None = None
    """http(s)://[user:password@]host:port/…, an Orthanc whose changes are followed, a DICOMweb origin server that is
    polled."""
    ae_title: str = "OSTEOFLOW"
    site: str = "local"
    http_port: int = 8800
    dask_scheduler: str | None = None
    work_pool: str | None = None
    """Prefect work pool whose workers train networks one by one (flows/parts.py); default: this process does."""
    workers: int | None = None
    """Local processes for item-wise rooms (read by tasks.store.mapping); default: the cores of this process."""

    @property
    def identified(self) -> Path:
        """The identified zone: the only place where PHI may be. Mode 0700, made on first use by `ensure`."""
        return self.home / "identified"

    def ensure(self) -> Settings:
        self.home.mkdir(parents=True, exist_ok=True)
        self.identified.mkdir(mode=0o700, exist_ok=True)
        return self
