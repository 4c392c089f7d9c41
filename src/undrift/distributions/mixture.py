"""A mixture of Gaussians as an estimator: p(y), or p(y | given) by the conditional of the joint mixture.

With x given, the joint sum_k w_k N((x, y); m_k, C_k) has the conditional of weights in proportion to
w_k N(x; m_x, C_xx), and log p(y | x) = log p(x, y) - log p(x). Both are exact, so that the error of `log_prob` is 0.
"""

from __future__ import annotations

__all__ = ["Mixture", "fit_mixture"]

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from undrift.infer.gaussian_mixture import GaussianMixture, climb, effective_size

_STEPS = 200
_MANY = 10_000  # points; of fewer, finer fits follow their chance
_FINE = {"gain": 1e-3, "polish": (_STEPS, 1e-5)}  # nats a point: a curve is of many components that gain little each


@dataclass(frozen=True)
class Mixture:
    """A fitted mixture of the joint law of what is given (K columns) and y (D columns).

    Attributes:
        joint: of (given, y).
        covariates: K, zero where nothing is given.
    """

    joint: GaussianMixture
    covariates: int = 0

    @property
    def numbers(self) -> int:
        """Standard normals that one draw takes: D + 1."""
        return self.joint.dimensions - self.covariates + 1

    def draw(self, z: np.ndarray, given: np.ndarray | None = None) -> np.ndarray:
        """Draws (n, D) from standard normals (n, D + 1); row i depends on row i alone."""
        if not self.covariates:
            return self.joint.draw(z)
        assert given is not None
        return self.joint.draw_given(z, given)

    def log_prob(self, y: np.ndarray, given: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The log-density (n,) in nats in y, and its error, which is zero."""
        value = self.joint.log_prob(self._joined(y, given))
        if self.covariates:
            value = value - self.joint.marginal(self.covariates).log_prob(np.asarray(given))
        return value, np.zeros_like(value)

    def score(self, y: np.ndarray, given: np.ndarray | None = None) -> np.ndarray:
        """The gradient (n, D) of the log-density with respect to y."""
        return self.joint.score(self._joined(y, given))[:, self.covariates :]

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The arrays a file keeps."""
        return self.joint.to_arrays() | {"covariates": np.array(self.covariates)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """The mixture whose arrays these are."""
        return cls(GaussianMixture.from_arrays(arrays), int(arrays["covariates"]))

    def _joined(self, y: np.ndarray, given: np.ndarray | None) -> np.ndarray:
        return np.hstack([given, y]) if self.covariates and given is not None else y


def fit_mixture(
    y: np.ndarray,
    weights: np.ndarray,
    given: np.ndarray | None,
    *,
    left_out: np.ndarray,
    seed: int = 0,
    seconds: float = 60.0,
) -> Mixture:
    """Fit by weighted expectation-maximisation; the left-out log-likelihood of (given, y) chooses the components.

    Args:
        y: points (n, D).
        weights: (n,) >= 0.
        given: (n, K), or None.
        left_out: rows that judge, (n,) of bool; where none has weight, all judge.
        seed: of the starts.
        seconds: in which numbers of components are tried.
    """
    joined = y if given is None or not given.shape[1] else np.hstack([given, y])
    keep, judge = (weights > 0) & ~left_out, (weights > 0) & left_out
    if not judge.any():
        judge = keep
    rng = np.random.Generator(np.random.Philox(key=[seed, 0]))
    judges = joined[judge], weights[judge]
    fine = _FINE if effective_size(weights[keep]) >= _MANY else {}
    found = climb(
        joined[keep], weights[keep], judges, rng=rng, begin=4, most=128, steps=_STEPS, seconds=seconds, **fine
    )
    return Mixture(found, 0 if given is None else given.shape[1])
