"""Section `register` of params.yaml."""

from typing import Annotated

from pydantic import Field

from tasks.domain.params import Section


class Params(Section):
    name: str
    """The model's name in the registry."""
    example_patients: Annotated[int, Field(ge=2)]
    """The input example holds medians over at least this many patients; with fewer its features are null."""
