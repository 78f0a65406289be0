"""The environment that the three tools run in: everything local, nothing phones home, nothing in a home folder.

`prepare()` must run before prefect, mlflow or dvc are imported, since they read their settings on import. A value that
the user has set is kept: PREFECT_API_URL and MLFLOW_TRACKING_URI point to servers elsewhere if so wished.
"""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path

from tasks.domain.settings import Settings

HEARTBEAT_S = 30
"""A flow run tells of itself so often; infra/automations.yaml calls it dead after a few times that long."""


def prepare(root: Path | None = None) -> Settings:
    """Set the tools' environment for the workspace `root` (default: the current folder) and return the settings."""
    root = (root or Path.cwd()).resolve()
    os.environ["OSTEOFLOW_HOME"] = str((root / os.environ.get("OSTEOFLOW_HOME", ".osteoflow")).resolve())
    settings = Settings().ensure()
    home = settings.home
    for name, value in {
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "300",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "PREFECT_LOGGING_SERVER_LEVEL": "ERROR",
        "PREFECT_CLI_PROMPT": "false",
        "PREFECT_RUNNER_POLL_FREQUENCY": "2",
        # In memory, the server's own default, a restart forgets who holds a slot, and nobody gets it any more.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_S),
        "DO_NOT_TRACK": "1",
        "MLFLOW_TRACKING_URI": f"sqlite:///{home / 'mlflow.sqlite'}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # Jobs of the server judge texts of language models: eight idle processes that nobody here asks for.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_DEFAULT_ARTIFACT_ROOT": str(home / "mlartifacts"),
        "_MLFLOW_SERVER_ARTIFACT_ROOT": str(home / "mlartifacts"),
        "GIT_PYTHON_REFRESH": "quiet",
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(home / "dvc"),
        "MPLCONFIGDIR": str(home / "matplotlib"),
        "MPLBACKEND": "Agg",
        "NUMBA_CACHE_DIR": str(home / "numba"),
        "PYTHONWARNINGS": "ignore::FutureWarning,ignore::DeprecationWarning",
    }.items():
        os.environ.setdefault(name, value)
    # pydicom's warnings quote the values that they are about, which may be a patient's.
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=r"pydicom\.")
    return settings


def of_worker() -> None:
    """Of a worker of `prefect worker start`: a step of infra/prefect.yaml, taken before the flow is imported."""
    prepare()
