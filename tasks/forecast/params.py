from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from tasks.domain.params import Section

Share = Annotated[float, Field(ge=0, le=1)]


class Params(Section):
    intervals: PositiveInt
    """Equal intervals of the horizon, each with its own baseline hazard."""
    ridge: tuple[PositiveFloat, ...]
    """Penalties on standardized weights among which inner cross-validation by patient chooses."""
    anchors: tuple[str, ...]
    """Measurements that a regression of its own sees alone: what a small cohort falls back to."""
    inner_folds: PositiveInt
    """Folds of that inner cross-validation."""
    min_events: PositiveInt
    """With fewer hip-visits that progress, a fold falls back to the prevalence and says so."""
    hidden: PositiveInt
    """Units of the LSTM."""
    epochs: PositiveInt
    """Full-batch steps of the residual."""
    learning_rate: PositiveFloat
    weight_decay: NonNegativeFloat
    """L2 on the residual's weights."""
    input_dropout: Share
    """Share of the vector's entries hidden from the residual, the same ones at all visits of a hip."""
    amounts: tuple[Share, ...]
    """Shares of the residual among which the likelihood of patients left out chooses; 0 is the logistic part alone."""
    resamples: PositiveInt
    """Resamples of patients behind each estimate's interval."""
    interval: Share
    """Coverage aimed at by risk_low and risk_high."""
    required_roles: tuple[Literal["t1", "fluid", "contrast"], ...]
    """Without one of these series the model abstains, if most training visits had it."""
    max_missing_share: Share
    """The model abstains when more of its inputs than this are missing."""
    shrinkage: Share
    """Of the covariance towards the identity, for the distance to the training data."""
    distance_quantile: Share
    """Quantile of the out-of-fold distances that is still inside."""
    distance_margin: PositiveFloat
    """Factor on that quantile beyond which the model abstains."""
    leave_vendor_out: bool
    """Whether a member without each scanner maker is fitted too, to see what a new maker would do."""
    metric_resamples: PositiveInt
    """Resamples of patients for the intervals in metrics.json."""
    seed: int
