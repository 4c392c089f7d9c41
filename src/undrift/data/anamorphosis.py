"""Gaussian anamorphosis: latents whose values at each cell are normal in the course of the record.

A power takes the skew out of rain, but where it falls as drizzle, in storms or not at all its law is not one power of a
Gaussian: drawn from a Gaussian, rain of the same mean has up to one and a half times the standard deviation. At each
cell the transform's latent u is therefore replaced by the normal score of its rank among those of the record,

    v = Phi^-1(F(u)),

piecewise linear between quantiles of u above its point mass, which keeps its share: v at the threshold is
Phi^-1(share of the dry). Beyond the quantiles the outer pieces go on, which are no steeper where values are few or
equal than a tenth of the unit scale a score: it may rain where it never did. Quantiles are of all times and of the
cells beside. (Chiles and Delfiner 2012, "Geostatistics", section 6.2; of rain Lien et al. 2013,
doi:10.3402/tellusa.v65i0.19915.)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

__all__ = ["Anamorphosis", "fit_levels"]

Array = NDArray[np.floating]
_SHARES = (0, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.995)  # of what is not dry
_DRY = (1e-3, 0.98)  # least and most share of the dry
_STEP = 1e-6  # least difference of levels, which are of unit scale
_OUTER = 0.1  # least slope of latents in scores beyond the quantiles, where few or equal values are known


@dataclass(frozen=True)
class Anamorphosis:
    """The map of some variables.

    Attributes:
        channels: of each variable, its frames, (V, T).
        levels: of latents u, increasing, (V, K, *space).
        scores: of v at these levels, (V, K, *space).
    """

    channels: NDArray[np.intp]
    levels: Array
    scores: Array

    def normal(self, u: Array) -> Array:
        """Normal scores of latents (n, C, *space); other channels stay, and so do infinite and missing values."""
        return self._mapped(u, self.levels, self.scores)

    def latents(self, v: Array) -> Array:
        """Inverse of :meth:`normal`."""
        return self._mapped(v, self.scores, self.levels)

    def _mapped(self, x: Array, knots: Array, values: Array) -> Array:
        out = x.copy()
        for channels, old, new in zip(self.channels, knots, values):
            out[:, channels] = _interpolated(x[:, channels], old, new)
        return out

    def at(self, channel: int, u: Array, position: Array) -> Array:
        """Normal scores of latents (n,) of one channel at a position in cells, by the map of the nearest cell."""
        for channels, old, new in zip(self.channels, self.levels, self.scores):
            if channel in channels:
                size = np.array(old.shape[1:])
                cell = np.clip(np.rint(position).astype(int), 0, size - 1)
                where = (slice(None), *(slice(k, k + 1) for k in cell))
                return _interpolated(u.reshape(-1, *[1] * len(size)), old[where], new[where]).ravel()
        return u

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Arrays that hold it."""
        names = ("channels", "levels", "scores")
        return {f"anamorphosis_{name}": getattr(self, name) for name in names}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """Inverse of :meth:`to_arrays`."""
        return cls(*(arrays[f"anamorphosis_{name}"] for name in ("channels", "levels", "scores")))


def _interpolated(x: Array, knots: Array, values: Array) -> Array:
    """Piecewise linear maps of x (..., *space), by knots and values (K, *space) of each cell."""
    count, cells = len(knots), np.arange(knots[0].size)
    flat, old, new = x.reshape(-1, len(cells)), knots.reshape(count, -1), values.reshape(count, -1)
    piece = np.zeros(flat.shape, dtype=np.intp)
    for knot in old[1:-1]:
        piece += flat >= knot
    slope = (new[1:] - new[:-1]) / (old[1:] - old[:-1])
    return (new[piece, cells] + slope[piece, cells] * (flat - old[piece, cells])).reshape(x.shape)


def fit_levels(u: Array, low: float, periodic: Sequence[bool]) -> tuple[Array, Array]:
    """Levels and scores (K, *space) of one variable.

    Args:
        u: its latents, (n, *space), NaN where missing.
        low: the threshold of its point mass, -inf where it has none.
        periodic: which axes are.
    """
    u = np.maximum(u, low)
    near = np.concatenate([_moved(u, steps, periodic) for steps in product((-1, 0, 1), repeat=u.ndim - 1)])
    near.sort(axis=0)  # what is missing comes last
    known = np.isfinite(near).sum(0)
    dry = np.clip((near <= low).sum(0) / np.maximum(known, 1), *_DRY)
    shares = dry + (1 - dry) * np.reshape(_SHARES, (-1, *[1] * dry.ndim))
    place = shares * np.maximum(known - 1, 0)
    under = np.floor(place).astype(int)
    over = np.minimum(under + 1, np.maximum(known - 1, 0))
    first, second = (np.take_along_axis(near, at, axis=0) for at in (under, over))
    levels = first + (place - under) * (second - first)
    if np.isfinite(low):
        levels[0] = np.where((near <= low).any(0), low, levels[0])
    levels = np.where(known > 1, levels, ndtri(shares))  # of cells that never have a value
    steps, scores = _STEP * np.arange(len(levels)).reshape(-1, *[1] * dry.ndim), ndtri(shares)
    levels = np.maximum.accumulate(levels, axis=0) + steps
    first, *_, last = _OUTER * np.diff(scores, axis=0)
    levels[-1] = np.maximum(levels[-1], levels[-2] + last)
    levels[0] = np.where(levels[0] > low, np.minimum(levels[0], np.maximum(levels[1] - first, low)), levels[0])
    return levels, scores


def _moved(u: Array, steps: Sequence[int], periodic: Sequence[bool]) -> Array:
    """Fields (n, *space) moved by cells, the outer ones repeated where an axis has ends."""
    for axis, (step, cyclic) in enumerate(zip(steps, periodic), start=1):
        at = np.arange(u.shape[axis]) + step
        u = np.take(u, at % u.shape[axis] if cyclic else np.clip(at, 0, u.shape[axis] - 1), axis=axis)
    return u
