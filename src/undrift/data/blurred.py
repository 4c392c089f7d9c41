"""The law of a flat number with normal noise: U[-w/2, w/2] + N(0, 1), from the normal law (w = 0) to a flat one.

Its quantile maps the share of a bounded interval to the line: straight in the middle, and with the tails of a normal
law at the ends. With G(u) = u Phi(u) + phi(u), the integral of Phi, its distribution function is
S(u) = (G(u + w/2) - G(u - w/2)) / w and its density (Phi(u + w/2) - Phi(u - w/2)) / w.
"""

from __future__ import annotations

__all__ = ["log_density", "log_share", "quantile", "slope_of_log_density"]

import numpy as np
from numpy.typing import NDArray
from scipy.special import erfcx, log_ndtr, ndtr, ndtri_exp

Floats = NDArray[np.float64]

_LOG_ROOT_2PI = 0.5 * np.log(2 * np.pi)
_MOST_STEPS, _CLOSE = 30, 1e-12


def log_share(u: Floats, width: float) -> Floats:
    """Logarithm of the share S below u <= 0, (n,); of the normal law where the width is 0."""
    if width == 0:
        return log_ndtr(u)
    above, below = _log_integral(u + width / 2), _log_integral(u - width / 2)
    return above + np.log1p(-np.exp(below - above)) - np.log(width)


def log_density(u: Floats, width: float) -> Floats:
    """Logarithm of the density at u, (n,)."""
    if width == 0:
        return -(u**2) / 2 - _LOG_ROOT_2PI
    u = -np.abs(u)
    above, below = log_ndtr(u + width / 2), log_ndtr(u - width / 2)
    return above + np.log1p(-np.exp(below - above)) - np.log(width)


def slope_of_log_density(u: Floats, width: float) -> Floats:
    """Its derivative, (n,)."""
    if width == 0:
        return -u
    ends = [np.exp(-((u + end) ** 2) / 2 - _LOG_ROOT_2PI - log_density(u, width)) for end in (width / 2, -width / 2)]
    return (ends[0] - ends[1]) / width


def quantile(log_p: Floats, width: float) -> Floats:
    """The u <= 0 of the logarithm of a share of at most a half, (n,).

    ln S is concave, and S(u) at most Phi(u + w/2), and (u + w/2 + phi(0)) / w where u > -w/2: from where one of them is
    the share Newton's method rises to the root.
    """
    u = ndtri_exp(log_p)
    if width == 0:
        return u
    straight = width * np.exp(log_p) - np.exp(-_LOG_ROOT_2PI)
    u = np.where(straight > 0, np.maximum(u, straight), u) - width / 2
    for _ in range(_MOST_STEPS):
        found = log_share(u, width)
        step = (log_p - found) * np.exp(found - log_density(u, width))
        u = np.minimum(u + step, 0.0)
        if not (np.abs(step) > _CLOSE * (1 + np.abs(u))).any():
            break
    return u


def _log_integral(u: Floats) -> Floats:
    """Logarithm of G: by Mills' ratio where u is negative, as its terms nearly cancel there."""
    low = np.minimum(u, 0.0)
    mills = np.sqrt(np.pi / 2) * erfcx(-low / np.sqrt(2))
    with np.errstate(invalid="ignore", divide="ignore"):
        left = -(low**2) / 2 - _LOG_ROOT_2PI + np.log1p(low * mills)
    high = np.maximum(u, 0.0)
    return np.where(u < 0, left, np.log(high * ndtr(high) + np.exp(-(high**2) / 2 - _LOG_ROOT_2PI)))
