"""A density of parameters in the coordinates of another: the law where a flow from a density begins.

With x = f^-1(y) the parameters of points y of one, and u = g(x) the points of the other,
log p(u) = log p(y) + log |det dy/dx| - log |det du/dx|.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from undrift.data.parameters import Parameters
from undrift.distributions.points import PointDensity

__all__ = ["Recoded"]

Array = NDArray[np.float64]
_LAW, _OWN, _OTHER = "law.", "own.", "other."


@dataclass(frozen=True)
class Recoded:
    """A density of points u (n, D) by that of the points y of the same parameters.

    Attributes:
        estimator: of the density.
        density: of y.
        own: y of the parameters x.
        other: u of the parameters, in their order there.
        order: which of the parameters of ``own`` each of those of ``other`` is, (D,).
    """

    estimator: str
    density: PointDensity
    own: Parameters
    other: Parameters
    order: NDArray[np.intp]

    @property
    def numbers(self) -> int:
        """Standard normal numbers of which one draw is made."""
        return self.density.numbers

    def draw(self, z: Array) -> Array:
        """Points (n, D) of standard normal numbers (n, numbers)."""
        return self.other.encode(self.own.decode(self.density.draw(z))[:, self.order])[0]

    def log_prob(self, u: Array) -> tuple[Array, Array]:
        """Log-density of points (n, D) in nats, and its estimated error, (n,) each.

        It is -inf beyond the bounds of its own, and NaN with an infinite error where the numbers end.
        """
        found, error = np.full(len(u), np.nan), np.full(len(u), np.inf)
        with np.errstate(all="ignore"):
            values = self.other.decode(u)
            near = np.flatnonzero(np.isfinite(u).all(1) & np.isfinite(values).all(1))
            _, there = self.other.encode(values[near])
            y, here = self.own.encode(values[near][:, np.argsort(self.order)])
        found[near], error[near] = -np.inf, 0.0
        inside = np.isfinite(y).all(1) & np.isfinite(here)
        if inside.any():
            value, error[near[inside]] = self.density.log_prob(y[inside])
            found[near[inside]] = value + here[inside] - there[inside]
        return found, error

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Arrays that hold it."""
        parts = ((f"{_LAW}{self.estimator}.", self.density), (_OWN, self.own), (_OTHER, self.other))
        arrays = {f"{prefix}{key}": value for prefix, part in parts for key, value in part.to_arrays().items()}
        return arrays | {"order": self.order}

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, np.ndarray], read: Callable[[str, Mapping[str, np.ndarray]], PointDensity]
    ) -> Self:
        """Inverse of :meth:`to_arrays`, where ``read`` makes the density of an estimator of its arrays."""

        def part(prefix: str) -> dict[str, np.ndarray]:
            return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}

        estimator = next(key.split(".")[1] for key in arrays if key.startswith(_LAW))
        law = read(estimator, part(f"{_LAW}{estimator}."))
        own, other = (Parameters.from_arrays(part(prefix)) for prefix in (_OWN, _OTHER))
        return cls(estimator, law, own, other, np.asarray(arrays["order"], np.intp))
