"""Whether events happen as often as their probabilities say."""

__all__ = ["Reliability", "reliability"]

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram, (bins,) each; NaN in a bin of which no case is.

    Attributes:
        probability: mean of what was said.
        frequency: share of the cases in which it happened.
        error: standard error of the frequency if the probabilities are right, ``sqrt(sum p (1 - p)) / count``.
        count: cases.
    """

    probability: NDArray[np.float64]
    frequency: NDArray[np.float64]
    error: NDArray[np.float64]
    count: NDArray[np.intp]


def reliability(probability: ArrayLike, happened: ArrayLike, bins: int = 10) -> Reliability:
    """Frequencies of an event by the probability that it was given (Broecker & Smith 2007, doi:10.1175/WAF993.1).

    A mean of frequencies is held against the mean of the probabilities of its own cases, not against the middle of the
    bin, so that calibrated probabilities differ by chance alone.

    Args:
        probability: from 0 to 1, of any shape.
        happened: 0 or 1, or bool, of the same shape.
        bins: of equal width from 0 to 1.

    Raises:
        ValueError: shapes that differ, or numbers that are no probabilities.
    """
    p, y = np.asarray(probability, np.float64).ravel(), np.asarray(happened, np.float64).ravel()
    if p.shape != y.shape or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"{p.size} probabilities and {y.size} outcomes, expected as many of each, from 0 to 1")
    which = np.minimum((p * bins).astype(np.intp), bins - 1)
    count = np.bincount(which, minlength=bins)

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        total = np.bincount(which, values, bins)
        return np.divide(total, count, out=np.full(bins, np.nan), where=count > 0)

    return Reliability(mean(p), mean(y), np.sqrt(mean(p * (1 - p)) / np.maximum(count, 1)), count)
