"""How a bounded variable departs from its linear prediction, given the same variable there.

A ridge is straight, and near a bound nothing is: blocks with a trace of rain have many dry cells and few wet ones, so
that their latents lie lower and further apart than what holds for wet blocks says. The law of a latent becomes

    N(m + b(v), (s exp(c(v)))^2),

where m is the linear prediction, s the scale of what it leaves over, v the latent of what is given there, and b and c
are piecewise linear. They are those of greatest likelihood of the censored Gaussian, by expectation-maximisation, and
are kept where folds that they were fitted without find them likelier than a straight prediction.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from undrift.data.censored import expected, surprise

__all__ = ["Curve", "fit_curve"]

Array = NDArray[np.float64]
_SHARES = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95, 0.98)  # of given latents between the bounds, at knots
_ROUNDING = 1e-6  # of latents, which are of unit scale
_PASSES = 8  # of expectation-maximisation
_PRIOR = 100.0  # cells that say b = c = 0 at each knot
_GAIN = 1e-3  # nats a cell for which curves are taken


@dataclass(frozen=True)
class Curve:
    """b and c of one channel.

    Attributes:
        knots: given latents, increasing, (K,); beyond them b and c are constant.
        bend: b at the knots, without each fold and, last, from all, (folds + 1, K).
        log_std: c at the knots, (K,).
    """

    knots: Array
    bend: Array
    log_std: Array

    def moved(self, own: Array, fold: NDArray[np.intp] | None = None) -> Array:
        """What is added at given latents (n, *space), 0 where NaN, by the fold of each sample or, with none, by all."""
        which = [-1] * len(own) if fold is None else fold
        return np.nan_to_num(np.stack([np.interp(v, self.knots, self.bend[k]) for v, k in zip(own, which)]))

    def widened(self, own: Array) -> Array:
        """exp(c) of given latents, same shape; 1 where NaN."""
        return np.exp(np.nan_to_num(np.interp(own, self.knots, self.log_std)))

    def to_arrays(self, name: str) -> dict[str, np.ndarray]:
        """Arrays that hold the curve."""
        return {f"{name}_knots": self.knots, f"{name}_bend": self.bend, f"{name}_log_std": self.log_std}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], name: str) -> Self:
        """Inverse of :meth:`to_arrays`."""
        return cls(*(arrays[f"{name}_{part}"] for part in ("knots", "bend", "log_std")))


def fit_curve(
    own: Array,
    u: Array,
    mean: Array,
    std: Array,
    fold: NDArray[np.intp],
    *,
    folds: int,
    low: float,
    high: float,
) -> Curve | None:
    """The curve of one channel, or none where it is straight.

    Args:
        own: latents of what is given at each cell, (N,).
        u: target latents, -inf and inf at point masses, none missing, (N,).
        mean: out-of-fold linear predictions, (N,).
        std: standard deviation of what they leave over, (N,).
        fold: of each, (N,).
        folds: how many there are; some may have no cell.
        low: latent of the lower bound, -inf where there is none.
        high: latent of the upper bound, inf where there is none.
    """
    knots = _knots(own, low, high)
    if len(knots) < 3:
        return None
    bends, gain = [], 0.0
    for k, train in _without_each(fold, folds):
        bend, log_std = _greatest(own[train], u[train], mean[train], std[train], knots, low, high)
        bends.append(bend)
        if k is not None and not train.all():
            test = ~train
            m = mean[test] + np.interp(own[test], knots, bend)
            s = std[test] * np.exp(np.interp(own[test], knots, log_std))
            straight = surprise(u[test], mean[test], std[test], low, high)
            gain += float((straight - surprise(u[test], m, s, low, high)).sum()) / len(u)
    return Curve(knots, np.stack(bends), log_std) if gain > _GAIN else None


def _without_each(fold: NDArray[np.intp], folds: int) -> Iterator[tuple[int | None, NDArray[np.bool_]]]:
    """Each fold with the samples outside it and, last, all samples."""
    for k in range(folds):
        yield k, fold != k
    yield None, np.ones(len(fold), dtype=bool)


def _knots(own: Array, low: float, high: float) -> Array:
    """The bounds that are reached, and quantiles between them."""
    below, above = own <= low + _ROUNDING, own >= high - _ROUNDING
    inside = own[~below & ~above]
    if not len(inside):
        return np.zeros(0)
    ends = [end for end, there in ((low, below), (high, above)) if there.any()]
    return np.unique(np.concatenate([ends, np.quantile(inside, _SHARES)]))


def _greatest(
    own: Array, u: Array, mean: Array, std: Array, knots: Array, low: float, high: float
) -> tuple[Array, Array]:
    """B and c of greatest likelihood at the knots."""
    size = len(knots)
    at = np.clip(np.searchsorted(knots, own, side="right") - 1, 0, size - 2)
    right = np.clip((own - knots[at]) / (knots[at + 1] - knots[at]), 0, 1)
    left = 1 - right

    def sums(x: Array) -> Array:
        """Of x over the hat function of each knot."""
        return np.asarray(np.bincount(at, left * x, size) + np.bincount(at + 1, right * x, size), dtype=np.float64)

    bend, log_std = np.zeros(size), np.zeros(size)
    count = sums(np.ones(len(own))) + _PRIOR
    for _ in range(_PASSES):
        s = std * np.exp(np.interp(own, knots, log_std))
        e, variance = expected(u, mean + np.interp(own, knots, bend), s, low, high)
        weight = 1 / s**2
        products = np.diag(np.bincount(at, left**2 * weight, size) + np.bincount(at + 1, right**2 * weight, size))
        beside = np.bincount(at, left * right * weight, size)[:-1]
        products += np.diag(beside, 1) + np.diag(beside, -1)
        bend = np.linalg.solve(products + _PRIOR * weight.mean() * np.eye(size), sums((e - mean) * weight))
        square = ((e - mean - np.interp(own, knots, bend)) ** 2 + variance) * weight
        log_std = log_std + 0.5 * np.log((sums(square) + _PRIOR) / count)
    return bend, log_std
