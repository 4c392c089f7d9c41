"""Mixtures of Gaussians as densities of points, also of points given others."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from undrift.infer.gaussian_mixture import GaussianMixture, climb

__all__ = ["Mixture", "fit_mixture"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Mixture:
    """The law of points (n, D) in a mixture of what is given and of them, (n, K + D): its conditional.

    Attributes:
        joint: the mixture.
        count: numbers that are given, K.
    """

    joint: GaussianMixture
    count: int = 0

    @property
    def numbers(self) -> int:
        """Standard normal numbers of which one draw is made: the first chooses the Gaussian."""
        return self.joint.dimensions - self.count + 1

    def draw(self, z: Array, given: Array | None = None) -> Array:
        """Points (n, D) of standard normal numbers (n, D + 1)."""
        return self.joint.draw(z) if given is None else self.joint.draw_given(z, given)

    def log_prob(self, y: Array, given: Array | None = None) -> tuple[Array, Array]:
        """Log-density of points (n, D) in nats, and its error, 0."""
        found = self.joint.log_prob(_together(y, given))
        if given is not None:
            found = found - self.joint.marginal(self.count).log_prob(given)
        return found, np.zeros(len(y))

    def score(self, y: Array, given: Array | None = None) -> Array:
        """Gradient of the log-density at points (n, D)."""
        return self.joint.score(_together(y, given))[:, self.count :]

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Arrays that hold it."""
        return self.joint.to_arrays() | {"count": np.array(self.count)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """Inverse of :meth:`to_arrays`."""
        return cls(GaussianMixture.from_arrays(arrays), int(arrays["count"]))


def fit_mixture(
    y: Array, weights: Array, given: Array | None, *, left_out: NDArray[np.bool_], seed: int = 0
) -> Mixture:
    """The mixture whose number of Gaussians makes the points that are left out most likely.

    Args:
        y: points of unit scale, (n, D).
        weights: of each, (n,).
        given: what is given with each, (n, K), or None.
        left_out: points that choose the number of Gaussians, (n,).
        seed: of the starts.
    """
    joint, keep = _together(y, given), (weights > 0) & ~left_out
    out = (weights > 0) & left_out
    if not out.any():
        out = keep
    found = climb(joint[keep], weights[keep], (joint[out], weights[out]), rng=np.random.default_rng(seed))
    return Mixture(found, 0 if given is None else given.shape[1])


def _together(y: Array, given: Array | None) -> Array:
    return y if given is None else np.concatenate([given, y], 1)
