"""A champion that has learnt nothing: networks of the size that the parameters ask for, one set a fold, random weights.

It takes seconds to make and as long as a trained one to use, so that what scoring costs can be timed, and what becomes
of its networks in memory tested. Its masks are balls around the head's centre; its numbers mean nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file

from tasks import assemble, register
from tasks.classify import reading
from tasks.nets.forecaster import Residual
from tasks.register.package import digest_of, digests
from tasks.register.register import FORECASTER, HERE
from tasks.register.signature import example, signature
from tasks.segment.predict import LABELS, build
from tasks.store import tables
from tasks.store.files import write_bytes, write_json
from tasks.training import models

ROLES = ["t1", "fluid", "contrast"]
REACH_MM = {"hip": 24.0, "vessel": 8.0}


def package(folder: Path, params: dict[str, Any], seed: int = 1, origin: str = "phantom") -> Path:
    """Write a package to `folder` from whole `params` (as in params.yaml); another `seed` is another package."""
    torch.manual_seed(seed)
    folds = [str(fold) for fold in range(params["split"]["folds"])]
    _classify(folder / "classify", params["classify"], folds)
    _segment(folder / "segment", params["segment"], folds)
    vectors = pd.DataFrame({"hip_visit": ["1-L"], "features": [[0.0] * len(reading.FEATURES)]})
    names = assemble.feature_names(vectors, assemble.Params.model_validate(params["assemble"]))
    horizon = float(params["forecast"].get("horizon_days", params["assemble"]["horizon_days"]))
    _forecast(folder / "forecast", names, folds, horizon)
    write_bytes(folder / "forecaster.py", FORECASTER.read_bytes())
    write_bytes(folder / "model.py", (HERE / "model.py.txt").read_bytes())
    write_json(folder / "params.json", params)
    sequences = tables.empty("sequences")
    write_json(folder / "signature.json", signature(sequences))
    write_json(folder / "input_example.json", [row | {"features": None} for row in example(sequences, 1)])
    files = digests(folder)
    facts = {"name": "onfh-progression", "origin": origin, "horizon_days": horizon, "features": names,
             "evaluate": {}, "seed": seed, "files": files}  # fmt: skip
    write_json(folder / "package.json", facts | {"digest": digest_of(facts, {k: files[k] for k in files})})
    return folder


def champion(folder: Path, params: dict[str, Any], seed: int = 1) -> int:
    """Register a package of `package` and make it the champion of the workspace that this process is in."""
    from flows import tracking

    made = package(folder, params, seed)
    run = tracking.begin("untrained", {})
    version = tracking.register(made, register.package_digest(made), run, {}, {"origin": "phantom"})
    tracking.end(run)
    tracking.keep(made, version.number)
    tracking.point("champion", version.number)
    tracking.note("promoted", version.number, "it is what there is")
    return version.number


def _save(folder: Path, name: str, net: torch.nn.Module, about: dict[str, Any]) -> None:
    models.save(folder, name, net, about | {"trained_on": [], "inputs": "", "warm_started_from": None})


def _classify(folder: Path, how: dict[str, Any], folds: list[str]) -> None:
    shape = {"kind": "visit_encoder", "network": how["network"], "roles": ROLES, "dropout": how["dropout"],
             "reduced": how["reduced"], "width": how["width"]}  # fmt: skip
    taught = dict.fromkeys((*reading.HEADS, "slice", "cells"), 1)
    keys = ("size_px", "reach_mm", "uncertainty_subsets")
    for fold in folds:
        about = {"architecture": shape, "taught": taught, "reading": {key: how[key] for key in keys}}
        _save(folder, f"fold{fold}", reading.build(shape), about)
    write_json(folder / "features.json", {"features": reading.FEATURES, "roles": ROLES, "folds": folds, "reason": None})


def _segment(folder: Path, how: dict[str, Any], folds: list[str]) -> None:
    shapes = {
        "hip": {"roles": ROLES} | {key: how["hip"][key] for key in ("deepest", "width")},
        "vessel": {key: how["vessel"][key] for key in ("slab", "context", "deepest", "width")},
    }
    sizes = {"hip": how["hip"]["size_px"], "vessel": 0}
    names: dict[str, list[str]] = {kind: [f"{kind}-fold{fold}" for fold in folds] for kind in LABELS}
    for kind, shape in shapes.items():
        architecture = {"kind": kind, "network": how["network"], **shape}
        for name in names[kind]:
            # Whatever the network says, within reach of the centre it is enough: a head of the size of a real one.
            about = {"size_px": sizes[kind], "threshold": 1e-6, "reach_mm": REACH_MM[kind]}
            _save(folder, name, build(architecture), {"architecture": architecture, "reading": about})
    write_json(folder / "segment.json", {"networks": names, "folds": folds, "reason": None})


def _forecast(folder: Path, names: list[str], folds: list[str], horizon: float) -> None:
    width, dice = len(names), np.random.default_rng(1)
    for fold in folds:
        arrays = {
            "impute": np.zeros(width), "centre": np.zeros(width), "scale": np.ones(width),
            "weight": dice.normal(0, 0.1, 3 * width), "alpha": np.full(4, -2.0),
            "spread": dice.normal(0, 0.01, (200, 3 * width + 1)), "whiten": np.eye(width),
        }  # fmt: skip
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        residual = {f"residual.{key}": value for key, value in Residual(width, 16).state_dict().items()}
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors | residual, folder / f"fold{fold}.safetensors")
        write_json(folder / f"fold{fold}.json", {"hidden": 16, "amount": 0.5})
    facts = {"members": [f"fold{fold}" for fold in folds], "features": names, "interval": 0.95,
             "calibration": {"intercept": 0.0, "slope": 1.0}, "required_roles": [], "usual": [0, 1],
             "max_missing_share": 1.0, "distance_limit": 1e9, "horizon_days": horizon}  # fmt: skip
    write_json(folder / "ensemble.json", facts)
    write_json(folder / "inputs.json", names)
