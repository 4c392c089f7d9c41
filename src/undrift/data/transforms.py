"""Named transforms between a variable's units and a latent of about unit scale.

Every transform is one formula, the doubly censored Gaussian (Tobin 1958, doi:10.2307/1907382): a latent ``u`` decodes
to

    x = inverse(clip(mean + std u, f(lower), f(upper))),

so that latents beyond a bound decode to the bound exactly. Values *at* a bound (dry cells, open water) do not fix their
latent: it is any number beyond the threshold and is drawn at random in training, so a variable with a point mass is
learned as a continuous one and comes back with the point mass at its true rate. Records that are rounded have no value
between 0 and a smallest one, and a latent there would be rain that no record has: half of the smallest value is the
threshold, below which all is 0. All scales are fitted from the data: another unit of the same variable gives the same
latents.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Self

import numpy as np
from scipy.special import ndtri
from scipy.stats import norm

from undrift.errors import DataError, UsageError

__all__ = ["KINDS", "Moments", "Transform", "choose", "fit_transform"]

KINDS = ("standard", "censored", "bounded", "power")
_POWER = 1 / 3  # the cube root takes the skew out of rain (Stidd 1973, doi:10.1029/WR009i005p01235)
_ROUNDING = 1e-6  # of the largest value: how far below 0 a positive variable may be stored
_FILLED = 0.8  # share of a bounded range that the values reach
_ATOM = 0.002  # share of values at a bound from which the bound is a point mass
_TOPS = (1.0, 100.0)  # of fractions and of per cents


@dataclass(frozen=True)
class Transform:
    """``x -> (f(x) - mean) / std`` with optional bounds.

    Attributes:
        kind: "standard" (no bounds), "power" (lower bound 0, cube root), "censored" (the same with a point mass at 0),
            "bounded" (between 0 and 1, or 0 and 100).
        mean: mean of f(x).
        std: standard deviation of f(x).
        power: f(x) = sign(x) |x|^power.
        lower: smallest value there is, or None.
        upper: largest value there is, or None.
        least: what is smaller is at the lower bound.
    """

    kind: str
    mean: float
    std: float
    power: float = 1.0
    lower: float | None = None
    upper: float | None = None
    least: float = 0.0

    def _f(self, x: np.ndarray) -> np.ndarray:
        return x if self.power == 1 else np.sign(x) * np.abs(x) ** self.power

    @property
    def bounds(self) -> tuple[float, float]:
        """The two bounds of f(x), infinite where there is none."""
        low = -np.inf if self.lower is None else float(self._f(np.asarray(max(self.lower, self.least))))
        return low, np.inf if self.upper is None else float(self._f(np.asarray(self.upper)))

    @property
    def thresholds(self) -> tuple[float, float]:
        """Latents of the two bounds, infinite where there is none."""
        low, high = self.bounds
        return (low - self.mean) / self.std, (high - self.mean) / self.std

    def encode(self, x: np.ndarray) -> np.ndarray:
        """Latents, float64; at or beyond a bound that is a point mass they are -inf or inf; NaN stays."""
        x = np.asarray(x, dtype=np.float64)
        u = (self._f(x) - self.mean) / self.std
        if self.kind in ("censored", "bounded"):
            low, high = self.thresholds
            u = np.where(u <= low, -np.inf, u)
            u = np.where(u >= high, np.inf, u)
        return u

    def continuous(self, x: np.ndarray) -> np.ndarray:
        """Latents without the mark of point masses: what a predictor is given, finite wherever x is."""
        return (self._f(np.asarray(x, dtype=np.float64)) - self.mean) / self.std

    def log_slope(self, x: np.ndarray) -> np.ndarray:
        """``log |du / dx|`` of :meth:`continuous`, float64; infinite at 0 where f is a root."""
        x = np.asarray(x, dtype=np.float64)
        with np.errstate(divide="ignore"):
            root = 0.0 if self.power == 1 else np.log(self.power) + (self.power - 1) * np.log(np.abs(x))
        return root - np.log(self.std) + np.zeros_like(x)

    def decode(self, u: np.ndarray) -> np.ndarray:
        """Values in the variable's units, float64, inside the bounds."""
        v = np.clip(self.mean + self.std * np.asarray(u, dtype=np.float64), *self.bounds)
        x = v if self.power == 1 else np.sign(v) * np.abs(v) ** (1 / self.power)
        if self.least:
            x = np.where(v <= self.bounds[0], 0.0, x)
        return np.clip(x, self.lower, self.upper) if self.kind != "standard" else x

    def to_dict(self) -> dict[str, object]:
        """JSON-able form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> Self:
        """Inverse of :meth:`to_dict`."""
        return cls(**values)


@dataclass
class Moments:
    """Streamed sums of one variable, in float64.

    Attributes:
        count: known values.
        low: smallest value.
        high: largest value.
        least: smallest value above 0.
    """

    count: int = 0
    low: float = np.inf
    high: float = -np.inf
    at_zero: int = 0
    least: float = np.inf
    at_top: dict[float, int] = field(default_factory=lambda: dict.fromkeys(_TOPS, 0))
    shift: float | None = None
    sums: dict[float, np.ndarray] = field(default_factory=dict)

    def update(self, values: np.ndarray) -> None:
        """Add values; NaN is left out."""
        x = np.asarray(values, dtype=np.float64).ravel()
        x = x[~np.isnan(x)]
        if not len(x):
            return
        if self.shift is None:
            self.shift = float(x.mean())
        self.count += len(x)
        self.low, self.high = min(self.low, float(x.min())), max(self.high, float(x.max()))
        self.at_zero += int((x <= 0).sum())
        self.least = min(self.least, float(x.min(where=x > 0, initial=np.inf)))
        for top in _TOPS:
            self.at_top[top] += int((x == top).sum())
        cubic = np.sign(x) * np.abs(x) ** _POWER
        for name, v in ((1.0, x - self.shift), (_POWER, cubic)):
            self.sums[name] = self.sums.get(name, np.zeros(3)) + np.array([len(v), v.sum(), (v**2).sum()])

    def mean_std(self, power: float) -> tuple[float, float]:
        """Mean and standard deviation of f(x) for power 1 or 1/3."""
        n, s1, s2 = self.sums[power]
        mean = s1 / n
        std = float(np.sqrt(max(s2 / n - mean**2, 0.0)))
        return float(mean + (self.shift or 0.0) if power == 1 else mean), std

    @property
    def top(self) -> float:
        """The upper bound that the values may have: 1 of fractions, 100 of per cents, infinite where they exceed it."""
        return next((top for top in _TOPS if self.high <= top), np.inf)

    @property
    def positive(self) -> bool:
        """Whether no value is below 0 but by rounding, as spectral models and packed files have it."""
        return self.low >= -_ROUNDING * max(self.high, 0.0)


def unbounded(transforms: Sequence[Transform], space: int) -> np.ndarray:
    """Which of some channels have no bounds, (C, *ones), for so many dims of space."""
    return np.array([t.kind == "standard" for t in transforms]).reshape(-1, *[1] * space)


def choose(moments: Moments, units: str = "") -> str:
    """The kind of transform that a variable's values and units ask for.

    Per cents, and numbers without units that fill [0, 1], are "bounded" whether or not they reach their ends. Values
    that end at exactly 1 or 100 are fractions or per cents ("bounded"); exact zeros at the lower end are a point
    mass ("censored"); values that reach down to zero from above are positive by nature ("power"); everything else is
    "standard".
    """
    if moments.count == 0 or not moments.positive:
        return "standard"
    full = {"%": 100.0, "percent": 100.0, "1": 1.0}.get(units.strip(), np.inf)
    if moments.top == full and moments.high >= _FILLED * full:
        return "bounded"
    if moments.at_top.get(moments.top, 0) / moments.count >= _ATOM:
        return "bounded"
    if moments.at_zero / moments.count >= _ATOM:
        return "censored"
    mean, _ = moments.mean_std(1.0)
    return "power" if moments.low < 0.05 * mean else "standard"


def _censored_scale(share: float, mean: float) -> tuple[float, float]:
    """(mean, std) of the Gaussian whose mass below 0 is ``share`` and whose mean above 0 is ``mean``."""
    a = float(ndtri(np.clip(share, 1e-4, 1 - 1e-4)))
    std = mean / (float(norm.pdf(a)) / (1 - np.clip(share, 1e-4, 1 - 1e-4)) - a)
    return -a * std, std


def fit_transform(kind: str, moments: Moments, name: str, units: str = "", *, rounded: bool = False) -> Transform:
    """Fit a transform's scales.

    Args:
        kind: one of :data:`KINDS` or "auto".
        moments: the variable's streamed sums over the training part.
        name: the variable, for errors.
        units: its units.
        rounded: whether a variable with a point mass at 0 has no value below half of its smallest one. Means over
            blocks are then not all possible.
    """
    if kind == "auto":
        kind = choose(moments, units)
    if kind not in KINDS:
        raise UsageError(f"transform of {name} is {kind!r}, expected one of auto, {', '.join(KINDS)}")
    if moments.count == 0:
        raise DataError(f"{name} has no value in the training part; leave it out with --variables")
    if moments.high == moments.low:
        raise DataError(f"{name} is constant ({moments.low:g}) in the training part; leave it out with --variables")
    if kind == "standard":
        return Transform(kind, *moments.mean_std(1.0))
    if not moments.positive:
        raise DataError(
            f"{name} has values down to {moments.low:g}, and the transform {kind!r} takes none below 0; "
            f"use --set codec.transforms.{name}=standard"
        )
    if kind == "bounded":
        top = moments.top
        if top == np.inf:
            raise DataError(
                f"{name} has values up to {moments.high:g}, and the transform 'bounded' takes none above 1 "
                f"(a fraction) or 100 (per cent); use --set codec.transforms.{name}=standard"
            )
        low, high = moments.at_zero / moments.count, moments.at_top[top] / moments.count
        a, b = (float(ndtri(np.clip(p, 1e-3, 1 - 1e-3))) for p in (low, 1 - high))
        if a < b:  # the two thresholds hold the two point masses
            return Transform(kind, -top * a / (b - a), top / (b - a), 1.0, 0.0, top)
        return Transform(kind, *moments.mean_std(1.0), 1.0, 0.0, top)
    mean, std = moments.mean_std(_POWER)
    share = moments.at_zero / moments.count
    if kind != "censored" or not share:
        return Transform(kind, mean, std, _POWER, 0.0, None)
    least = 0.5 * moments.least if rounded else 0.0
    mean, std = _censored_scale(share, mean / (1 - share) - least**_POWER)
    return Transform(kind, mean + least**_POWER, std, _POWER, 0.0, None, least)
