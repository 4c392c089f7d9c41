"""A Gaussian process through log-densities that come with the samples, by scikit-learn.

The log-density of the points, known up to a constant, is a quadratic, that of a standard normal, plus a Gaussian
process with a squared-exponential kernel (Rasmussen and Williams 2006, algorithm 2.1, http://gaussianprocess.org/gpml),
so that it falls off where no point is. It is normalised by importance sampling with a mixture of Gaussians.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self, cast

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.special import log_ndtr, logsumexp

from undrift.distributions.mixture import fit_mixture
from undrift.errors import DataError, UsageError, needs_extra
from undrift.infer.gaussian_mixture import GaussianMixture

__all__ = ["GaussianProcess", "fit_gaussian_process"]

Array = NDArray[np.float64]
_POINTS, _LEARNED = 1000, 300  # that are interpolated, and of which the kernel is learned, at most
_STARTS = ((10.0, 3.0), (5e3, 10.0))  # variance and length of the kernel, from which the likeliest is sought
_NOISE = (1e-8, 1.0)  # in which the variance of the log-densities' noise is sought, in units of theirs
_DEPTH, _DEEPER = 20.0, 2.0  # nats below the highest point, and more for each number, where nothing is learned
_DRAWS, _DOUBTED = 20_000, 2000  # of the proposal, and those of them whose deviation is found
_WIDE, _SHARE = 2.0, 0.1  # of the proposal's tails
_REFINED, _JUDGE, _SECONDS = 5000, 5, 10.0  # draws of a first proposal that are fitted anew, one in so many to judge
_UNMIXED, _STEPS = 1e-3, (4, 100)  # what is left of a draw's start, and how many steps that may take
_ROWS = 1000  # at once, where all points are met
_FAR = 1e8  # length scales beyond which every point is as far


@dataclass(frozen=True)
class GaussianProcess:
    """The density exp(f(y)) / Z with f(y) = centre - |y|^2 / 2 + scale * (mean of the process at y).

    Attributes:
        points: that are interpolated, (m, D).
        alpha: (m,) K^-1 r, K their covariance with noise and r what the quadratic leaves, over scale.
        lower: Cholesky factor of K, (m, m).
        lengths: of the kernel variance * exp(-sum_d (y_d - y'_d)^2 / (2 lengths_d^2)), (D,).
        variance: of the kernel.
        noise: variance of what the log-densities have beside the kernel, in units of scale^2.
        centre: of the quadratic, in nats.
        scale: of what the quadratic leaves, in nats.
        inflation: by which the process's standard deviation is multiplied, as points that were left out say.
        proposal: a mixture with wide tails.
        log_normaliser: log Z.
        normaliser_error: its error: that of importance sampling, and the process's own deviation in the mean.
        steps: of a draw.
    """

    points: Array
    alpha: Array
    lower: Array
    lengths: Array
    variance: float
    noise: float
    centre: float
    scale: float
    inflation: float
    proposal: GaussianMixture
    log_normaliser: float = 0.0
    normaliser_error: float = 0.0
    steps: int = _STEPS[0]

    @property
    def numbers(self) -> int:
        """Standard normal numbers of which one draw is made: D + 2 for each step."""
        return self.steps * (self.points.shape[1] + 2)

    def draw(self, z: Array, given: Array | None = None) -> Array:
        """Points (n, D) of standard normal numbers (n, steps (D + 2)), each of its own row alone.

        Independence Metropolis from a draw of the proposal g: its law is within (1 - 1 / M)^(steps - 1) of the density
        p in total variation, M the largest p / g (Mengersen and Tweedie 1996, doi:10.1214/aos/1033066201, theorem 2.1).
        """
        size = self.points.shape[1]
        moves = z.reshape(len(z), self.steps, size + 2)
        tried = self.proposal.draw(moves[..., :-1].reshape(-1, size + 1))
        log_w = (self._value(tried) - self.proposal.log_prob(tried)).reshape(moves.shape[:2])
        log_u, rows = log_ndtr(moves[..., -1]), np.arange(len(z))
        at = np.zeros(len(z), np.intp)
        for step in range(1, self.steps):
            at = np.where(log_u[:, step] < log_w[:, step] - log_w[rows, at], step, at)
        return tried.reshape(len(z), self.steps, size)[rows, at]

    def log_prob(self, y: Array, given: Array | None = None) -> tuple[Array, Array]:
        """Log-density of points (n, D) in nats, and its error: the process's deviation there, and the normaliser's."""
        return self._value(y) - self.log_normaliser, np.hypot(self.deviation(y), self.normaliser_error)

    def score(self, y: Array, given: Array | None = None) -> Array:
        """Gradient of the log-density at points (n, D): -y + scale sum_i alpha_i k(y, y_i) (y_i - y) / lengths^2."""
        pulled = []
        for part in _parts(y):
            pull = self._kernel(part) * self.alpha
            pulled.append((pull @ self.points - pull.sum(1, keepdims=True) * part) / self.lengths**2)
        return self.scale * np.concatenate(pulled) - y

    def deviation(self, y: Array) -> Array:
        """Standard deviation (n,) of the log-density at points (n, D), in nats, before it is normalised."""
        found = []
        for part in _parts(y):
            known = solve_triangular(self.lower, self._kernel(part).T, lower=True)
            found.append(np.sqrt(np.maximum(self.variance - (known**2).sum(0), 0.0) + self.noise))
        return self.inflation * self.scale * np.concatenate(found)

    def normalised(self, rng: np.random.Generator) -> Self:
        """With its normaliser and the number of steps of a draw, from draws of the proposal."""
        drawn = self.proposal.draw(rng.standard_normal((_DRAWS, self.points.shape[1] + 1)))
        log_w = self._value(drawn) - self.proposal.log_prob(drawn)
        total = float(np.asarray(logsumexp(log_w)))
        w = np.exp(log_w - total + math.log(_DRAWS))  # of mean 1
        chance = float(w.std(ddof=1)) / math.sqrt(_DRAWS)
        doubt = float(np.average(self.deviation(drawn[:_DOUBTED]), weights=w[:_DOUBTED]))
        steps = 1 + math.ceil(math.log(_UNMIXED) / math.log1p(-1 / max(float(w.max()), 1.0 + 1e-9)))
        return replace(
            self, log_normaliser=total - math.log(_DRAWS), normaliser_error=math.hypot(chance, doubt),
            steps=min(max(steps, _STEPS[0]), _STEPS[1]),
        )  # fmt: skip

    def _value(self, y: Array) -> Array:
        """f(y), (n,)."""
        process = np.concatenate([self._kernel(part) @ self.alpha for part in _parts(y)])
        with np.errstate(over="ignore"):
            return self.centre - (y**2).sum(1) / 2 + self.scale * process

    def _kernel(self, y: Array) -> Array:
        """Covariances (n, m) of points with those that are interpolated."""
        mine, theirs = np.clip(y / self.lengths, -_FAR, _FAR), self.points / self.lengths
        square = (mine**2).sum(1)[:, None] + (theirs**2).sum(1) - 2 * mine @ theirs.T
        return self.variance * np.exp(-np.maximum(square, 0) / 2)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Arrays that hold it."""
        own = {name: np.asarray(value) for name, value in vars(self).items() if name != "proposal"}
        return own | {f"proposal_{name}": value for name, value in self.proposal.to_arrays().items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """Inverse of :meth:`to_arrays`."""
        own: dict[str, Any] = {k: v if v.ndim else v.item() for k, v in arrays.items() if not k.startswith("proposal_")}
        mixture = {k.removeprefix("proposal_"): v for k, v in arrays.items() if k.startswith("proposal_")}
        return cls(**own, proposal=GaussianMixture.from_arrays(mixture))


def fit_gaussian_process(
    y: Array,
    weights: Array,
    given: Array | None,
    *,
    log_density: Array | None,
    left_out: NDArray[np.bool_],
    seed: int = 0,
) -> GaussianProcess:
    """Interpolate the log-densities of at most 1,000 of the points: half of them far apart, the others by their weight.

    Weights say which points these are and where the proposal is; the log-densities are taken to be exact, so that one
    that is learned counts whatever its weight.

    Args:
        y: points of unit scale, (n, D).
        weights: of each, (n,).
        given: nothing may be.
        log_density: of each, up to a constant, (n,); -inf where it is 0: such points, and those that are far less
            likely than the likeliest, are left alone.
        left_out: points that tell how far the process is off, (n,).
        seed: of what is drawn.

    Raises:
        UsageError: something is given, or there are no log-densities.
        DataError: too few points are left.
    """
    if given is not None:
        raise UsageError("a Gaussian process knows of nothing that is given; type --estimator mixture or flow-matching")
    if log_density is None:
        raise UsageError("a Gaussian process learns log-densities of the samples; type --estimator mixture or kde")
    size = y.shape[1]
    top = float(np.max(log_density[np.isfinite(log_density)], initial=-np.inf))
    near = np.isfinite(log_density) & (log_density > top - _DEPTH - _DEEPER * size)
    keep = np.flatnonzero(near & ~left_out)
    keep = keep[np.sort(np.unique(y[keep], axis=0, return_index=True)[1])]
    if len(keep) < size + 2:
        raise DataError(
            f"{len(keep)} different samples lie within {_DEPTH + _DEEPER * size:g} nats of the likeliest, expected at "
            f"least {size + 2} to learn log-densities of; type --estimator mixture"
        )
    rng = np.random.Generator(np.random.Philox(key=[seed, 1]))
    keep = keep[_spread(y[keep], weights[keep], rng)]
    found = _interpolated(y[keep], log_density[keep], rng)
    found = replace(found, proposal=_proposal(y, weights, left_out, seed))
    told = rng.permutation(np.flatnonzero(near & left_out & (weights > 0)))[:_DOUBTED]
    if len(told):
        off = (log_density[told] - found._value(y[told])) / found.deviation(y[told])
        found = replace(found, inflation=max(1.0, float(np.sqrt(np.mean(off**2)))))
    drawn = found.proposal.draw(rng.standard_normal((_REFINED, size + 1)))
    log_w = found._value(drawn) - found.proposal.log_prob(drawn)
    judge = np.arange(_REFINED) % _JUDGE == 0
    refined = replace(found, proposal=_proposal(drawn, np.exp(log_w - log_w.max()), judge, seed))
    return refined.normalised(rng)


def _proposal(y: Array, weights: Array, left_out: NDArray[np.bool_], seed: int) -> GaussianMixture:
    """A mixture of Gaussians that is fitted to points, with wide tails."""
    mixture = fit_mixture(y, weights, None, left_out=left_out, seed=seed, seconds=_SECONDS).joint
    return GaussianMixture.together([mixture, mixture.widened(_WIDE)], np.array([1 - _SHARE, _SHARE]))


def _spread(y: Array, weights: Array, rng: np.random.Generator) -> NDArray[np.intp]:
    """Rows of at most as many points as are interpolated: first each the farthest from all before, then by weight."""
    if len(y) <= _POINTS:
        return np.arange(len(y))
    chosen = [int(np.argmax(weights))]
    nearest = ((y - y[chosen[0]]) ** 2).sum(1)
    while len(chosen) < _POINTS // 2:
        chosen.append(int(np.argmax(nearest)))
        nearest = np.minimum(nearest, ((y - y[chosen[-1]]) ** 2).sum(1))
    with np.errstate(divide="ignore"):
        order = np.argsort(-(np.log(weights) + rng.gumbel(size=len(y))))  # drawn by weight without replacement
    others = order[~np.isin(order, chosen)][: _POINTS - len(chosen)]
    return np.concatenate([chosen, others])


def _interpolated(y: Array, log_density: Array, rng: np.random.Generator) -> GaussianProcess:
    """The process through points, its kernel the likeliest for some of them."""
    with needs_extra("bayes", "a Gaussian process"):
        import sklearn.gaussian_process as library
    regressor, kernels = cast(Any, library.GaussianProcessRegressor), cast(Any, library.kernels)
    left = log_density + (y**2).sum(1) / 2
    centre, scale = float(left.mean()), float(max(left.std(), 1e-6))
    left = (left - centre) / scale
    size = y.shape[1]
    signals = [
        kernels.ConstantKernel(variance, (1e-2, 1e4)) * kernels.RBF(np.full(size, length), (0.05, 100.0))
        for variance, length in _STARTS
    ]
    some = rng.permutation(len(y))[:_LEARNED]
    tried = [_quietly(regressor(one + kernels.WhiteKernel(1e-5, _NOISE)), y[some], left[some]) for one in signals]
    learned = max(tried, key=lambda one: one.log_marginal_likelihood_value_)
    whole = _quietly(regressor(learned.kernel_, optimizer=None), y, left)
    signal, white = whole.kernel_.k1, whole.kernel_.k2
    return GaussianProcess(
        y, whole.alpha_, whole.L_, np.broadcast_to(signal.k2.length_scale, (size,)).astype(np.float64),
        float(signal.k1.constant_value), float(white.noise_level), centre, scale, 1.0, GaussianMixture.standard(size),
    )  # fmt: skip


def _quietly(process: Any, y: Array, left: Array) -> Any:
    """Fitted; that a length scale lies on its bound, as of a Gaussian that leaves nothing, is no news."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return process.fit(y, left)


def _parts(y: Array) -> list[Array]:
    return [y[start : start + _ROWS] for start in range(0, max(len(y), 1), _ROWS)]
