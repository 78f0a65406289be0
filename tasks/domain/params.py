"""params.yaml, one section a stage. A section is one frozen pydantic model; an unknown key is an error."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from tasks.domain.errors import WrongUse

PARAMS_FILE = Path("params.yaml")


class Section(BaseModel):
    """Base of every room's `Params`: frozen, no unknown keys, no defaults hidden in code."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def digest(self) -> str:
        """SHA-256 over the section's canonical JSON: part of the identity of every item made with it."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


S = TypeVar("S", bound=Section)


def load(section: str, model: type[S], source: Mapping[str, Any] | None = None) -> S:
    """Read `section` of params.yaml (or of `source`, the parameters as a flow read them before the run).

    Raises WrongUse naming the key that is missing, unknown or of the wrong type.
    """
    if source is None:
        if not PARAMS_FILE.exists():
            raise WrongUse("params.yaml is not in this folder; run from the root of a checkout or use -C DIR")
        source = yaml.safe_load(PARAMS_FILE.read_text(encoding="utf-8"))
    if section not in source:
        raise WrongUse(f"params.yaml has no section '{section}'")
    try:
        return model.model_validate(source[section])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join([section, *(str(part) for part in first["loc"])])
        raise WrongUse(f"params.yaml: {where}: {first['msg']}") from None


def lay_over(params: dict[str, Any], overlay: Mapping[str, Any]) -> None:
    """Replace in `params`, in depth, what `overlay` names."""
    for name, value in overlay.items():
        if isinstance(value, dict) and isinstance(params.get(name), dict):
            lay_over(params[name], value)
        else:
            params[name] = value
