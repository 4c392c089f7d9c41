"""A density of what a linear predictor of points leaves over, as one of the points.

With r = L^-1 (y - B g), B the least-squares predictor of y by what is given and L L^T the covariance of what it leaves
over, log p(y | g) = log q(r | g) - log det L. Where g tells much of y, as precise data do of parameters, the residual
is of unit scale and y is not: a network then learns the shape of a posterior and not first where it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from undrift.distributions.points import PointDensity

__all__ = ["Residual", "fit_predictor"]

Array = NDArray[np.float64]
_LEAST = 1e-6  # of a residual, in units of the points: what is given may tell all


@dataclass(frozen=True)
class Residual:
    """A density of points (n, D), by that of their residuals, given (n, K).

    Attributes:
        density: of the residuals.
        slope: B, (D, K).
        factor: L, (D, D), lower triangular.
    """

    density: PointDensity
    slope: Array
    factor: Array

    @property
    def numbers(self) -> int:
        """Standard normal numbers of which one draw is made."""
        return self.density.numbers

    def residual(self, y: Array, given: Array) -> Array:
        """Points (n, D) as residuals (n, D)."""
        return solve_triangular(self.factor, (y - given @ self.slope.T).T, lower=True).T

    def draw(self, z: Array, given: Array | None = None) -> Array:
        """Points (n, D) of standard normal numbers (n, numbers)."""
        assert given is not None
        return given @ self.slope.T + self.density.draw(z, given) @ self.factor.T

    def log_prob(self, y: Array, given: Array | None = None) -> tuple[Array, Array]:
        """Log-density of points (n, D) in nats, and its estimated error, (n,) each."""
        assert given is not None
        found, error = self.density.log_prob(self.residual(y, given), given)
        return found - np.log(np.diag(self.factor)).sum(), error

    def score(self, y: Array, given: Array | None = None) -> Array:
        """Gradient of the log-density at points (n, D)."""
        assert given is not None
        found = self.density.score(self.residual(y, given), given)
        return solve_triangular(self.factor, found.T, lower=True, trans=1).T

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Arrays that hold it."""
        return {**self.density.to_arrays(), "residual_slope": self.slope, "residual_factor": self.factor}

    @classmethod
    def around(cls, density: PointDensity, arrays: Mapping[str, np.ndarray]) -> PointDensity:
        """The density of points where arrays hold a predictor, else that of the arrays themselves."""
        if "residual_slope" not in arrays:
            return density
        return cls(density, arrays["residual_slope"], arrays["residual_factor"])


def fit_predictor(y: Array, weights: Array, given: Array) -> tuple[Array, Array]:
    """B and L by weighted least squares of points (n, D) by what is given (n, K), both of mean zero."""
    share = np.sqrt(weights / weights.sum())[:, None]
    slope = np.linalg.lstsq(share * given, share * y, rcond=None)[0].T
    left = share * (y - given @ slope.T)
    return slope, np.linalg.cholesky(left.T @ left + _LEAST**2 * np.eye(y.shape[1]))
