from __future__ import annotations

from pathlib import Path

import pytest
from hospital import Hospital, Visit

from tasks.keys import Keys


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    path = tmp_path / "project.key"
    path.write_bytes(bytes((n * n * 7 + n * 91 + 13) % 251 for n in range(32)))
    path.chmod(0o600)
    return Keys.open(path)


@pytest.fixture
def hospital(tmp_path: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> Hospital:
    """Two patients with two visits each; the test runs in the workspace's folder."""
    folder = tmp_path / "workspace"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return Hospital(folder, keys, [Visit(patient, n) for patient in ("P-0007", "0815") for n in (0, 1)])
