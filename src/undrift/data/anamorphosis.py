"""Gaussian anamorphosis: latents whose values at each cell are normal in the course of the record.

A power takes the skew out of rain, but where it falls as drizzle, in storms or not at all its law is not one power of a
Gaussian: drawn from a Gaussian, rain of the same mean has up to one and a half times the standard deviation. At each
cell the transform's latent u is therefore replaced by the normal score of its rank among those of the record,

    v = Phi^-1(F(u)),

piecewise linear between quantiles of u above its point mass, which keeps its share: v at the threshold is
Phi^-1(share of the dry). Where it rains other amounts fall in other seasons. A record that is long enough has a map of
each of some seasons of the year, of quantiles in which every time counts by its weight in that season, and the scores

    v = Phi^-1(F_s(u)) - Phi^-1(dry share of s) + Phi^-1(dry share of the year),

so that the threshold is the same all year, and v has spread 1 around a mean that says how often it rains. Between
seasons levels and scores are averaged with the same weights, quadratic B-splines in the time of year. Beyond the
quantiles the outer pieces go on, which are no steeper where values are few or equal than a tenth of the unit scale a
score: it may rain where it never did. Quantiles are of all times and of the cells beside. (Chiles and Delfiner 2012,
"Geostatistics", section 6.2; of rain Lien et al. 2013, doi:10.3402/tellusa.v65i0.19915.)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

__all__ = ["Anamorphosis", "fit_levels", "seasons_at"]

Array = NDArray[np.floating]
_SHARES = (0, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.995)  # of what is not dry
_DRY = (1e-3, 0.98)  # least and most share of the dry
_STEP = 1e-6  # least difference of levels, which are of unit scale
_FEW = 20  # values of a cell in a season, with those beside: of fewer it has the map of the year
_OUTER = 0.1  # least slope of latents in scores beyond the quantiles, where few or equal values are known


@dataclass(frozen=True)
class Anamorphosis:
    """The map of some variables.

    Attributes:
        channels: of each variable, its frames, (V, T).
        levels: of latents u in each season, increasing, (V, S, K, *space).
        scores: of v at these levels, same shape.
    """

    channels: NDArray[np.intp]
    levels: Array
    scores: Array

    @property
    def seasons(self) -> int:
        """How many it has; 1 where it is the same all year."""
        return self.levels.shape[1]

    def normal(self, u: Array, seasons: Array | None) -> Array:
        """Normal scores of latents (n, C, *space); other channels stay, and so do infinite and missing values.

        Args:
            u: the latents.
            seasons: weights of the seasons at the time of each, (n, S); None where there is one.
        """
        return self._mapped(u, self.levels, self.scores, seasons)

    def latents(self, v: Array, seasons: Array | None) -> Array:
        """Inverse of :meth:`normal`."""
        return self._mapped(v, self.scores, self.levels, seasons)

    def _mapped(self, x: Array, knots: Array, values: Array, seasons: Array | None) -> Array:
        out = x.copy()
        for channels, old, new in zip(self.channels, knots, values):
            if seasons is None:
                out[:, channels] = _interpolated(x[:, channels], _mixed(old, None), _mixed(new, None))
                continue
            for i, weights in enumerate(seasons):
                out[i, channels] = _interpolated(x[i, channels], _mixed(old, weights), _mixed(new, weights))
        return out

    def log_slope(self, u: Array, seasons: Array | None) -> Array:
        """``log |dv / du|`` of :meth:`normal` at latents (n, C, *space), 0 for other channels."""
        out = np.zeros(u.shape)
        for channels, old, new in zip(self.channels, self.levels, self.scores):
            for i, weights in enumerate([None] * len(u) if seasons is None else seasons):
                knots, values = _mixed(old, weights), _mixed(new, weights)
                piece = _pieces(u[i, channels], knots)
                slope = np.diff(values, axis=0) / np.diff(knots, axis=0)
                out[i, channels] = np.log(np.take_along_axis(slope, piece, axis=0))
        return out

    def at(self, channel: int, u: Array, position: Array, seasons: Array | None) -> Array:
        """Normal scores of latents (n,) of one channel at a position in cells, by the map of the nearest cell.

        Args:
            channel: of them.
            u: the latents.
            position: in cells along each axis.
            seasons: weights of the seasons, (S,), or None.
        """
        for channels, old, new in zip(self.channels, self.levels, self.scores):
            if channel in channels:
                size = np.array(old.shape[2:])
                cell = np.clip(np.rint(position).astype(int), 0, size - 1)
                where = (slice(None), *(slice(k, k + 1) for k in cell))
                maps = (_mixed(v, seasons)[where] for v in (old, new))
                return _interpolated(u.reshape(-1, *[1] * len(size)), *maps).ravel()
        return u

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Arrays that hold it."""
        names = ("channels", "levels", "scores")
        return {f"anamorphosis_{name}": getattr(self, name) for name in names}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], space: int) -> Self:
        """Inverse of :meth:`to_arrays`, and of what was written before there were seasons; of so many dims of space."""
        levels, scores = (arrays[f"anamorphosis_{name}"] for name in ("levels", "scores"))
        if levels.ndim == space + 2:
            levels, scores = levels[:, None], scores[:, None]
        return cls(arrays["anamorphosis_channels"], levels, scores)


