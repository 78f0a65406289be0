"""Section `evaluate` of params.yaml."""

from typing import Annotated

from pydantic import Field, NonNegativeFloat, PositiveFloat

from tasks.domain.params import Section


class Cox(Section):
    """The Cox baseline."""

    covariates: tuple[str, ...]
    """Columns of measures.parquet at the visit."""
    penalizer: NonNegativeFloat
    """Ridge, as lifelines scales it."""
    min_events: Annotated[int, Field(ge=1)]
    """With fewer events to fit on there is no Cox baseline."""


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
    explain_hips: Annotated[int, Field(ge=0)]
    """Patients of whom one hip-visit is explained by Grad-CAM; 0: none."""
    times: tuple[PositiveFloat, ...]
    """Days after the visit at which discrimination is given with censoring weights; the horizon always is."""
    cox: Cox
    age_bands: tuple[PositiveFloat, ...]
    """Edges in years of the bands by which patients are counted."""
    r2_share: Annotated[float, Field(gt=0, lt=1)]
    """Of the largest Cox-Snell R2 an outcome allows, what a model is supposed to reach: for the n that is needed."""
