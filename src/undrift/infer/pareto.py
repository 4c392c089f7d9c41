"""Whether importance weights have a mean and a variance to speak of: the shape of their tail.

The largest M weights above a threshold follow a generalised Pareto law with shape k. Their mean has an error that can
be told for k <= 0.7 (Vehtari, Simpson, Gelman, Yao and Gabry 2024, arXiv:1507.02646, sec. 3); k is estimated by Zhang
and Stephens 2009, doi:10.1198/tech.2009.08017.
"""

from __future__ import annotations

__all__ = ["pareto_shape"]

import math

import numpy as np
from scipy.special import softmax


def pareto_shape(log_weights: np.ndarray) -> float:
    """Shape k of the largest min(n / 5, 3 sqrt(n)) weights, drawn a little towards 0.5; -inf where all are equal.

    Args:
        log_weights: logs of the weights (n,), up to a constant.
    """
    ordered = np.sort(log_weights[log_weights > -math.inf])
    tail = math.ceil(min(0.2 * len(ordered), 3 * math.sqrt(len(ordered))))
    if tail < 5:
        return math.inf
    w = np.exp(ordered - ordered[-1])
    above = w[-tail:] - w[-tail - 1]
    if above[-1] <= 1e-12:
        return -math.inf
    k = _shape(np.maximum(above, 1e-300))
    return (tail * k + 10 * 0.5) / (tail + 10)


def _shape(x: np.ndarray) -> float:
    """Zhang and Stephens' profile posterior mean, of exceedances (n,) in rising order."""
    n, grid = len(x), 30 + int(math.sqrt(len(x)))
    quartile = x[int(n / 4 + 0.5) - 1]
    b = 1 / x[-1] + (1 - np.sqrt(grid / (np.arange(1, grid + 1) - 0.5))) / (3 * quartile)
    k = np.log1p(-b[:, None] * x).mean(axis=1)
    profile = n * (np.log(-b / k) - k - 1)
    share = softmax(profile)
    return float(np.log1p(-(b @ share / share.sum()) * x).mean())