def seasons_at(harmonics: Array, count: int) -> Array:
    """Weights (n, count) of seasons around shares ``s / count`` of the year: periodic quadratic B-splines.

    The time of year is told by the cosine and sine of its phase, the first columns of ``harmonics`` (n, 2 or more).
    """
    share = np.arctan2(harmonics[:, 1], harmonics[:, 0]) / (2 * np.pi)
    away = np.abs((share[:, None] * count - np.arange(count) + count / 2) % count - count / 2)
    return np.where(away < 0.5, 0.75 - away**2, np.maximum(1.5 - away, 0) ** 2 / 2)


def _mixed(tables: Array, weights: Array | None) -> Array:
    """The table (K, *space) of a time, of those of seasons (S, K, *space)."""
    assert (weights is None) == (len(tables) == 1)
    if weights is None:
        return tables[0]
    which = np.flatnonzero(weights)
    return (weights[which].reshape(-1, *[1] * (tables.ndim - 1)) * tables[which]).sum(0)


def _interpolated(x: Array, knots: Array, values: Array) -> Array:
    """Piecewise linear maps of x (..., *space), by knots and values (K, *space) of each cell."""
    count, cells = len(knots), np.arange(knots[0].size)
    flat, old, new = x.reshape(-1, len(cells)), knots.reshape(count, -1), values.reshape(count, -1)
    piece = _pieces(flat, old)
    slope = (new[1:] - new[:-1]) / (old[1:] - old[:-1])
    return (new[piece, cells] + slope[piece, cells] * (flat - old[piece, cells])).reshape(x.shape)


def _pieces(x: Array, knots: Array) -> NDArray[np.intp]:
    """The piece between knots (K, *cells) in which each of x (..., *cells) is, the outer ones going on."""
    piece = np.zeros(x.shape, dtype=np.intp)
    for knot in knots[1:-1]:
        piece += x >= knot
    return piece


def fit_levels(u: Array, low: float, periodic: Sequence[bool], weights: Array | None = None) -> tuple[Array, Array]:
    """Levels and scores (S, K, *space) of one variable.

    Args:
        u: its latents, (n, *space), NaN where missing.
        low: the threshold of its point mass, -inf where it has none.
        periodic: which axes are.
        weights: of each time in each season, (S, n); None: one season in which all count.
    """
    weights = np.ones((1, len(u))) if weights is None else weights
    shape, flat = u.shape[1:], np.maximum(u, low).reshape(len(u), -1)
    cells = np.arange(flat.shape[1]).reshape(1, *shape)
    near = [_moved(cells, steps, periodic).ravel() for steps in product((-1, 0, 1), repeat=len(shape))]
    each = np.repeat(weights, len(near), axis=1)
    found = [_of_cell(flat[:, beside].ravel(), low, each) for beside in np.stack(near, 1)]
    levels, scores = (np.stack(v, -1).reshape(*v[0].shape, *shape) for v in zip(*found))
    steps = _STEP * np.arange(levels.shape[1]).reshape(-1, *[1] * len(shape))
    levels = np.maximum.accumulate(levels, axis=1) + steps
    outer = _OUTER * np.diff(scores, axis=1)
    levels[:, -1] = np.maximum(levels[:, -1], levels[:, -2] + outer[:, -1])
    lowest = np.minimum(levels[:, 0], np.maximum(levels[:, 1] - outer[:, 0], low))
    levels[:, 0] = np.where(levels[:, 0] > low, lowest, levels[:, 0])
    return levels, scores


def _of_cell(values: Array, low: float, weights: Array) -> tuple[Array, Array]:
    """Levels and scores (S, K) of a cell from values (n,), NaN where missing, and their weights (S, n)."""
    order = np.argsort(values)[: np.isfinite(values).sum()]  # what is missing comes last
    values, weights = values[order], weights[:, order]
    year = _dry_share(values, low, np.ones(len(values)))
    levels, scores = np.empty((2, len(weights), len(_SHARES)))
    for one, score, season in zip(levels, scores, weights):
        which = np.flatnonzero(season)
        own, weight = (values[which], season[which]) if len(which) >= _FEW else (values, np.ones(len(values)))
        dry = _dry_share(own, low, weight)
        shares = dry + (1 - dry) * np.array(_SHARES)
        score[:] = ndtri(shares) - ndtri(dry) + ndtri(year)
        if len(values) < 2:  # of cells that never have a value
            one[:] = score
            continue
        middle = np.cumsum(weight) - weight / 2
        one[:] = np.interp(middle[0] + shares * (middle[-1] - middle[0]), middle, own)
        if np.isfinite(low):
            one[0] = low
    return levels, scores


def _dry_share(values: Array, low: float, weight: Array) -> float:
    """Share of the weight of sorted values that are at the threshold, within what is known of it."""
    dry = weight[: np.searchsorted(values, low, side="right")].sum()
    return min(max(dry / max(weight.sum(), 1e-300), _DRY[0]), _DRY[1])


def _moved(u: np.ndarray, steps: Sequence[int], periodic: Sequence[bool]) -> np.ndarray:
    """Fields (n, *space) moved by cells, the outer ones repeated where an axis has ends."""
    for axis, (step, cyclic) in enumerate(zip(steps, periodic), start=1):
        at = np.arange(u.shape[axis]) + step
        u = np.take(u, at % u.shape[axis] if cyclic else np.clip(at, 0, u.shape[axis] - 1), axis=axis)
    return u
