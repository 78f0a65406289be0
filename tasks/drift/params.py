"""Section `drift` of params.yaml."""

from typing import Annotated

from pydantic import Field

from tasks.domain.params import Section


class Params(Section):
    bins: Annotated[int, Field(ge=2)]
    """Bins of the PSI, by quantiles of the reference."""
    psi_watch: Annotated[float, Field(gt=0)]
    """A PSI from here on is worth watching (0.1 by custom)."""
    psi_alarm: Annotated[float, Field(gt=0)]
    """A PSI from here on is an alarm (0.25 by custom), if the KS test agrees after Holm's correction."""
    alpha: Annotated[float, Field(gt=0, lt=1)]
    """Holm-adjusted p of the KS test below which a difference is more than chance."""
    min_patients: Annotated[int, Field(ge=2)]
    """Fewer recent or reference patients with a value than this: nothing is said of that column."""
    features: Annotated[int, Field(ge=0)]
    """How many of the encoder's features are compared, those of largest spread in the reference first."""
