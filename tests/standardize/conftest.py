from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bodies import ROLES, Hip, Scan, pelvis, scan

from tasks.domain.params import load
from tasks.domain.volume import Volume
from tasks.standardize.params import Params


@pytest.fixture(scope="session")
def params() -> Params:
    import yaml

    return load("standardize", Params, yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8")))


@pytest.fixture(scope="session")
def person() -> tuple[dict[str, Volume], dict[str, Hip]]:
    """One person: T1 and fluid in thick coronal slices, contrast in thin ones, a little oblique; and the true hips."""
    rng = np.random.default_rng(40)
    body, hips = pelvis(rng)
    middle = np.mean([hip.centre for hip in hips.values()], axis=0)
    thick = Scan("coronal", 380.0, 160, 4.4, 4.0, 12, middle + [3.0, -4.0, 6.0], (3.0, -2.0, 1.5))
    thin = Scan("coronal", 400.0, 128, 1.6, 1.6, 36, middle, (3.0, -2.0, 1.5))
    volumes = scan(body, thick, rng, ("t1", "fluid")) | scan(body, thin, rng, (ROLES[2],))
    return volumes, hips
