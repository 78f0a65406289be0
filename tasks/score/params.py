from pydantic import NonNegativeInt

from tasks.domain.params import Section


class Params(Section):
    withhold: bool
    """Whether the estimated risk is left out where the model abstains."""
    decimals: NonNegativeInt
    """Decimals of a published risk; more would claim what an interval of this width does not hold."""
