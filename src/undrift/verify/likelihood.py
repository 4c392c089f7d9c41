"""How likely rows are under a density: the mean log-likelihood by weight, and whether training rows are likelier."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Likelihood", "learned_by_heart", "mean_likelihood"]

_GAP = 4.0  # standard errors by which training rows are likelier than others by no chance


@dataclass(frozen=True)
class Likelihood:
    """Of rows of positive weight.

    Attributes:
        mean: log-density by weight of the rows where it is finite, in nats; NaN where there is none.
        error: its standard error; None where one row tells of none.
        rows: that the mean is of.
        outside: further rows, where the density is 0.
    """

    mean: float
    error: float | None
    rows: int
    outside: int


def mean_likelihood(log_density: NDArray[np.float64], weights: NDArray[np.float64]) -> Likelihood:
    """The mean over rows: of the weighted one the error is sqrt(sum w_i^2 (f_i - mean)^2), weights summing to one.

    Args:
        log_density: (n,) in nats, -inf where a row lies outside.
        weights: (n,) of the rows; rows of weight 0 count nothing.
    """
    counted = weights > 0
    inside = counted & np.isfinite(log_density)
    rows, outside = int(inside.sum()), int((counted & ~inside).sum())
    if not rows:
        return Likelihood(math.nan, None, 0, outside)
    share, found = weights[inside] / weights[inside].sum(), log_density[inside]
    mean = float(share @ found)
    return Likelihood(mean, float(np.linalg.norm(share * (found - mean))) if rows > 1 else None, rows, outside)


def learned_by_heart(score: Mapping[str, Any]) -> bool:
    """Whether rows of the training are likelier than as many others, with about the same error, by no chance.

    Args:
        score: "of training rows", "held out" and its "standard error", in nats.
    """
    error = score["standard error"]
    return error is not None and score["of training rows"] - score["held out"] > _GAP * math.sqrt(2) * error
