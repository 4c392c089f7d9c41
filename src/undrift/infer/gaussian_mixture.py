"""Mixtures of full-covariance Gaussians: density, draws, conditionals, and their fit to weighted points.

The density of y in D dimensions is sum_k w_k N(y; m_k, C_k) with C_k = L_k L_k^T. The fit is expectation-maximisation
(Dempster, Laird and Rubin 1977; weighted as in Cappe et al. 2008, arXiv:0710.4242, eq. 13-15), begun from k-means++
centres (Arthur and Vassilvitskii 2007). All is float64.
"""

from __future__ import annotations

__all__ = ["GaussianMixture", "climb", "effective_size", "fit_gaussians"]

import math
import time
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.linalg import solve_triangular
from scipy.special import ndtr

RIDGE = 1e-8  # of a direction's variance: what rounding needs, nothing that a narrow mode would feel
GAIN = 0.004  # nats a point: less is not worth more components
_FEWEST = 5  # iterations, however little time there is
COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)


@dataclass(frozen=True)
class GaussianMixture:
    """A mixture of K Gaussians in D dimensions.

    Attributes:
        weights: shares (K,), which sum to one.
        means: (K, D).
        factors: lower Cholesky factors of the covariances (K, D, D).
    """

    weights: np.ndarray
    means: np.ndarray
    factors: np.ndarray

    @classmethod
    def standard(cls, dimensions: int) -> GaussianMixture:
        """The standard normal."""
        return cls(np.ones(1), np.zeros((1, dimensions)), np.eye(dimensions)[None])

    @classmethod
    def together(cls, mixtures: list[GaussianMixture], shares: np.ndarray) -> GaussianMixture:
        """The mixture of mixtures with these shares."""
        return cls(
            np.concatenate([share * mixture.weights for share, mixture in zip(shares, mixtures, strict=True)]),
            np.concatenate([mixture.means for mixture in mixtures]),
            np.concatenate([mixture.factors for mixture in mixtures]),
        )

    def pruned(self, least: float) -> GaussianMixture:
        """Without the components whose share is below `least`."""
        kept = self.weights >= least
        return GaussianMixture(self.weights[kept] / self.weights[kept].sum(), self.means[kept], self.factors[kept])

    def widened(self, factor: float) -> GaussianMixture:
        """The same components with all standard deviations times a factor."""
        return GaussianMixture(self.weights, self.means, factor * self.factors)

    @property
    def dimensions(self) -> int:
        """D."""
        return self.means.shape[1]

    def terms(self, y: np.ndarray) -> np.ndarray:
        """Terms log w_k + log N(y; m_k, C_k) of points (n, D), as (n, K)."""
        found = np.empty((len(y), len(self.weights)))
        inverses, peaks = self._inverses
        for k, mean in enumerate(self.means):
            away = (y - mean) @ inverses[k].T
            found[:, k] = peaks[k] - 0.5 * np.einsum("nd,nd->n", away, away)
        return found

    @cached_property
    def _inverses(self) -> tuple[np.ndarray, np.ndarray]:
        """Inverse factors (K, D, D), and each term at its mean (K,)."""
        with np.errstate(divide="ignore"):
            shares = np.log(self.weights)
        scales = np.log(np.diagonal(self.factors, axis1=1, axis2=2)).sum(axis=1)
        return np.linalg.inv(self.factors), shares - scales - 0.5 * self.dimensions * math.log(2 * math.pi)

    def log_prob(self, y: np.ndarray) -> np.ndarray:
        """The log-density of points (n, D) in nats, (n,)."""
        return _total(self.terms(y))[0]

    def score(self, y: np.ndarray) -> np.ndarray:
        """The gradient of the log-density at points (n, D), (n, D)."""
        share = _total(self.terms(y))[1]
        found = np.zeros_like(y)
        for k, (mean, inverse) in enumerate(zip(self.means, self._inverses[0], strict=True)):
            found -= share[:, k, None] * ((y - mean) @ inverse.T @ inverse)
        return found

    def draw(self, z: np.ndarray) -> np.ndarray:
        """Points (n, D) from standard normals (n, D + 1): the first picks the component, the others place the point."""
        edges = np.cumsum(self.weights)
        chosen = np.searchsorted(edges[:-1] / edges[-1], ndtr(z[:, 0]), side="right")
        found = np.empty((len(z), self.dimensions))
        for k in np.unique(chosen):
            rows = chosen == k
            found[rows] = self.means[k] + z[rows, 1:] @ self.factors[k].T
        return found

    def marginal(self, first: int) -> GaussianMixture:
        """The law of the first of the dimensions."""
        return GaussianMixture(self.weights, self.means[:, :first], self.factors[:, :first, :first])

    def draw_given(self, z: np.ndarray, given: np.ndarray) -> np.ndarray:
        """The last D - K dimensions where the first K are given (n, K), from standard normals (n, D - K + 1).

        A component's conditional mean is m_y + L_yx L_xx^-1 (x - m_x) and its factor L_yy; its share is in proportion
        to w_k N(x; m_x, C_xx).
        """
        first = given.shape[1]
        edges = np.cumsum(_total(self.marginal(first).terms(given))[1], axis=1)
        chosen = (edges[:, :-1] < ndtr(z[:, :1]) * edges[:, -1:]).sum(axis=1)
        found = np.empty((len(z), self.dimensions - first))
        for k in np.unique(chosen):
            rows, factor = chosen == k, self.factors[k]
            whitened = solve_triangular(factor[:first, :first], (given[rows] - self.means[k, :first]).T, lower=True)
            found[rows] = self.means[k, first:] + whitened.T @ factor[first:, :first].T
            found[rows] += z[rows, 1:] @ factor[first:, first:].T
        return found

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The arrays a file keeps."""
        return {"weights": self.weights, "means": self.means, "factors": self.factors}

    @classmethod
    def from_arrays(cls, arrays: Any) -> GaussianMixture:
        """The mixture whose arrays these are."""
        return cls(*(np.asarray(arrays[name], dtype=np.float64) for name in ("weights", "means", "factors")))


def effective_size(weights: np.ndarray) -> float:
    """Kish's number of equally weighted points that say as much: (sum w)^2 / sum w^2."""
    return float(weights.sum() ** 2 / np.square(weights).sum())


