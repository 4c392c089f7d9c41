"""How long the rows of a chain remember each other, and blocks of rows that are longer than that."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["autocorrelation_time", "blocks"]

_WINDOW = 5.0  # autocorrelation times up to which correlations are summed
_LENGTH = 5.0  # autocorrelation times of a block
_FEWEST = 40  # blocks of each chain, so that some are held out
_ALONE = 1.5  # autocorrelation time up to which rows count as independent


def autocorrelation_time(values: NDArray[np.float64]) -> float:
    """The integrated autocorrelation time in rows, the longest of any column: 1 of independent rows.

    tau = 1 + 2 sum_t rho_t up to the first lag of at least 5 tau (Sokal 1997, doi:10.1007/978-1-4899-0319-8_6, as
    emcee has it).

    Args:
        values: (n, D) in the order in which they were drawn.
    """
    n = len(values)
    away = values - values.mean(0)
    size = 1 << (2 * n - 1).bit_length()  # zeros beyond the end, so that it does not meet the beginning
    covariance = np.fft.irfft(np.abs(np.fft.rfft(away, size, axis=0)) ** 2, size, axis=0)[:n]
    rho = covariance[:, covariance[0] > 0] / covariance[0, covariance[0] > 0]
    longest = 1.0
    for column in rho.T:
        tau = 2 * np.cumsum(column) - 1
        within = np.flatnonzero(np.arange(n) >= _WINDOW * tau)
        longest = max(longest, float(tau[within[0] if len(within) else -1]))
    return longest


def blocks(values: NDArray[np.float64], chain: NDArray[np.intp]) -> NDArray[np.intp]:
    """A number for each row, the same for neighbours of a chain within five of its autocorrelation times.

    Each chain has at least 40 blocks, if it has as many rows; rows of a chain that forgets at once are blocks of one.

    Args:
        values: (n, D) in the order in which they were drawn.
        chain: (n,) number of the chain of each row.
    """
    found, first = np.zeros(len(values), np.intp), 0
    for number in np.unique(chain):
        rows = np.flatnonzero(chain == number)
        tau = autocorrelation_time(values[rows])
        length = 1 if tau <= _ALONE else min(int(np.ceil(_LENGTH * tau)), max(len(rows) // _FEWEST, 1))
        found[rows] = first + np.arange(len(rows)) // length
        first = int(found[rows[-1]]) + 1
    return found
