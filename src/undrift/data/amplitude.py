"""How lively the residuals are, given what is given.

Weather downscales with larger errors than calm: the variance of what the linear predictor leaves over is not constant
but

    var(residual) = scale^2 a^2,    log a^2 = w . (log A, log(L / A), q),

where A is the mean square of the second differences of the given field (its activity), L the same near one cell, and q
the standardised linear prediction there less its mean over the field. The weights are those of greatest likelihood of a
Gaussian with this variance, a log-linear regression of dispersion (Davidian and Carroll 1987,
doi:10.1080/01621459.1987.10478543). Of some sets of features, none among them, the one that contiguous folds prefer is
kept.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d
from scipy.optimize import minimize

from undrift.data.grid import Regridder

__all__ = ["Activity", "choose_weights", "clipped", "curvature", "log_amplitude"]

Array = NDArray[np.float64]
_SETS = ((), (0,), (0, 1), (2,), (0, 1, 2))  # of features that are tried, the simplest first
_LEAST = 0.05  # local activity that counts as none, in units of the mean activity
_MOST = np.log(16.0)  # of the variance, either way
_LEVELS = 3.0  # standard deviations to which the level is followed
_GAIN = 1e-3  # nats a cell for which a feature is taken


class Activity:
    """Mean squares of second differences of what is given, for each target channel.

    Args:
        source: given channel of each target channel; None takes the mean of all.
        periodic: for each axis of the given grid.
        regridder: from the given grid to the target's.
        mean: activity of each given channel over the training part, (G,).
    """

    def __init__(
        self, source: Sequence[int | None], periodic: Sequence[bool], regridder: Regridder, mean: Array
    ) -> None:
        self.source, self.periodic, self.regridder, self.mean = list(source), tuple(periodic), regridder, mean

    def __call__(self, coarse: Array) -> tuple[Array, Array]:
        """``log A`` (n, C) and ``log(L / A)`` (n, C, *space) of standardised given fields (n, G, *coarse)."""
        square = curvature(coarse, self.periodic) ** 2 / self.mean.reshape(-1, *[1] * (coarse.ndim - 2))
        channels = [square.mean(1) if i is None else square[:, i] for i in self.source]
        square = np.stack(channels, 1)
        axes = tuple(range(2, square.ndim))
        mean = square.mean(axes, keepdims=True) + 1e-6
        modes = ["wrap" if p else "nearest" for p in self.periodic]
        near = square
        for axis, mode in enumerate(modes, start=2):
            near = uniform_filter1d(near, min(3, near.shape[axis]), axis, mode=mode)
        fine = np.maximum(self.regridder(near), 0)
        return np.log(mean.reshape(mean.shape[:2])), np.log((fine + _LEAST) / (mean + _LEAST))


def curvature(x: Array, periodic: Sequence[bool]) -> Array:
    """Sum over axes of second differences of x (n, G, *space), the edge cell repeated where an axis does not close."""
    out = np.zeros_like(x)
    for axis, wrap in enumerate(periodic, start=2):
        width = [(0, 0)] * x.ndim
        width[axis] = (1, 1)
        padded = np.pad(x, width, mode="wrap" if wrap else "edge")
        size = x.shape[axis]
        out += np.take(padded, range(2, size + 2), axis) + np.take(padded, range(size), axis) - 2 * x
    return out


def log_amplitude(weights: Array, whole: Array, near: Array, level: Array) -> Array:
    """``log a^2``, (n, C, *space).

    Args:
        weights: of the three features, (C, 3).
        whole: ``log A``, (n, C).
        near: ``log(L / A)``, (n, C, *space).
        level: departure of the standardised linear prediction, :func:`clipped`, (n, C, *space).
    """
    w = weights.T.reshape(3, 1, -1, *[1] * (level.ndim - 2))
    whole = whole.reshape(*whole.shape, *[1] * (level.ndim - 2))
    return np.clip(w[0] * whole + w[1] * near + w[2] * level, -_MOST, _MOST)


def clipped(level: Array) -> Array:
    """A standardised prediction as far as its effect on the amplitude is followed."""
    return np.clip(level, -_LEVELS, _LEVELS)


def _loss(weights: Array, features: Array, square: Array) -> tuple[float, Array]:
    """Mean negative log-likelihood in nats of residuals with squares (N,) and features (N, K), and its gradient."""
    log_variance = features @ weights
    ratio = square * np.exp(-log_variance)
    gradient = 0.5 * features.T @ (1 - ratio) / len(square)
    return 0.5 * float(np.mean(log_variance + ratio)), gradient


def _fitted(features: Array, square: Array) -> Array:
    return minimize(_loss, np.zeros(features.shape[1]), args=(features, square), jac=True, method="BFGS").x


@np.errstate(over="ignore", invalid="ignore")  # a step that is too long has an infinite loss, and is refused
def choose_weights(features: Array, square: Array, fold: NDArray[np.intp]) -> Array:
    """Weights of the features, zero for those that held-out folds do not ask for.

    Args:
        features: (N, 3).
        square: squares of scaled out-of-fold residuals, (N,).
        fold: fold of each, (N,).

    Returns:
        (3,).
    """
    best, chosen = np.inf, np.zeros(features.shape[1])
    for columns in _SETS:
        design = np.concatenate([np.ones((len(square), 1)), features[:, list(columns)]], 1)
        loss = 0.0
        for k in np.unique(fold):
            test = fold == k
            weights = _fitted(design[~test], square[~test])
            loss += _loss(weights, design[test], square[test])[0] * test.mean()
        if loss < best - _GAIN:
            best, chosen = loss, np.zeros(features.shape[1])
            chosen[list(columns)] = _fitted(design, square)[1:]
    return chosen