def fit_gaussians(
    y: np.ndarray,
    weights: np.ndarray,
    components: int,
    *,
    rng: np.random.Generator | None = None,
    start: GaussianMixture | None = None,
    steps: int = 100,
    tolerance: float = 1e-4,
    seconds: float = math.inf,
    history: list[float] | None = None,
) -> GaussianMixture:
    """Fit by weighted expectation-maximisation, which never lowers the weighted log-likelihood.

    Args:
        y: points (n, D).
        weights: (n,) >= 0; a weight of two says the same as the row twice.
        components: how many Gaussians; fewer come back where the points have no room for them.
        rng: for the k-means++ centres; needed without a start.
        start: the mixture to begin from.
        steps: the most iterations.
        tolerance: stop where an iteration gains less, in nats a point.
        seconds: no further iteration begins after this time, but for the first five.
        history: gets the mean log-likelihood before each iteration.
    """
    share = weights / weights.sum()
    centre = share @ y
    scale = np.sqrt(np.maximum(share @ np.square(y - centre), 1e-300))
    features = _features((y - centre) / scale)
    if start is None:
        assert rng is not None
        found = _maximise(features, share, _nearest(y, share, components, rng))[0]
    else:
        found = GaussianMixture(start.weights, (start.means - centre) / scale, start.factors / scale[:, None])
    last, began = -math.inf, time.monotonic()
    for step in range(steps):
        if step >= _FEWEST and time.monotonic() - began > seconds:
            break
        better, mean = _maximise(features, share, found)
        if history is not None:
            history.append(mean - float(np.log(scale).sum()))
        if mean - last < tolerance:
            break
        found, last = better, mean
    return GaussianMixture(found.weights, found.means * scale + centre, found.factors * scale[:, None])


def climb(
    y: np.ndarray,
    weights: np.ndarray,
    left_out: tuple[np.ndarray, np.ndarray],
    *,
    rng: np.random.Generator,
    begin: int = 1,
    most: int = 64,
    steps: int = 60,
    gain: float = GAIN,
    polish: tuple[int, float] = (5, 1e-4),
    seconds: float = math.inf,
) -> GaussianMixture:
    """The mixture whose number of components the left-out log-likelihood chooses, of 1, 2, 3, 4, 6, 8, 12, 16, ...

    From `begin` it goes up or down by one or two of these while that gains; the chosen mixture goes on with all points.

    Args:
        y: points (n, D).
        weights: (n,).
        left_out: points and weights that judge.
        rng: for the starts.
        begin: the first number tried.
        most: the most components.
        steps: the most iterations of each fit.
        gain: nats a point of those left out for which more components are taken.
        polish: the most iterations of the chosen mixture, with all points, and their tolerance.
        seconds: no other number is tried that would end after this time if it took as long a component as the last, and
            what is fitted goes no further, but for five iterations.
    """
    began, pace = time.monotonic(), 0.0
    judged: dict[int, tuple[float, GaussianMixture]] = {}
    broad = fit_gaussians(y, weights, 1, rng=rng).widened(2.0)
    everywhere = math.log(0.01) + broad.log_prob(left_out[0])  # one outlier must not decide
    room = max(1, int(min(most, effective_size(weights) / (y.shape[1] + 2))))

    def score(rung: int) -> float:
        nonlocal pace
        if not (0 <= rung < len(COUNTS) and COUNTS[rung] <= room):
            return -math.inf
        if rung not in judged:
            begun = time.monotonic()
            left = seconds - (begun - began)
            if judged and pace * COUNTS[rung] > left:
                return -math.inf
            found = fit_gaussians(y, weights, COUNTS[rung], rng=rng, steps=steps, seconds=left)
            pace = (time.monotonic() - begun) / COUNTS[rung]
            log_q = np.logaddexp(math.log(0.99) + found.log_prob(left_out[0]), everywhere)
            judged[rung] = (float(left_out[1] @ log_q / left_out[1].sum()), found)
        return judged[rung][0]

    rung = int(np.searchsorted(COUNTS, min(max(begin, 1), room), side="right")) - 1
    while score(more := max((rung + 1, rung + 2), key=score)) > score(rung) + gain:
        rung = more
    while score(fewer := max((rung - 1, rung - 2), key=score)) > score(rung) - gain:
        rung = fewer
    everything = np.concatenate([y, left_out[0]]), np.concatenate([weights, left_out[1]])
    left = seconds - (time.monotonic() - began)
    rest = {"steps": polish[0], "tolerance": polish[1], "seconds": left}
    return fit_gaussians(*everything, COUNTS[rung], start=judged[rung][1], **rest)


