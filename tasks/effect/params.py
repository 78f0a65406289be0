from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from tasks.domain.params import Section


class Params(Section):
    outcomes: tuple[str, ...]
    """Columns of measures.parquet whose change is reported."""
    covariates: tuple[str, ...]
    """Columns of measures.parquet at baseline that the adjusted estimates are adjusted for."""
    baseline_days: PositiveFloat
    """A baseline visit may be at most this many days before the treatment."""
    follow_up_days: PositiveFloat
    """The follow-up visit is the one nearest to this many days after the treatment..."""
    follow_up_window: tuple[PositiveFloat, PositiveFloat]
    """...within these days after it."""
    progression_days: PositiveFloat
    """The outcome `progression` is an event (collapse, stage up, arthroplasty) within this many days."""
    collapse_mm: PositiveFloat
    """Collapse read at this depth or more is an event, mm."""
    landmark_days: PositiveFloat
    """Landmark analysis: arms by what had begun within this many days of the first visit, time counted from then."""
    suppress_below: NonNegativeInt
    """Arms of fewer patients than this are named, not counted: no estimate, no n."""
    min_patients: PositiveInt
    """Patients in an arm below which no interval is given."""
    min_adjusted: PositiveInt
    """Patients in the treated and in the observed arm each, below which nothing is adjusted."""
    min_modelled: PositiveInt
    """Patients below which mixed model and GEE are not fitted."""
    propensity_limits: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(lt=1)]]
    """Propensities are held within these limits: one hip must not stand for all."""
    redraws: NonNegativeInt
    """Times that the measurements are drawn anew at each enlargement of their error, by which it is carried into the
    adjusted estimates (SIMEX); 0: it is not."""
    resamples: PositiveInt
    level: Annotated[float, Field(gt=0, lt=1)]
    """Coverage of the intervals."""
    seed: int
