"""Section `evaluate` of params.yaml."""

from typing import Annotated

from pydantic import Field

from tasks.domain.params import Section


class Params(Section):
    resamples: Annotated[int, Field(ge=100)]
    """Resamples of patients behind each interval."""
    seed: int
    """Seed of the resampling."""
    level: Annotated[float, Field(gt=0.5, lt=1)]
    """Coverage of the intervals, e.g. 0.95."""
    bins: Annotated[int, Field(ge=2)]
    """Bins of the calibration curve, of about equal n."""
    recall: Annotated[float, Field(gt=0, lt=1)]
    """The operating point: the highest threshold that finds this share of events out of fold, then used on the test."""
    thresholds: tuple[float, float, float]
    """Decision curve: lowest and highest threshold of risk, and the step."""
    small_events: Annotated[int, Field(ge=0)]
    """Fewer events, or fewer non-events, than this are said to be few."""
    suppress_below: Annotated[int, Field(ge=0)]
    """Counts of patients from 1 to below this are not written to exported tables."""
