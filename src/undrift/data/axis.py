"""Maps of one bounded or periodic parameter to the whole line, exactly invertible, with their slopes.

With Phi and phi the distribution function and the density of the standard normal law:

- ``between``: u = Phi^-1(s) of the share s = (x - low) / (high - low). A flat law becomes standard normal, and one that
  goes as s^a at an end has there the tail of a normal law of variance 1 / (1 + a): what ends at a bound with a finite
  density, as a posterior cut off by its prior does, keeps a Gaussian tail. The logit of the share gives an exponential
  one, which no law made from normal numbers has. Of a ``flat`` width w it is the quantile of U[-w/2, w/2] + N(0, 1)
  instead (:mod:`undrift.data.blurred`), straight but for the ends: what is given with a parameter often says how far
  it is from the data's centre, and a narrow law that depends on it is then as wide in the middle as near the ends.
- ``log``: u = ln t of the distance t from the only bound.
- ``decay``: u = Phi^-1(1 - exp(-t / scale)): the exponential law becomes standard normal.
- ``free``: u = x.

A periodic parameter is cut open at its emptiest place and is then ``between``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr, ndtri, ndtri_exp

from undrift.data import blurred

__all__ = ["KINDS", "Axis", "emptiest", "fit_axis", "straightened"]

KINDS = ("free", "between", "log", "decay")
_LOG_ROOT_2PI = 0.5 * np.log(2 * np.pi)
_BINS = 720
_NARROWEST = 0.02  # bandwidth on the circle, radians
_FLAT, _WORTH = tuple(2.0**k for k in range(1, 10)), 0.02  # widths, and the nats that one has to gain
_ROWS = 20_000  # of which a width is chosen

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Axis:
    """The map of one parameter.

    Attributes:
        kind: one of ``KINDS``.
        low: the lower bound, -inf where there is none; of a circle where it is written to begin.
        high: the upper bound, inf where there is none.
        cut: where the circle is opened, in [low, high); None where it is none.
        scale: the mean distance from the only bound, for ``decay``.
        inside: how far within the lower and the upper bound a value on them is taken to be.
        flat: the width of what is straight, for ``between``, in units of a normal deviation.
    """

    kind: str = "free"
    low: float = -np.inf
    high: float = np.inf
    cut: float | None = None
    scale: float = 1.0
    inside: tuple[float, float] = (0.0, 0.0)
    flat: float = 0.0

    def forward(self, x: Floats) -> tuple[Floats, Floats]:
        """(n,) values -> (n,) u and (n,) ln |du/dx|, -inf beyond the bounds."""
        if self.kind == "free":
            return x, np.zeros_like(x)
        from_low, from_high, outside = self._distances(x)
        if self.kind == "between":
            width = self.high - self.low
            sign, nearer = np.where(from_low < from_high, 1.0, -1.0), np.minimum(from_low, from_high)
            with np.errstate(divide="ignore"):
                u = sign * blurred.quantile(np.log(nearer) - np.log(width), self.flat)
            slope = -blurred.log_density(u, self.flat) - np.log(width)
        else:
            sign, t = self._one_sided(from_low, from_high)
            u, slope = self._of_distance(t)
            u = sign * u
        return u, np.where(outside, -np.inf, slope)

    def inverse(self, u: Floats) -> Floats:
        """(n,) numbers on the line -> (n,) values within the bounds."""
        if self.kind == "free":
            return u
        if self.kind == "between":
            width = self.high - self.low
            nearer = width * np.exp(blurred.log_share(-np.abs(u), self.flat))
            x = np.where(u < 0, self.low + nearer, self.high - nearer)
            if self.cut is None:
                return np.clip(x, self.low, self.high)
            x = x + (self.cut - self.low)
            return np.where(x >= self.high, x - width, x)
        sign = 1.0 if np.isfinite(self.low) else -1.0
        t = np.exp(sign * u) if self.kind == "log" else -self.scale * log_ndtr(-sign * u)
        return self.low + t if sign > 0 else self.high - t

    def slopes(self, x: Floats) -> tuple[Floats, Floats]:
        """(n,) du/dx, and (n,) the derivative of ln |du/dx| by x."""
        u, log_slope = self.forward(x)
        slope = np.exp(log_slope)
        if self.kind == "free":
            return slope, np.zeros_like(x)
        if self.kind == "between":
            return slope, -blurred.slope_of_log_density(u, self.flat) * slope
        from_low, from_high, _ = self._distances(x)
        sign, t = self._one_sided(from_low, from_high)
        if self.kind == "log":
            return slope, -sign / t
        return slope, u * slope - sign / self.scale

    def _of_distance(self, t: Floats) -> tuple[Floats, Floats]:
        if self.kind == "log":
            return np.log(t), -np.log(t)
        e = t / self.scale
        with np.errstate(over="ignore"):
            u = np.where(e < 0.5, ndtri(-np.expm1(-e)), -ndtri_exp(-e))
        return u, u**2 / 2 + _LOG_ROOT_2PI - e - np.log(self.scale)

    def _distances(self, x: Floats) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        """Distances from both ends, positive, and where the value is beyond one."""
        if self.cut is not None:
            width = self.high - self.low
            from_low = np.mod(x - self.cut, width)
            from_high, outside = width - from_low, np.zeros(x.shape, bool)
        else:
            from_low, from_high = x - self.low, self.high - x
            outside = (from_low < 0) | (from_high < 0)
        near, far = self.inside
        return np.where(from_low <= 0, near, from_low), np.where(from_high <= 0, far, from_high), outside

    def _one_sided(self, from_low: Floats, from_high: Floats) -> tuple[float, Floats]:
        return (1.0, from_low) if np.isfinite(self.low) else (-1.0, from_high)


def fit_axis(x: Floats, weights: Floats, low: float, high: float, periodic: bool) -> Axis:
    """The map for values within bounds.

    Beside an only bound it is ``log`` or ``decay``: the one after which a normal law has the larger likelihood.

    Args:
        x: (n,) values.
        weights: (n,), summing to 1.
        low: lower bound, -inf where there is none.
        high: upper bound, inf where there is none.
        periodic: whether both bounds are one place.
    """
    if not np.isfinite(low) and not np.isfinite(high):
        return Axis()
    if periodic:
        cut = emptiest(x, weights, low, high)
        return Axis("between", low, high, cut, inside=_inside(np.mod(x - cut, high - low), 0.0, high - low))
    inside = _inside(x, low, high)
    if np.isfinite(low) and np.isfinite(high):
        return Axis("between", low, high, inside=inside)
    distance = x - low if np.isfinite(low) else high - x
    tried = [Axis(kind, low, high, None, float(weights @ distance), inside) for kind in ("log", "decay")]
    return max(tried, key=lambda axis: _normal_likelihood(axis, x, weights))


def straightened(axis: Axis, x: Floats, weights: Floats, given: Floats) -> Axis:
    """The axis with the width of what is straight after which a normal law about a linear predictor is likeliest.

    Args:
        axis: of any kind; all but ``between`` that are no circle stay as they are.
        x: (n,) values.
        weights: (n,), summing to 1.
        given: (n, K) what is given with each.
    """
    if axis.kind != "between" or axis.cut is not None or not given.shape[1]:
        return axis
    every = -(-len(x) // _ROWS)
    x, weights, given = x[::every], weights[::every] / weights[::every].sum(), given[::every]
    tried = [replace(axis, flat=width) for width in _FLAT]
    best = max(tried, key=lambda one: _normal_likelihood(one, x, weights, given))
    gain = _normal_likelihood(best, x, weights, given) - _normal_likelihood(axis, x, weights, given)
    return best if gain > _WORTH else axis


def _normal_likelihood(axis: Axis, x: Floats, weights: Floats, given: Floats | None = None) -> float:
    """Mean ln of the density that a normal law of u, about a linear predictor, gives to x, but for a constant."""
    u, slope = axis.forward(x)
    known = np.ones((len(x), 1)) if given is None else np.column_stack([np.ones(len(x)), given])
    root = np.sqrt(weights)
    left = root * u - (root[:, None] * known) @ np.linalg.lstsq(root[:, None] * known, root * u, rcond=None)[0]
    return float(weights @ slope - 0.5 * np.log(left @ left))


def _inside(x: Floats, low: float, high: float) -> tuple[float, float]:
    """Half of the smallest distance from each bound that any value not on it has."""

    def half(distance: Floats) -> float:
        positive = distance[(distance > 0) & np.isfinite(distance)]
        return float(positive.min()) / 2 if len(positive) else 0.0

    return half(x - low), half(high - x)


def emptiest(x: Floats, weights: Floats, low: float, high: float) -> float:
    """The place of a circle where a smooth density of the values is least, in [low, high).

    The density is a histogram smoothed by Silverman's rule for the circular standard deviation; of a gap without values
    it is the middle.
    """
    turn = np.mod((x - low) / (high - low), 1.0)
    counts = np.bincount((turn * _BINS).astype(np.intp) % _BINS, weights, _BINS)
    resultant = min(abs(weights @ np.exp(2j * np.pi * turn)) / weights.sum(), 1 - 1e-12)
    effective = weights.sum() ** 2 / (weights @ weights)
    width = min(max(1.06 * np.sqrt(-2 * np.log(resultant)) * effective**-0.2, _NARROWEST), 0.5)
    waves = np.arange(_BINS // 2 + 1)
    density = np.fft.irfft(np.fft.rfft(counts) * np.exp(-0.5 * (waves * width) ** 2), _BINS)
    least = density <= density.min() + 1e-9 * density.max()
    start = int(np.argmin(least)) if not least.all() else 0  # a run of least values never crosses the turn from here
    turned = np.roll(least, -start)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], turned, [False]]).astype(int)))
    first, last = edges[::2], edges[1::2]
    longest = int(np.argmax(last - first))
    middle = (start + (first[longest] + last[longest]) / 2) / _BINS % 1.0
    return float(low + (high - low) * middle)
