"""Trained networks on disk: `<name>.safetensors` with the weights, `<name>.json` with what is needed to use them.

The record always holds `weights` (SHA-256 of the safetensors file), `architecture` (what the network is built from),
`trained_on` (subjects whose images are in these weights, those of networks it was started from included), `inputs`
(digest of data, parameters and code) and `warm_started_from` (`weights` of the earlier network, or null).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import nn

from tasks.domain.errors import Differs
from tasks.store.digests import sha256_file
from tasks.store.files import read_json, replacing, write_json
from tasks.training import distribution

_log = logging.getLogger("osteoflow.training")


def save(folder: Path, name: str, model: nn.Module, record: dict[str, Any]) -> dict[str, Any]:
    """Weights first, then the record that holds their digest; returns the record as written, by the first process."""
    path = folder / f"{name}.safetensors"
    if distribution.first():
        with replacing(path) as partial:
            save_file({key: tensor.detach().cpu().contiguous() for key, tensor in model.state_dict().items()}, partial)
        write_json(folder / f"{name}.json", record | {"weights": sha256_file(path)})
    distribution.wait()
    written: dict[str, Any] = read_json(folder / f"{name}.json")
    return written


def record(folder: Path, name: str) -> dict[str, Any] | None:
    """The record of a network whose weights are there, else None."""
    path = folder / f"{name}.json"
    return read_json(path) if path.exists() and (folder / f"{name}.safetensors").exists() else None


def load(folder: Path, name: str, model: nn.Module) -> dict[str, Any]:
    """Fill `model` with the weights of `name`, after their digest was checked; returns the record."""
    path, kept = folder / f"{name}.safetensors", read_json(folder / f"{name}.json")
    if sha256_file(path) != kept["weights"]:
        raise Differs(f"{path} is not the file that {name}.json describes; run the stage again or restore it")
    model.load_state_dict(load_file(path))
    return kept


def parent(
    folder: Path, name: str, architecture: dict[str, Any], allowed: Iterable[str], wanted: bool
) -> dict[str, Any] | None:
    """The record of the previous network to start from, or None for a cold start, with the reason in the log.

    It must be of the same architecture and have seen only subjects of `allowed`: today's training subjects of this
    network. One that has seen the fold now left out, or a subject erased or withdrawn since, is not used.
    """
    kept = record(folder, name) if wanted else None
    if kept is None:
        return None
    if kept["architecture"] != architecture:
        _log.info("%s: cold start, the architecture has changed", name)
        return None
    foreign = set(kept["trained_on"]) - set(allowed)
    if foreign:
        _log.info("%s: cold start, the previous network has seen %d subjects it may not", name, len(foreign))
        return None
    return kept
