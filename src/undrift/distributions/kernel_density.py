"""Kernel densities of weighted points, by scikit-learn."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp, ndtr

from undrift.errors import UsageError, needs_extra

__all__ = ["KernelDensity", "fit_kernel_density"]

Array = NDArray[np.float64]
_TRIALS = 12  # bandwidths
_RANGE = (0.1, 2.0)  # of them, in units of Silverman's
_SCORED = 2000  # points that choose the bandwidth, at most
_ROWS = 1000  # at once, where all centres are met


@dataclass(frozen=True)
class KernelDensity:
    """A Gaussian of one width around each of the centres.

    Attributes:
        centres: (n, D).
        weights: of each, of sum 1, (n,).
        bandwidth: the standard deviation of the kernels.
    """

    centres: Array
    weights: Array
    bandwidth: float

    @property
    def numbers(self) -> int:
        """Standard normal numbers of which one draw is made: the first chooses the centre."""
        return self.centres.shape[1] + 1

    @cached_property
    def _tree(self) -> Any:
        with needs_extra("bayes", "a kernel density"):
            from sklearn.neighbors import KernelDensity as Tree

        return Tree(bandwidth=self.bandwidth).fit(self.centres, sample_weight=self.weights)

    def draw(self, z: Array, given: Array | None = None) -> Array:
        """Points (n, D) of standard normal numbers (n, D + 1)."""
        below = np.cumsum(self.weights)
        at = np.minimum(np.searchsorted(below, ndtr(z[:, 0]) * below[-1], side="right"), len(below) - 1)
        return self.centres[at] + self.bandwidth * z[:, 1:]

    def log_prob(self, y: Array, given: Array | None = None) -> tuple[Array, Array]:
        """Log-density of points (n, D) in nats, and its error, 0."""
        return self._tree.score_samples(y), np.zeros(len(y))

    def score(self, y: Array, given: Array | None = None) -> Array:
        """Gradient of the log-density at points (n, D)."""
        out = np.empty_like(y)
        for start in range(0, len(y), _ROWS):
            part = y[start : start + _ROWS]
            square = ((part[:, None] - self.centres) ** 2).sum(-1) / self.bandwidth**2
            share = -square / 2 + np.log(np.maximum(self.weights, 1e-300))
            share = np.exp(share - logsumexp(share, axis=1, keepdims=True))
            out[start : start + _ROWS] = (share @ self.centres - part) / self.bandwidth**2
        return out

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Arrays that hold it."""
        return {"centres": self.centres, "weights": self.weights, "bandwidth": np.array(self.bandwidth)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """Inverse of :meth:`to_arrays`."""
        return cls(arrays["centres"], arrays["weights"], float(arrays["bandwidth"]))


def fit_kernel_density(
    y: Array, weights: Array, given: Array | None, *, left_out: NDArray[np.bool_], seed: int = 0
) -> KernelDensity:
    """The kernel density whose bandwidth makes the points that are left out most likely.

    Bandwidths are tried around that of Silverman (1986), ``(4 / (n (D + 2)))^(1 / (D + 4))`` for points of unit scale
    and n the effective number of them; the density that is returned has all points for centres.

    Args:
        y: points of unit scale, (n, D).
        weights: of each, (n,).
        given: nothing may be.
        left_out: points that choose the bandwidth, (n,).
        seed: of those among them that are scored.

    Raises:
        UsageError: something is given.
    """
    if given is not None:
        raise UsageError("a kernel density knows of nothing that is given; type --estimator mixture or flow-matching")
    keep = (weights > 0) & ~left_out
    out = np.flatnonzero((weights > 0) & left_out)
    out = np.random.default_rng(seed).permutation(out)[:_SCORED]
    share = weights[keep] / weights[keep].sum()
    number, size = 1 / (share**2).sum(), y.shape[1]
    usual = (4 / (number * (size + 2))) ** (1 / (size + 4))
    trials = usual * np.geomspace(*_RANGE, _TRIALS)
    best = usual
    if len(out):

        def surprise(bandwidth: float) -> float:
            found, _ = KernelDensity(y[keep], share, bandwidth).log_prob(y[out])
            return -float(np.average(found, weights=weights[out]))

        best = min(trials, key=surprise)
    every = weights > 0
    return KernelDensity(y[every], weights[every] / weights[every].sum(), float(best))
