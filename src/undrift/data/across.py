"""What the variables of a cell tell of each other, where some of them are known and others asked."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["Across", "correlated", "fit_across"]

Array = NDArray[np.floating]
_SHRUNK = (0.05, 0.2, 0.5)  # share of the correlations that is not believed, tried beside all of it
_PATTERNS = 32  # of variables that are known in a cell, of a frame
_NUMBERS = 4_000_000  # of correlations at most: beyond it all cells have those of their mean
_LEAST_SHARE = 1e-3
_KEPT = 8


@dataclass
class Across:
    """Correlations between the variables of a cell, in one frame.

    Attributes:
        correlation: (cells, V, V), or (1, V, V) where all cells have the same.
    """

    correlation: Array
    _whole: dict[bytes, tuple[Array, Array]] = field(default_factory=dict, repr=False)

    def told(self, z: Array, known: NDArray[np.bool_], mean: Array, share: Array) -> tuple[Array, Array]:
        """Mean and share of the variance of numbers of unit variance given the variables known beside them.

        What is told of a number in time and across variables counts as independent given that number, which holds
        where the covariance is a product of one in time and one of variables.

        Args:
            z: (V, T, cells); what is not known is not read.
            known: (V, T, cells).
            mean: what is told of them in time, (V, T, cells).
            share: what that leaves of the variance, above 0 where z is not known.
        """
        mean, share = mean.copy(), share.copy()
        for t in range(z.shape[1]):
            patterns, where = np.unique(known[:, t], axis=1, return_inverse=True)
            count = np.bincount(where.ravel())
            for p in np.argsort(-count)[:_PATTERNS]:
                there = patterns[:, p]
                if there.all() or not there.any():
                    continue
                at = np.flatnonzero(where.ravel() == p)
                gain, left = self._coefficients(there, at)
                asked = np.ix_(~there, at)
                beside = (gain @ z[:, t][np.ix_(there, at)].T[..., None])[..., 0].T
                both = 1 / (1 / left.T + 1 / share[:, t][asked] - 1)
                mean[:, t][asked] = both * (beside / left.T + mean[:, t][asked] / share[:, t][asked])
                share[:, t][asked] = both
        return mean, share

    def _coefficients(self, known: NDArray[np.bool_], at: NDArray[np.intp]) -> tuple[Array, Array]:
        """Of variables that are not known from those that are, (cells, U, K), and the shares left, (cells, U)."""
        cells = len(self.correlation)
        if 1 < len(at) == cells or cells == 1:
            key = known.tobytes()
            if key not in self._whole:
                if len(self._whole) >= _KEPT:
                    self._whole.clear()
                self._whole[key] = _regressed(self.correlation, known)
            return self._whole[key]
        return _regressed(self.correlation[at], known)

    def part(self, space: Sequence[int], window: Sequence[slice]) -> "Across":
        """On a part of space."""
        if len(self.correlation) == 1:
            return self
        cut = self.correlation.reshape(*space, *self.correlation.shape[1:])[tuple(window)]
        return Across(cut.reshape(-1, *self.correlation.shape[1:]))


def fit_across(products: Sequence[Array], counts: Sequence[int]) -> float:
    """The share of the correlations that is not believed, by cross-validation; 1 for all of it.

    Of every second variable given the others, and of these given those, by the mean products of numbers of each fold
    beside the correlations of the other folds; of the median cell, for rain that never fell may fall once.

    Args:
        products: mean products of variables, of each fold, (cells, V, V).
        counts: windows of each fold.
    """
    errors = {}
    for shrunk in (*_SHRUNK, 1.0):
        found = []
        for k, held in enumerate(products):
            others = [j for j in range(len(products)) if j != k]
            mean = np.average([products[j] for j in others], 0, [counts[j] for j in others])
            across, std = correlated(mean, shrunk), _std(mean)
            held = held / (std[:, :, None] * std[:, None, :])
            for part in (0, 1):
                known = np.arange(held.shape[1]) % 2 == part
                gain, _ = _regressed(across, known)
                cross = np.einsum("cuk,cku->cu", gain, held[:, known][:, :, ~known])
                square = np.einsum("cuk,ckl,cul->cu", gain, held[:, known][:, :, known], gain, optimize=True)
                alone = np.diagonal(held, axis1=1, axis2=2)[:, ~known]
                found.append(np.median(alone - 2 * cross + square, 0).mean())
        errors[shrunk] = float(np.log(np.maximum(found, 1e-30)).mean())
    return min(errors, key=lambda shrunk: errors[shrunk])


def correlated(products: Array, shrunk: float) -> Array:
    """Correlations (cells or 1, V, V) from mean products (cells, V, V), drawn to none by a share."""
    std = _std(products)
    one = products / (std[:, :, None] * std[:, None, :])
    if one.size > _NUMBERS:
        one = one.mean(0, keepdims=True)
    return (1 - shrunk) * one * (1 - np.eye(one.shape[1])) + np.eye(one.shape[1])


def _std(products: Array) -> Array:
    """(cells, V), where a variable is always the same as if it varied a little."""
    power = np.diagonal(products, axis1=1, axis2=2)
    return np.sqrt(np.maximum(power, 1e-4 * power.mean() + 1e-30))


def _regressed(correlation: Array, known: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Coefficients and shares left; see :class:`Across`."""
    cross = correlation[:, known][:, :, ~known]
    gain = np.linalg.solve(correlation[:, known][:, :, known], cross).swapaxes(1, 2)
    left = 1 - np.einsum("cuk,cku->cu", gain, cross)
    return gain, np.clip(left, _LEAST_SHARE, 1)
