"""Spread of an ensemble against the error of its mean."""

__all__ = ["binned_spread", "moments", "spread_skill"]

import numpy as np
from numpy.typing import NDArray

from undrift.verify.marginal import weighted_quantile


def moments(members: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and unbiased variance (ddof=1) over the first axis; the variance of one member is NaN."""
    mean = members.mean(axis=0)
    count = members.shape[0]
    if count == 1:
        return mean, np.full(mean.shape, np.nan)
    return mean, np.square(members - mean).sum(axis=0) / (count - 1)


def spread_skill(mean_variance: NDArray, mean_square_error: NDArray, members: int) -> NDArray[np.float64]:
    r"""Ratio of spread to skill, 1 for a calibrated ensemble of any size.

    .. math:: \sqrt{\frac{M + 1}{M} \overline{s^2}} \Big/ \sqrt{\overline{(\bar x - y)^2}}

    The mean of M members is itself uncertain by s^2 / M, hence the factor (Fortin et al. 2014,
    doi:10.1175/JHM-D-14-0008.1). Variances are averaged, not standard deviations.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sqrt((members + 1) / members * np.asarray(mean_variance) / np.asarray(mean_square_error))


def binned_spread(
    variance: NDArray, square_error: NDArray, weights: NDArray, members: int, bins: int = 10
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Error of the mean within bins of predicted spread, each with the same weight.

    Args:
        variance: (n,) ensemble variances (ddof=1).
        square_error: (n,) squared errors of the ensemble mean.
        weights: (n,) area weights.
        members: M, for the factor (M+1)/M.
        bins: number of bins between equal-weight quantiles of the spread.

    Returns:
        Spread, RMSE and share of the weight, each (bins,); NaN in a bin that is empty (many equal spreads).
    """
    spread, rmse, share = np.full(bins, np.nan), np.full(bins, np.nan), np.zeros(bins)
    if variance.size == 0 or not np.isfinite(variance).all():
        return spread, rmse, share
    edges = weighted_quantile(variance, weights, np.arange(1, bins) / bins)
    which = np.searchsorted(edges, variance, side="right")
    total = np.bincount(which, weights, bins)
    full = total > 0
    factor = (members + 1) / members
    spread[full] = np.sqrt(factor * np.bincount(which, weights * variance, bins)[full] / total[full])
    rmse[full] = np.sqrt(np.bincount(which, weights * square_error, bins)[full] / total[full])
    return spread, rmse, total / total.sum()
