"""The prior of each parameter by itself, from a map of the unit cube."""

from __future__ import annotations

__all__ = ["prior_by_parameter", "share_below"]

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr
from scipy.special import ndtr

_LEVELS, _FARTHEST = 1001, 5.0  # quantiles, and the standard normal number of the last of them
_TRIED = 8  # points at which the other numbers are changed
_DRAWS = 2000


def prior_by_parameter(prior_transform: Callable[..., Any], names: Sequence[str], *, seed: int = 0) -> xr.Dataset:
    """Quantiles of the prior of each parameter where it depends on its own number alone, draws where it does not.

    The likelihood is not called. A parameter whose value stays the same bit by bit while the other numbers of the unit
    cube change at eight points, and that rises or falls strictly with its own number, has the quantiles
    ``theta_i(u, ..., u)``: 1001 of them, at even steps of the normal quantile of u up to 5. Of others 2000 draws are
    kept.

    Args:
        prior_transform: parameters (D,) of a point (D,) of the unit cube.
        names: of the parameters (D,).
        seed: of the draws.

    Returns:
        Of each parameter an array over ``level``, whose coordinate is the share u of the prior below, or over ``draw``.
    """
    ndim, rng = len(names), np.random.Generator(np.random.Philox(key=[seed, 2]))

    def mapped(u: np.ndarray) -> np.ndarray:
        return np.array([np.array(prior_transform(row.copy()), dtype=np.float64) for row in u])

    levels = ndtr(np.linspace(-_FARTHEST, _FARTHEST, _LEVELS))
    at = mapped(np.repeat(levels[:, None], ndim, 1))
    first, other = rng.random((_TRIED, ndim)), rng.random((_TRIED, ndim))
    before, found, draws = mapped(first), xr.Dataset(coords={"level": levels}), None
    for i, name in enumerate(names):
        moved = other.copy()
        moved[:, i] = first[:, i]
        steps = np.diff(at[:, i])
        if np.array_equal(mapped(moved)[:, i], before[:, i]) and ((steps > 0).all() or (steps < 0).all()):
            found[name] = ("level", at[:, i])
            continue
        draws = mapped(rng.random((_DRAWS, ndim))) if draws is None else draws
        found[name] = ("draw", draws[:, i])
    return found


def share_below(prior: xr.DataArray, values: np.ndarray) -> np.ndarray:
    """The share of the prior below values (n,) of a parameter with quantiles over ``level``.

    Of a prior that falls with its number it is the share above, in which a divergence is the same.
    """
    order = np.argsort(prior.values)
    return np.interp(values, prior.values[order], prior["level"].values[order])
