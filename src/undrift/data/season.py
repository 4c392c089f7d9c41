"""How lively residuals are in the course of the year.

The variance of what is left over a climatology, relative to its mean over the year, is one or two harmonics,

    v(t) = c_0 + sum_k (a_k cos(2 pi k t) + b_k sin(2 pi k t)),

fitted by least squares to the squares of out-of-fold residuals, which are averaged over the frames of a variable and
over neighbouring cells first: a year of a cell has too few independent days to tell its own.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

__all__ = ["fit_season", "seasonal"]

Array = NDArray[np.floating]
_NEAR = 8  # sides of the neighbourhood in that of the domain
_RANGE = (0.1, 10.0)  # of the relative variance


def fit_season(blocks: Iterable[tuple[Array, Array]], frames: int, periodic: Sequence[bool]) -> Array:
    """The coefficients c_0 and those of the harmonics, (1 + F, C, *space).

    Args:
        blocks: harmonics (n, F) and residuals (n, C, *space) of some samples each, NaN where missing.
        frames: channels in a row that are frames of one variable.
        periodic: which axes of space are.
    """
    gram = right = known = np.zeros(())
    for harmonics, residuals in blocks:
        square = residuals.reshape(len(residuals), -1, frames, *residuals.shape[2:]) ** 2
        there = np.isfinite(square)
        weight = np.maximum(there.sum(2), 1)
        square = np.where(there, square, 0).sum(2) / weight
        basis = np.concatenate([np.ones((len(harmonics), 1)), harmonics], 1)
        gram = gram + basis.T @ basis
        right = right + np.tensordot(basis, square, ((0,), (0,)))
        known = known + there.any(2).mean(0)
    coefficients = np.linalg.solve(gram, right.reshape(len(gram), -1)).reshape(right.shape)
    share = _near(np.broadcast_to(known > 0, coefficients.shape).astype(np.float64), periodic)
    smooth = _near(coefficients, periodic) / np.maximum(share, 1e-9)
    smooth[0] = np.where(share[0] > 0, smooth[0], 1.0)
    return np.repeat(smooth / np.maximum(smooth[:1], 1e-9), frames, axis=1)


def _near(x: Array, periodic: Sequence[bool]) -> Array:
    """Means over neighbourhoods of (F, C, *space)."""
    for axis, cyclic in enumerate(periodic, start=2):
        x = uniform_filter1d(x, max(1, x.shape[axis] // _NEAR), axis=axis, mode="wrap" if cyclic else "nearest")
    return x


def seasonal(coefficients: Array, harmonics: Array) -> Array:
    """Standard deviation relative to that of the year, (n, C, *space), at harmonics (n, F)."""
    basis = np.concatenate([np.ones((len(harmonics), 1)), harmonics], 1)
    return np.sqrt(np.clip(np.tensordot(basis, coefficients, 1), *_RANGE))
