"""Parameters of the stage split."""

from __future__ import annotations

from pydantic import Field

from tasks.domain.params import Section


class Params(Section):
    folds: int = Field(ge=2, le=50)
    """Folds of the training persons."""
    test_fraction: float = Field(ge=0, lt=1)
    """Share of persons that goes to the frozen test set, by hash."""
    salt: str
    """Part of every hash: another salt deals newcomers otherwise."""
    external_sites: list[str]
    """Sites whose patients are never trained on."""
