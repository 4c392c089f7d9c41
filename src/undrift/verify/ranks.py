"""Rank of the truth among the members, and how flat the histogram of ranks is."""

__all__ = ["rank_counts", "rank_noise", "ranks", "reliability_index"]

import numpy as np
from numpy.typing import NDArray


def ranks(truth: NDArray, members: NDArray, uniforms: NDArray) -> NDArray[np.intp]:
    """Number of members below the truth, 0..M; ties broken at random.

    Where k members equal the truth (dry cells) the rank is uniform over its k + 1 possible places; otherwise exact
    zeros would pile up in the first rank of a perfectly calibrated ensemble.

    Args:
        truth: (...) observed values.
        members: (M, ...) drawn values.
        uniforms: (...) numbers in [0, 1) that break ties.

    Returns:
        (...) ranks.
    """
    below = (members < truth).sum(axis=0)
    ties = (members == truth).sum(axis=0)
    return below + np.floor(uniforms * (ties + 1)).astype(np.intp)


def rank_counts(rank: NDArray[np.intp], weights: NDArray, members: int) -> NDArray[np.float64]:
    """Weight in each of the M + 1 ranks, per row: (n, cells) ranks and weights -> (n, M + 1)."""
    rows = rank.shape[0]
    key = rank + (members + 1) * np.arange(rows)[:, None]
    counts = np.bincount(key.ravel(), np.asarray(weights, np.float64).ravel(), rows * (members + 1))
    return np.asarray(counts, np.float64).reshape(rows, members + 1)


def reliability_index(frequency: NDArray) -> NDArray[np.float64]:
    """Sum over ranks of |f - 1/(M+1)|: the mean relative deviation of a bin from flat (Delle Monache et al. 2006).

    Args:
        frequency: (..., M + 1), summing to 1.
    """
    return np.abs(frequency - 1.0 / frequency.shape[-1]).sum(axis=-1)


def rank_noise(counts: NDArray, replicates: NDArray, block: int) -> tuple[float, float]:
    """Reliability index that chance alone gives: its mean and 95 % quantile.

    Neighbouring cells and times err together, so the noise is not that of independent counts. It is taken from the
    block bootstrap: the deviation of resampled frequencies from the observed ones.

    Args:
        counts: (n, M + 1) weight in each rank, per sample.
        replicates: (B, n) how often each sample occurs in each replicate.
        block: length of the bootstrap's blocks, for its small-sample correction.

    Returns:
        Mean and 95 % quantile of sum |f* - f|; NaN without replicates.
    """
    blocks = counts.shape[0] / block
    if replicates.shape[0] == 0 or blocks <= 1:
        return np.nan, np.nan
    total = replicates @ counts
    deviation = total / total.sum(axis=1, keepdims=True) - counts.sum(axis=0) / counts.sum()
    index = np.abs(deviation).sum(axis=1) * np.sqrt(blocks / (blocks - 1))
    return float(index.mean()), float(np.quantile(index, 0.95))
