"""Which estimator of a density, how large, and for how long."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from undrift.distributions.base import Base
from undrift.distributions.gaussian_process import GaussianProcess, fit_gaussian_process
from undrift.distributions.kernel_density import KernelDensity, fit_kernel_density
from undrift.distributions.mixture import Mixture, fit_mixture
from undrift.distributions.point_flow import PointFlow, fit_point_flow
from undrift.distributions.points import PointDensity
from undrift.distributions.residual import Residual, fit_predictor
from undrift.distributions.spline_flow import SplineFlow, fit_spline_flow
from undrift.distributions.stacked import Stacked, shares_of
from undrift.errors import UsageError
from undrift.train.settings import Progress, Settings
from undrift.verify.likelihood import mean_likelihood

__all__ = ["ESTIMATORS", "Choice", "Fitting", "chosen", "density_from_arrays", "fit_density"]

Array = NDArray[np.float64]
ESTIMATORS = ("flow-matching", "diffusion", "nsf", "kde", "mixture", "gp")
_UNCONDITIONAL = ("kde", "gp")
_FEW, _SHORT = 300, 5.0  # effective points, and seconds, below which a mixture is fitted
_FEW_ROWS, _FEW_NUMBERS = 5_000, 3  # effective points, and numbers of a point, of which a perceptron is narrow
_NARROW, _WIDTH, _LAYERS = 128, 256, 4
_MANY_GAUSSIANS = 48  # of which a perceptron sees sinusoids of each number
_WAVES = {"sinusoids": 3, "layers": 3, "width": 96}  # smaller by as much, so that a log-density takes no longer
_MIXTURE = 60.0  # seconds after which no further number of components is tried
_TRIED = 0.15  # of a budget for a mixture that is fitted before a diffusion
_LEAD = 2.0  # standard errors: of many points a network learns what no number of Gaussians is
_BROAD = 2.0  # its deviation, in units of the points
_LEARNING_RATE, _EMA = 3e-3, 0.1
_PATIENCE, _WORSE = 5, 0.02  # validations of twenty, and the loss, after which rows are learned by heart


@dataclass(frozen=True)
class Choice:
    """An estimator and why it was chosen.

    Attributes:
        estimator: one of ``ESTIMATORS``, or "auto": a mixture, or a mixture and a diffusion stacked.
        width: of the hidden layers, where there are any.
        reason: one sentence.
        lead: of "auto", the standard errors by which a mixture must be likelier than the diffusion to be taken alone.
        layers: hidden ones.
        sinusoids: of each number of a point that a perceptron sees.
    """

    estimator: str
    width: int
    reason: str
    lead: float = 0.0
    layers: int = _LAYERS
    sinusoids: int = 0


def chosen(estimator: str, number: float, size: int, given: int, budget: float | None) -> Choice:
    """What fits so many effective points of so many numbers, given some, and the time that there is.

    Raises:
        UsageError: an estimator that takes nothing that is given is asked for, and something is.
    """
    if given and estimator in _UNCONDITIONAL:
        raise UsageError(
            f"--estimator {estimator} takes no covariates; type --estimator mixture or flow-matching, or leave "
            "--covariates out"
        )
    width = _NARROW if number < _FEW_ROWS or size <= _FEW_NUMBERS else _WIDTH
    facts = f"{number:,.0f} effective points of {size} numbers"
    if estimator != "auto":
        return Choice(estimator, width, f"asked for; {facts}")
    if number < _FEW:
        return Choice("mixture", width, f"{facts} are too few for a network")
    if budget is not None and budget < _SHORT:
        return Choice("mixture", width, f"{facts}: {budget:g} s are too short for a network")
    perceptron = f"a perceptron {_LAYERS} layers deep and {width} wide"
    lead = 0.0 if number < _FEW_ROWS else _LEAD
    enough = "more likely" if not lead else f"likelier by {lead:g} standard errors"
    alone = f"a mixture alone where it makes left-out rows {enough}"
    return Choice("auto", width, f"{facts}: a mixture and {perceptron}, stacked, or {alone}", lead)


@dataclass(frozen=True)
class Fitting:
    """How long a density is fitted, and to what besides its points.

    Attributes:
        budget: seconds of a training, or in which numbers of components are tried.
        steps: of a training, in place of a budget.
        patience: validations without a new best after which a training stops.
        seed: of all that is drawn.
        coupling: of flow matching, see :func:`undrift.distributions.point_flow.fit_point_flow`.
        base: of flow matching, likewise.
        log_density: of each point, up to a constant, (n,), which a Gaussian process learns.
        progress: see :func:`undrift.train.loop.train`.
    """

    budget: float | None = None
    steps: int | None = None
    patience: int = _PATIENCE
    seed: int = 0
    coupling: str = "independent"
    base: Base | None = None
    log_density: Array | None = None
    progress: Progress | None = None

    @property
    def settings(self) -> Settings:
        """Of the training of a network."""
        return Settings(
            budget=self.budget if self.steps is None else None, steps=self.steps, learning_rate=_LEARNING_RATE,
            weight_decay=0.0, ema=_EMA, patience=self.patience, worse=_WORSE, seed=self.seed,
        )  # fmt: skip


def fit_density(
    choice: Choice, y: Array, weights: Array, given: Array | None, left_out: NDArray[np.bool_], fitting: Fitting
) -> tuple[str, PointDensity, dict[str, Any]]:
    """Fit an estimator to weighted points of unit scale.

    Args:
        choice: of the estimator.
        y: points, (n, D).
        weights: of each, (n,).
        given: what is given with each, (n, K), or None.
        left_out: points that only tell how smooth the density is, or when to stop, (n,).
        fitting: how long, and to what besides.

    Returns:
        The estimator, or "stacked", the density, and how it went: of a training with the lines of its `log`.
    """
    if choice.estimator != "auto":
        found, how = _fitted(choice, y, weights, given, left_out, fitting)
        return choice.estimator, found, how
    judges = left_out & (np.cumsum(left_out) % 2 == 0)  # neither of them sees these
    seen, begun = np.where(judges, 0.0, weights), time.perf_counter()
    tried: dict[str, tuple[PointDensity, dict[str, Any]]] = {}
    for name in ("mixture", "diffusion"):
        seconds = fitting.budget
        if seconds is not None:
            seconds = _TRIED * seconds if name == "mixture" else max(seconds - (time.perf_counter() - begun), 1.0)
        one, part = replace(choice, estimator=name), replace(fitting, budget=seconds)
        if name == "diffusion" and given is None and _is_fine(tried["mixture"][0]):
            one = replace(one, **_WAVES)
        tried[name] = _fitted(one, y, seen, given, left_out, part)
    if not weights[judges].any():
        return "diffusion", *tried["diffusion"]
    told, odds = None if given is None else given[judges], weights[judges]
    log_q = {name: _judged(found, y[judges], told) for name, (found, _) in tried.items()}
    scores = {name: mean_likelihood(values, odds).mean for name, values in log_q.items()}
    ahead = mean_likelihood(log_q["mixture"] - log_q["diffusion"], odds)
    facts = {
        "left-out log likelihood": scores,
        "lead of the mixture": {"nats": ahead.mean, "standard error": ahead.error},
    }
    broken = bool(np.isnan(log_q["diffusion"]).any())
    if broken or ahead.mean > choice.lead * (ahead.error or 0.0):
        found, how = tried["mixture"]
        return "mixture", found, how | facts
    shares = dict(zip(tried, shares_of(np.stack(list(log_q.values()), 1), odds).tolist(), strict=True))
    how = tried["mixture"][1] | tried["diffusion"][1]
    return "stacked", Stacked({n: found for n, (found, _) in tried.items()}, shares), how | facts | {"shares": shares}


def _is_fine(mixture: PointDensity) -> bool:
    """Whether a law of few numbers has edges, or so much structure, that many Gaussians are needed for it."""
    assert isinstance(mixture, Mixture)
    return mixture.joint.dimensions <= _FEW_NUMBERS and len(mixture.joint.weights) >= _MANY_GAUSSIANS


def _judged(density: PointDensity, y: Array, given: Array | None) -> Array:
    """Log-likelihoods with a broad Gaussian of a hundredth beside, for one outlier must not decide."""
    broad = -0.5 * (y**2).sum(1) / _BROAD**2 - y.shape[1] * (np.log(_BROAD) + 0.5 * np.log(2 * np.pi))
    found = density.log_prob(y, given)[0]
    with np.errstate(invalid="ignore"):  # nan is told of
        return np.logaddexp(np.log(0.99) + found, np.log(0.01) + broad)


def _fitted(
    choice: Choice, y: Array, weights: Array, given: Array | None, left_out: NDArray[np.bool_], fitting: Fitting
) -> tuple[PointDensity, dict[str, Any]]:
    points = (y, weights, given)
    rest: dict[str, Any] = {"left_out": left_out, "seed": fitting.seed}
    if choice.estimator == "kde":
        found = fit_kernel_density(*points, **rest)
        return found, {"bandwidth": found.bandwidth}
    if choice.estimator == "mixture":
        rest |= {} if fitting.budget is None else {"seconds": min(fitting.budget, _MIXTURE)}
        mixture = fit_mixture(*points, **rest)
        return mixture, {"components": len(mixture.joint.weights)}
    if choice.estimator == "gp":
        process = fit_gaussian_process(*points, log_density=fitting.log_density, **rest)
        return process, {"points": len(process.points), "log normaliser error": process.normaliser_error}
    if given is None or fitting.base is not None:  # the rows of a base are carried as they are
        return _network(choice, y, weights, given, left_out, fitting)
    slope, factor = fit_predictor(y, weights, given)
    left = solve_triangular(factor, (y - given @ slope.T).T, lower=True).T
    net, how = _network(choice, left, weights, given, left_out, fitting)
    return Residual(net, slope, factor), how


def _network(
    choice: Choice, y: Array, weights: Array, given: Array | None, left_out: NDArray[np.bool_], fitting: Fitting
) -> tuple[PointDensity, dict[str, Any]]:
    rest = {"left_out": left_out, "settings": fitting.settings, "progress": fitting.progress}
    if choice.estimator == "nsf":
        spline, trained = fit_spline_flow(y, weights, given, **rest)
        return spline, trained.to_dict() | {"log": trained.log}
    flow, trained = fit_point_flow(
        choice.estimator, y, weights, given, width=choice.width, layers=choice.layers, sinusoids=choice.sinusoids,
        coupling=fitting.coupling, base=fitting.base, **rest,
    )  # fmt: skip
    waves = {name: getattr(choice, name) for name in _WAVES} if choice.sinusoids else {}
    return flow, trained.to_dict() | {"log": trained.log} | waves


_KINDS: Mapping[str, Callable[[Mapping[str, np.ndarray]], PointDensity]] = {
    "kde": KernelDensity.from_arrays,
    "mixture": Mixture.from_arrays,
    "gp": GaussianProcess.from_arrays,
    "nsf": SplineFlow.from_arrays,
    "flow-matching": PointFlow.from_arrays,
    "diffusion": PointFlow.from_arrays,
}


def density_from_arrays(estimator: str, arrays: Mapping[str, np.ndarray]) -> PointDensity:
    """The density that :meth:`PointDensity.to_arrays` made arrays of."""
    if estimator == "stacked":
        return Stacked.from_arrays(arrays, density_from_arrays)
    found = _KINDS[estimator](arrays)
    if isinstance(found, PointFlow) and found.base is not None:
        found = replace(found, base=found.base.with_law(arrays, density_from_arrays))
    return Residual.around(found, arrays)
