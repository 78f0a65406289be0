"""How many patients would be needed, beside how many there are (Riley et al., BMJ 2020; 368:m441 and Stat Med 2021;
40:4230, as in the R packages pmsampsize and pmvalsampsize). Independent observations are assumed: hips of one patient
are worth less than that many patients. Of pmvalsampsize's criteria the one of the calibration slope is left out: it
needs the distribution of the linear predictor."""

from __future__ import annotations

from math import ceil, log, sqrt
from typing import Any

Row = dict[str, Any]


def development(parameters: int, prevalence: float, r2: float, shrinkage: float = 0.9, optimism: float = 0.05) -> Row:
    """Smallest n to develop a model of `parameters` with Cox-Snell R2 `r2`: shrinkage, small optimism, precise risk."""
    most = r2_max(prevalence)
    by_shrinkage = parameters / ((shrinkage - 1) * log(1 - r2 / shrinkage))
    needed_shrinkage = r2 / (r2 + optimism * most)
    by_optimism = parameters / ((needed_shrinkage - 1) * log(1 - r2 / needed_shrinkage))
    by_risk = (1.96 / 0.05) ** 2 * prevalence * (1 - prevalence)
    n = max(ceil(by_shrinkage), ceil(by_optimism), ceil(by_risk))
    return {
        "n": n, "events": ceil(n * prevalence), "events_per_parameter": n * prevalence / parameters,
        "n_shrinkage": ceil(by_shrinkage), "n_optimism": ceil(by_optimism), "n_risk": ceil(by_risk),
    }  # fmt: skip


def r2_max(prevalence: float) -> float:
    """The largest Cox-Snell R2 that a model of an outcome of this prevalence can have."""
    return 1 - (prevalence**prevalence * (1 - prevalence) ** (1 - prevalence)) ** 2


def auc_error(auc: float, prevalence: float, n: int) -> float:
    """Standard error of a c-statistic (Newcombe 2006, method 4)."""
    more = (n / 2 - 1) * ((1 - auc) / (2 - auc) + auc / (1 + auc))
    return sqrt(auc * (1 - auc) * (1 + more) / (n**2 * prevalence * (1 - prevalence)))


def evaluation(auc: float, prevalence: float, auc_width: float = 0.1, ratio_error: float = 0.051) -> Row:
    """Smallest n to evaluate: an interval of the AUC of `auc_width`, and ln(observed/expected) within `ratio_error`
    (0.051: 0.9 to 1.1 around 1)."""
    by_ratio = ceil((1 - prevalence) / (prevalence * ratio_error**2))
    by_auc = 10
    while 2 * 1.96 * auc_error(auc, prevalence, by_auc) > auc_width and by_auc < 10_000_000:
        by_auc = ceil(by_auc * 1.1)
    while by_auc > 10 and 2 * 1.96 * auc_error(auc, prevalence, by_auc - 1) <= auc_width:
        by_auc -= 1
    return {"n": max(by_ratio, by_auc), "n_auc": by_auc, "n_observed_expected": by_ratio}


def beside(there: Row, inputs: int, training: Row, r2_share: float) -> list[Row]:
    """Rows {what, needed, there, unit, assumes}: `training` and `there` are counts of scores.describe; `inputs` is the
    length of one visit's vector, of which the forecaster weighs the value, its past mean and its change."""
    rows: list[Row] = []
    parameters = 3 * inputs
    prevalence = training.get("prevalence")
    if prevalence and prevalence < 1 and parameters:
        r2 = r2_share * r2_max(prevalence)
        found = development(parameters, prevalence, r2)
        rows.append(
            {
                "what": "development", "needed": found["n"], "needed_events": found["events"],
                "there_patients": training["n_patients"], "there_hip_visits": training["n"],
                "there_events": training["n_events"], "unit": "independent patients",
                "assumes": f"{parameters} penalized parameters (each input, its past mean, its change), "
                f"event rate {prevalence:.2f}, R2 {r2_share:.0%} of the largest",
            }
        )  # fmt: skip
    prevalence, auc = there.get("prevalence"), there.get("auc")
    if prevalence and prevalence < 1 and auc is not None:
        supposed = min(max(auc, 0.6), 0.95)
        found = evaluation(supposed, prevalence)
        rows.append(
            {
                "what": "evaluation", "needed": found["n"], "needed_events": ceil(found["n"] * prevalence),
                "there_patients": there["n_patients"], "there_hip_visits": there["n"],
                "there_events": there["n_events"], "unit": "independent patients",
                "assumes": f"AUC {supposed:.2f}, interval 0.1 wide; event rate {prevalence:.2f}, O/E 0.9 to 1.1",
            }
        )  # fmt: skip
    return rows
