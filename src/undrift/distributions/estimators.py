"""Which estimator of a density, how large, and for how long."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from undrift.distributions.gaussian_process import GaussianProcess, fit_gaussian_process
from undrift.distributions.kernel_density import KernelDensity, fit_kernel_density
from undrift.distributions.mixture import Mixture, fit_mixture
from undrift.distributions.point_flow import PointFlow, fit_point_flow
from undrift.distributions.points import PointDensity
from undrift.distributions.spline_flow import SplineFlow, fit_spline_flow
from undrift.train.settings import Progress, Settings

__all__ = ["ESTIMATORS", "Choice", "chosen", "density_from_arrays", "fit_density"]

Array = NDArray[np.float64]
ESTIMATORS = ("flow-matching", "diffusion", "nsf", "kde", "mixture", "gp")
_FEW = 300  # effective points below which a mixture is fitted
_FEW_ROWS, _FEW_NUMBERS = 5_000, 3  # effective points, and numbers of a point, of which a perceptron is narrow
_NARROW, _WIDTH, _LAYERS = 128, 256, 4
_MIXTURE = 60.0  # seconds after which no further number of components is tried
_LEARNING_RATE, _EMA = 3e-3, 0.1


@dataclass(frozen=True)
class Choice:
    """An estimator and why it was chosen.

    Attributes:
        estimator: one of ``ESTIMATORS``.
        width: of the hidden layers, where there are any.
        reason: one sentence.
    """

    estimator: str
    width: int
    reason: str


def chosen(estimator: str, number: float, size: int, given: int, budget: float | None) -> Choice:
    """What fits so many effective points of so many numbers, and the time that there is."""
    width = _NARROW if number < _FEW_ROWS or size <= _FEW_NUMBERS else _WIDTH
    facts = f"{number:,.0f} effective points of {size} numbers"
    if estimator != "auto":
        return Choice(estimator, width, f"asked for; {facts}")
    if number < _FEW:
        return Choice("mixture", width, f"{facts} are too few for a network")
    return Choice("diffusion", width, f"{facts}: a perceptron {_LAYERS} layers deep and {width} wide")


def fit_density(
    choice: Choice,
    y: Array,
    weights: Array,
    given: Array | None,
    *,
    left_out: NDArray[np.bool_],
    budget: float | None,
    steps: int | None,
    patience: int | None,
    seed: int,
    log_density: Array | None = None,
    progress: Progress | None = None,
) -> tuple[PointDensity, dict[str, Any]]:
    """Fit an estimator to weighted points of unit scale.

    Args:
        choice: of the estimator.
        y: points, (n, D).
        weights: of each, (n,).
        given: what is given with each, (n, K), or None.
        left_out: points that only tell how smooth the density is, or when to stop, (n,).
        budget: seconds of a training, or in which numbers of components are tried.
        steps: of a training, in place of a budget.
        patience: validations without a new best after which a training stops.
        seed: of all that is drawn.
        log_density: of each point, up to a constant, (n,), which a Gaussian process learns.
        progress: see :func:`undrift.train.loop.train`.

    Returns:
        The density, and how it went.
    """
    if choice.estimator == "kde":
        found = fit_kernel_density(y, weights, given, left_out=left_out, seed=seed)
        return found, {"bandwidth": found.bandwidth}
    if choice.estimator == "mixture":
        seconds = {} if budget is None else {"seconds": min(budget, _MIXTURE)}
        mixture = fit_mixture(y, weights, given, left_out=left_out, seed=seed, **seconds)
        return mixture, {"components": len(mixture.joint.weights)}
    if choice.estimator == "gp":
        process = fit_gaussian_process(y, weights, given, log_density=log_density, left_out=left_out, seed=seed)
        return process, {"points": len(process.points), "log normaliser error": process.normaliser_error}
    settings = Settings(
        budget=budget if steps is None else None, steps=steps, learning_rate=_LEARNING_RATE, weight_decay=0.0,
        ema=_EMA, patience=patience, seed=seed,
    )  # fmt: skip
    rest: dict[str, Any] = {"left_out": left_out, "settings": settings, "progress": progress}
    if choice.estimator == "nsf":
        spline, trained = fit_spline_flow(y, weights, given, **rest)
        return spline, trained.to_dict()
    rest |= {"width": choice.width, "layers": _LAYERS}
    flow, trained = fit_point_flow(choice.estimator, y, weights, given, **rest)
    return flow, trained.to_dict()


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
    return _KINDS[estimator](arrays)
