"""Densities of points beside each other: p(y | given) = sum_k w_k p_k(y | given).

Stacking (Smyth and Wolpert 1999, "Linearly combining density estimators via stacking", Machine Learning 36, eq. 3): the
shares w_k are those that make rows likeliest which none of the densities has seen. The logarithm of a sum is concave in
them, so that expectation-maximisation finds the best; where densities err in different places, it is nearer than each.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from undrift.distributions.points import PointDensity
from undrift.infer.gaussian_mixture import effective_size

__all__ = ["Stacked", "shares_of"]

Array = NDArray[np.float64]
_STEPS, _STILL = 1000, 1e-6  # iterations, and a change of shares that ends them
_SHARE = ".share"


@dataclass(frozen=True)
class Stacked:
    """A density of points (n, D), perhaps given (n, K), that is a sum of others.

    Attributes:
        parts: the densities by name, of the same points and of the same that is given; a draw knows them in the order
            of their names.
        shares: of each, which sum to one.
    """

    parts: Mapping[str, PointDensity]
    shares: Mapping[str, float]

    @property
    def numbers(self) -> int:
        """Standard normal numbers of which one draw is made: the first picks the part."""
        return 1 + max(part.numbers for part in self.parts.values())

    def draw(self, z: Array, given: Array | None = None) -> Array:
        """Points (n, D) of standard normal numbers (n, numbers), each of its own row alone."""
        which = np.searchsorted(np.cumsum(self._weights)[:-1], ndtr(z[:, 0]), side="right")
        drawn, order = [], []
        for k, part in enumerate(self._ordered):
            rows = np.flatnonzero(which == k)
            drawn.append(part.draw(z[rows, 1 : 1 + part.numbers], None if given is None else given[rows]))
            order.append(rows)
        return np.concatenate(drawn)[np.argsort(np.concatenate(order))]

    def log_prob(self, y: Array, given: Array | None = None) -> tuple[Array, Array]:
        """Log-density of points (n, D) in nats, and its estimated error, (n,) each."""
        total, share, errors = self._sum(y, given)
        known = np.isfinite(errors)
        error = (share * np.where(known, errors, 0.0)).sum(1)
        return total, np.where(known.all(1), error, np.inf)

    def score(self, y: Array, given: Array | None = None) -> Array:
        """Gradient of the log-density at points (n, D)."""
        share = self._sum(y, given)[1]
        scores = np.stack([part.score(y, given) for part in self._ordered], 1)
        return (share[:, :, None] * np.where(share[:, :, None] > 0, scores, 0.0)).sum(1)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Arrays that hold it."""
        held = {f"{name}{_SHARE}": np.array(w) for name, w in self.shares.items()}
        arrays = {f"{name}.{key}": v for name, part in self.parts.items() for key, v in part.to_arrays().items()}
        return held | arrays

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, np.ndarray], read: Callable[[str, Mapping[str, np.ndarray]], PointDensity]
    ) -> Self:
        """Inverse of :meth:`to_arrays`, where ``read`` makes the density of a name of its arrays."""
        shares = {key.removesuffix(_SHARE): float(v) for key, v in arrays.items() if key.endswith(_SHARE)}
        parts = {}
        for name in shares:
            held = {key.removeprefix(f"{name}."): v for key, v in arrays.items() if key.startswith(f"{name}.")}
            parts[name] = read(name, held)
        return cls(parts, shares)

    @property
    def _ordered(self) -> list[PointDensity]:
        return [self.parts[name] for name in sorted(self.parts)]

    @property
    def _weights(self) -> Array:
        return np.array([self.shares[name] for name in sorted(self.parts)])

    def _sum(self, y: Array, given: Array | None) -> tuple[Array, Array, Array]:
        """The log-density (n,), the share of each part at each point and the error of its log-density, (n, parts)."""
        found = [part.log_prob(y, given) for part in self._ordered]
        with np.errstate(divide="ignore"):
            terms = np.stack([value for value, _ in found], 1) + np.log(self._weights)
        terms[np.isnan(terms)] = -np.inf  # too far out for its numbers, as its error says
        total = np.logaddexp.reduce(terms, axis=1)
        inside = np.isfinite(total)
        share = np.exp(terms - np.where(inside, total, 0.0)[:, None])
        share[~inside] = self._weights
        return total, share, np.stack([error for _, error in found], 1)


def shares_of(log_q: Array, weights: Array) -> Array:
    """Shares (parts,) of densities that make weighted rows likeliest, as one further row of each part would have them.

    Args:
        log_q: log-densities of rows under each, (n, parts); of each row one at least is finite.
        weights: of the rows, (n,).
    """
    parts = log_q.shape[1]
    rows = effective_size(weights)
    count = rows * weights / weights.sum()
    peak = np.exp(log_q - log_q.max(1, keepdims=True))
    shares = np.full(parts, 1 / parts)
    for _ in range(_STEPS):
        belongs = shares * peak
        better = (count @ (belongs / belongs.sum(1, keepdims=True)) + 1) / (rows + parts)
        still = np.abs(better - shares).max() < _STILL
        shares = better
        if still:
            break
    return shares
