"""Intervals that respect the dependence between neighbouring samples: a block bootstrap."""

__all__ = ["block_length", "interval", "replicate_counts"]

import numpy as np
from numpy.typing import NDArray


def block_length(series: NDArray) -> int:
    """Length of a block from the lag-one correlation r of a per-sample score (Wilks 1997).

    It solves L = (n - L + 1)^(2/3 (1 - n'/n)) with n'/n = (1 - r)/(1 + r) ("Resampling hypothesis tests for
    autocorrelated fields", J. Climate 10, 65-82, equation 20).
    One where samples are uncorrelated; never more than n/4.

    Args:
        series: (n,) scores in the order of time; NaN are left out.
    """
    values = np.asarray(series, np.float64)
    values = values[np.isfinite(values)]
    count = values.size
    if count < 8:
        return 1
    anomaly = values - values.mean()
    variance = float(np.square(anomaly).sum())
    if variance == 0.0:
        return 1
    # The sample correlation is biased low by about (1 + 4r)/n.
    correlation = float((anomaly[1:] * anomaly[:-1]).sum()) / variance
    correlation = min(correlation + (1 + 4 * correlation) / count, 0.99)
    if correlation <= 2.0 / np.sqrt(count):
        return 1
    exponent = 2.0 / 3.0 * (1.0 - (1.0 - correlation) / (1.0 + correlation))
    length = 1.0
    for _ in range(50):
        length = 0.5 * length + 0.5 * max(count - length + 1.0, 1.0) ** exponent
    return int(np.clip(np.ceil(length), 1, max(count // 4, 1)))


def replicate_counts(samples: int, block: int, replicates: int, seed: int = 0) -> NDArray[np.float64]:
    """How often each sample occurs in each bootstrap replicate, in circular blocks.

    A statistic that is a function of sums over samples is then a function of `counts @ sums`.

    Returns:
        (replicates, samples), each row summing to `samples`.
    """
    rng = np.random.default_rng([seed, 0x626F])
    blocks = -(-samples // block)
    starts = rng.integers(samples, size=(replicates, blocks))
    index = ((starts[:, :, None] + np.arange(block)) % samples).reshape(replicates, blocks * block)[:, :samples]
    counts = np.zeros((replicates, samples))
    np.add.at(counts, (np.arange(replicates)[:, None], index), 1.0)
    return counts


def interval(estimates: NDArray, level: float = 0.95) -> NDArray[np.float64]:
    """Central interval of bootstrap estimates over the first axis: (B, ...) -> (2, ...), NaN without any."""
    if estimates.shape[0] == 0:
        return np.full((2, *estimates.shape[1:]), np.nan)
    tail = (1.0 - level) / 2.0
    return np.quantile(estimates, [tail, 1.0 - tail], axis=0)
