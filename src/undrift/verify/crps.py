"""Continuous ranked probability score of ensembles and of discrete distributions."""

__all__ = ["discrete_crps", "fair_crps"]

import numpy as np
import scoringrules
from numpy.typing import NDArray


def fair_crps(truth: NDArray, members: NDArray) -> NDArray[np.float64]:
    r"""Fair CRPS of an ensemble: unbiased in the number of members.

    .. math:: \frac1M \sum_m |x_m - y| - \frac{1}{2 M (M-1)} \sum_{m, n} |x_m - x_n|

    It is the expected CRPS of the law the members are drawn from, so that ensembles of 10 and of 100 members of one
    model score the same on average (Ferro 2014, doi:10.1002/qj.2270). Computed in scoringrules' probability weighted
    moment form, which is the same number as its "fair" estimator at O(M log M) instead of O(M^2), and on departures
    from the truth, so that 300 K does not cost digits. With one member it is the absolute error.

    Args:
        truth: (...) observed values.
        members: (M, ...) drawn values.

    Returns:
        (...) scores in the units of the data; NaN where anything is NaN.
    """
    return np.abs(members[0] - truth) if len(members) == 1 else _crps(truth, members, "pwm")


def discrete_crps(truth: NDArray, members: NDArray) -> NDArray[np.float64]:
    """CRPS of the discrete distribution that gives each member the same probability.

    The right score for a *dressed* baseline, whose members are equal-probability quantiles and not random draws:
    the fair estimator would reward them for a spread they do not have.

    Args:
        truth: (...) observed values.
        members: (M, ...) quantiles, in any order.

    Returns:
        (...) scores in the units of the data.
    """
    return _crps(truth, members, "qd")


def _crps(truth: NDArray, members: NDArray, estimator: str) -> NDArray[np.float64]:
    # Sorted here: numpy's sort of values is several times faster than the sort of indices in scoringrules.
    departure = np.moveaxis(np.asarray(members, np.float64) - np.asarray(truth, np.float64), 0, -1)
    departure = np.sort(departure, axis=-1)
    zero = np.zeros(departure.shape[:-1])
    scores = scoringrules.crps_ensemble(zero, departure, estimator=estimator, sorted_ensemble=True, backend="numpy")
    return np.asarray(scores, np.float64)