def _total(terms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The log of the sum of exponentials over components (n,), and each one's share (n, K)."""
    top = terms.max(axis=1, keepdims=True)
    share = np.exp(terms - np.where(np.isfinite(top), top, 0.0))
    total = share.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (np.log(total) + top)[:, 0], share / total


def _features(x: np.ndarray) -> np.ndarray:
    """1, x and the upper triangle of x x^T of points (n, D): a log-density is linear in them, and so are moments."""
    first, second = np.triu_indices(x.shape[1])
    return np.hstack([np.ones((len(x), 1)), x, x[:, first] * x[:, second]])


def _maximise(
    features: np.ndarray, share: np.ndarray, now: GaussianMixture | np.ndarray
) -> tuple[GaussianMixture, float]:
    """One iteration for points of unit scale: the next mixture, and the mean log-likelihood of the present one.

    `now` may be which component each point belongs to (n, K). Components of fewer points than a covariance needs have
    that of all the others together.
    """
    belongs, mean = now, 0.0
    if isinstance(now, GaussianMixture):
        total, belongs = _total(features @ _coefficients(now))
        mean = float(share @ total)
    held = belongs * share[:, None]  # type: ignore[operator]
    moments, squares = held.T @ features, np.square(held).sum(axis=0)
    dimensions = int(math.sqrt(8 * features.shape[1] + 1) - 3) // 2
    upper = np.triu_indices(dimensions)
    kept = moments[:, 0] > 1e-12
    mass, moments, squares = moments[kept, 0], moments[kept, 1:], squares[kept]
    moments = moments / mass[:, None]
    means = moments[:, :dimensions]
    covariances = np.empty((len(mass), dimensions, dimensions))
    covariances[:, upper[0], upper[1]] = covariances[:, upper[1], upper[0]] = moments[:, dimensions:]
    covariances -= means[:, :, None] * means[:, None, :]
    points = mass**2 / np.maximum(squares, 1e-300)
    full = points > min(dimensions + 1, 0.99 * points.max())
    covariances[~full] = np.tensordot(mass[full] / mass[full].sum(), covariances[full], 1)
    covariances[:, np.arange(dimensions), np.arange(dimensions)] += RIDGE
    return GaussianMixture(mass / mass.sum(), means, np.linalg.cholesky(covariances)), mean


def _coefficients(mixture: GaussianMixture) -> np.ndarray:
    """Terms log w_k + log N(x; m_k, C_k) as coefficients of the features, (features, K)."""
    upper = np.triu_indices(mixture.dimensions)
    inverse, peaks = mixture._inverses
    precision = inverse.transpose(0, 2, 1) @ inverse
    pulled = np.einsum("kij,kj->ki", precision, mixture.means)
    constant = peaks - 0.5 * np.einsum("ki,ki->k", pulled, mixture.means)
    doubled = np.where(upper[0] == upper[1], -0.5, -1.0) * precision[:, upper[0], upper[1]]
    return np.hstack([constant[:, None], pulled, doubled]).T


def _nearest(y: np.ndarray, share: np.ndarray, components: int, rng: np.random.Generator) -> np.ndarray:
    """Which of the k-means++ centres is nearest, as (n, K) of zeros and ones; a few steps of Lloyd's follow."""
    centres = y[[rng.choice(len(y), p=share)]]
    nearest = np.square(y - centres[0]).sum(axis=1)
    for _ in range(components - 1):
        chance = share * nearest
        if chance.sum() == 0:
            break
        tried = rng.choice(len(y), size=4, p=chance / chance.sum())
        after = np.minimum(nearest, _squared(y, y[tried]).T)
        best = int(np.argmin(after @ share))
        centres, nearest = np.vstack([centres, y[tried[best]]]), after[best]
    for _ in range(5):
        belongs = np.eye(len(centres))[np.argmin(_squared(y, centres), axis=1)]
        mass = belongs.T @ share
        centres = np.where(
            mass[:, None] > 0, belongs.T @ (share[:, None] * y) / np.maximum(mass, 1e-300)[:, None], centres
        )
    return np.eye(len(centres))[np.argmin(_squared(y, centres), axis=1)]


def _squared(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Squared distances (n, K)."""
    found = np.square(points).sum(axis=1)[:, None] - 2 * points @ centres.T + np.square(centres).sum(axis=1)
    return np.maximum(found, 0.0)
