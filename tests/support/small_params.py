"""The sections of params.yaml that train, cut down so that a test takes seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tasks.domain.params import lay_over

ROOT = Path(__file__).resolve().parents[2]
NETWORK = "mobilenet_v3_small"


def small(**changes: dict[str, Any]) -> dict[str, Any]:
    """{section: values}; `changes` are merged into a section, nested ones too."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    lay_over(params["compare"], {"networks": [NETWORK], "size_px": 32, "slices": 3, "bootstrap": 50})
    lay_over(
        params["classify"],
        {"network": NETWORK, "size_px": 32, "slices": 3, "bootstrap": 50, "width": 32, "reduced": 16},
    )
    hip, vessel = {"size_px": 48, "slices": 4, "width": 32}, {"width": 8, "slabs": 2}
    lay_over(params["segment"], {"network": NETWORK, "bootstrap": 50, "hip": hip, "vessel": vessel})
    sections = (params["compare"], params["classify"], params["segment"]["hip"], params["segment"]["vessel"])
    for section in sections:
        lay_over(section, {"recipe": {"epochs": 2, "batch": 8, "settle": 2, "checkpoint_steps": 0, "ema": 0.5}})
        if "warm_epochs" in section:
            section["warm_epochs"] = 1
    for name, values in changes.items():
        lay_over(params[name], values)
    return params
