"""How much a posterior tells beyond its prior, from the log ratio of their densities.

With r_i = ln p(theta_i) - ln pi(theta_i) at draws of the posterior, the Kullback-Leibler divergence is the mean of r
and the Bayesian model dimensionality 2 var r: the number of parameters that a Gaussian posterior constrains (Handley
and Lemos 2019, arXiv:1903.06682, equations 9 and 17).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from undrift.errors import DataError

__all__ = ["Information", "information"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Information:
    """Of a posterior beside its prior.

    Attributes:
        divergence: Kullback-Leibler divergence of the posterior from the prior in nats.
        divergence_error: its standard error.
        dimensionality: Bayesian model dimensionality, 2 var ln(p / pi).
        dimensionality_error: its standard error.
    """

    divergence: float
    divergence_error: float
    dimensionality: float
    dimensionality_error: float


def information(log_ratio: Floats, weights: Floats | None = None) -> Information:
    """Divergence and dimensionality with the errors of the draws: independent ones, perhaps weighted.

    The error of a weighted mean of f is sqrt(sum w_i^2 (f_i - mean)^2) with weights that sum to one.

    Args:
        log_ratio: (n,) ln p(theta_i) - ln pi(theta_i) in nats.
        weights: (n,) of the draws; rows of weight 0 count nothing.

    Raises:
        DataError: a ratio that counts is not finite: there, one of the densities is zero.
    """
    log_ratio = np.asarray(log_ratio, np.float64)
    w = np.ones(len(log_ratio)) if weights is None else np.asarray(weights, np.float64)
    r, w = log_ratio[w > 0], w[w > 0]
    if not len(r) or not np.isfinite(r).all():
        raise DataError(
            f"{(~np.isfinite(r)).sum()} of {len(r)} rows have a log ratio that is not finite: the posterior or the "
            "prior has density zero there; expected rows within the prior"
        )
    w = w / w.sum()
    mean = float(w @ r)
    square = np.square(r - mean)
    variance = float(w @ square)
    return Information(
        mean,
        float(np.sqrt(w**2 @ square)),
        2 * variance,
        2 * float(np.sqrt(w**2 @ np.square(square - variance))),
    )
